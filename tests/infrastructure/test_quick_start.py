"""docs/quick-start-aws.md, as far as its commands can be tried without AWS."""

import os
import re
import shlex
import subprocess
from pathlib import Path

import botocore.session
from botocore import xform_name

import template

PAGE = Path(__file__).resolve().parents[2] / "docs" / "quick-start-aws.md"
# Options of the AWS CLI itself.
OF_THE_CLI = {"query", "output", "region"}


def commands() -> list:
    """Every line of the page's blocks, continued ones in one."""
    blocks = re.findall(r"^```sh\n(.*?)^```", PAGE.read_text(), re.M | re.S)
    return "".join(blocks).replace("\\\n", " ").splitlines()


def calls_of_aws() -> list:
    """The words of every call of `aws`, those within another command's too."""
    calls = []
    for line in commands():
        line = line.split(" #")[0].strip()
        inner = re.findall(r"\$\((aws [^()]*(?:\([^()]*\)[^()]*)*)\)", line)
        outer = re.sub(r"\$\(.*\)", "VALUE", line)
        calls += [shlex.split(one) for one in inner]
        if outer.startswith("aws "):
            calls.append(shlex.split(outer))
    return calls


def test_calls_of_aws_are_such_as_there_are():
    calls, session = calls_of_aws(), botocore.session.get_session()
    assert len(calls) >= 9
    for _, service, operation, *words in calls:
        if operation == "wait":
            waiters = session.create_client(service, region_name="eu-west-1").waiter_names
            operation, *words = words
            assert operation.replace("-", "_") in waiters
            continue
        model = session.get_service_model(service)
        known = {xform_name(name, "-"): name for name in model.operation_names}
        shape = model.operation_model(known[operation]).input_shape
        members = {xform_name(name, "-") for name in shape.members}
        options = {word[2:] for word in words if word.startswith("--")}
        assert options <= members | OF_THE_CLI, (operation, options - members)
        required = {xform_name(name, "-") for name in shape.required_members}
        assert required <= options, (operation, required - options)


def test_the_stack_gets_parameters_that_it_has_and_all_that_it_needs():
    declared = template.load()["Parameters"]
    create = next(call for call in calls_of_aws() if call[2] == "create-stack")
    given = {
        word.split(",")[0].removeprefix("ParameterKey=") for word in create if word.startswith("ParameterKey=")
    }
    assert given <= set(declared)
    assert {name for name, about in declared.items() if "Default" not in about} <= given
    named = set(re.findall(r"`([A-Z]\w+)`", PAGE.read_text()))
    assert named <= set(declared), named - set(declared)
    config = {line.split()[3] for line in commands() if line.startswith("pulumi config set")} - {"aws:region"}
    assert {name[0].upper() + name[1:] for name in config} == {
        name for name, about in declared.items() if "Default" not in about
    }


def test_the_authority_is_made_and_found_again_as_the_page_says(programs, tmp_path):
    run = lambda line: subprocess.run(
        line,
        shell=True,
        cwd=tmp_path,
        env={"PATH": f"{programs}:{os.environ['PATH']}", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    lines = [line for line in commands() if line.startswith(("smartscale-coordinator init", "tar "))]
    assert len(lines) == 2
    said = ""
    for line in lines:
        ran = run(line)
        assert ran.returncode == 0, (line, ran.stderr)
        said += ran.stdout
    printed = re.search(r"CA fingerprint +(\S+)", said)[1]
    assert re.fullmatch(template.load()["Parameters"]["CaFingerprint"]["AllowedPattern"], printed)
    # The server unpacks it.
    server = tmp_path / "server"
    server.mkdir()
    unpacked = run("tar --extract --no-same-owner --file authority.tar --directory server ca.crt ca.key")
    assert unpacked.returncode == 0, unpacked.stderr
    assert (server / "ca.key").stat().st_mode & 0o777 == 0o600
