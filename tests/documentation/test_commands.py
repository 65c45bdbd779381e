"""Every command of the pages is run, and every block of data is read.

A page is one session: its blocks are run in their order by bash, which stops at the first command that fails. The programs that
they call are in `stand_ins.py`; paths of a machine (/etc/smartscale and so on) lie in a folder of the test. What a `console` block
shows after a command is compared with what the command says; `UPDATE_GOLDEN=1` writes it anew.
"""

import configparser
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib

import pytest
import yaml

import pages
import stand_ins

OF_A_MACHINE = re.compile(r"(?<![\w/}$.])(/(?:etc/(?:smartscale|rancher)|var/(?:lib|backups)/(?:smartscale|rancher)|run/smartscale|usr/share/doc/smartscale\S*))(?![\w-])")
OURS = ("smartscale", "smartscale-agent", "smartscale-coordinator")
# Blocks that another test runs, by what the comment before them says, and that test.
ELSEWHERE = {r"case: \w+": "coordinator/admin/tests/answers.rs"}


def elsewhere(block: pages.Block) -> bool:
    return any(re.fullmatch(said, block.said) for said in ELSEWHERE)


def session(blocks: list) -> list:
    return [block for block in blocks if block.language in {"sh", "console"} and not elsewhere(block)]


PAGES = [page for page in pages.pages() if session(pages.blocks(page))]
EVERY = [block for page in pages.pages() for block in pages.blocks(page)]


@pytest.fixture(scope="session")
def machine(programs, tmp_path_factory):
    """A machine whose coordinator has been made and whose agent has a configuration."""
    root = tmp_path_factory.mktemp("machine")
    folder = root / "etc/smartscale"
    made = subprocess.run(
        [programs / "smartscale-coordinator", "init", "--folder", folder, "--cluster", "k3s-demo", "--advertise", "127.0.0.1:7443"],
        capture_output=True,
        text=True,
    )
    assert made.returncode == 0, made.stderr
    fingerprint = re.search(r"sha256:\w+", made.stdout)[0]
    agent = (pages.REPOSITORY / "packaging/worker/agent.toml").read_text()
    (folder / "agent.toml").write_text(re.sub(r"sha256:[^\"]*", fingerprint, agent))
    configuration = (folder / "coordinator.toml").read_text()
    state = root / "var/lib/smartscale"
    state.mkdir(parents=True)
    configuration = re.sub(r"^# path = \S+", f'path = "{state}/state.db"', configuration, flags=re.M)
    (folder / "coordinator.toml").write_text(configuration)
    # Whatever opens the store makes it.
    status = [programs / "smartscale-coordinator", "--config", folder / "coordinator.toml", "ca", "status"]
    opened = subprocess.run(status, capture_output=True, text=True)
    assert opened.returncode == 0, opened.stderr
    return root


@pytest.fixture
def sandbox(machine, programs, rig, cluster, tmp_path):
    """Where a page is run: what it takes from a clone and from the person who reads it, and the programs that there are."""
    root, clone, path = tmp_path / "machine", tmp_path / "clone", tmp_path / "bin"
    shutil.copytree(machine, root, symlinks=True)
    configuration = root / "etc/smartscale/coordinator.toml"
    configuration.write_text(configuration.read_text().replace(str(machine), str(root)))
    for name in ["docs", "packaging", "coordinator/backtest/data", "coordinator/planner/tests/cases"]:
        shutil.copytree(pages.REPOSITORY / name, clone / name, symlinks=True)
    for example in (clone / "docs/examples").iterdir():
        if example.is_file():
            shutil.copy(example, clone)
    # The month takes minutes; its first days show as well that the command is right.
    month = clone / "coordinator/backtest/data/nasa-http-1995-07.csv"
    month.write_text("".join(month.read_text().splitlines(keepends=True)[:2000]))
    path.mkdir()
    stand_ins.install(path, clone, sys.executable)
    # A copy: `smartscale login` writes anew what it finds.
    credentials = root / ".config/smartscale/credentials.toml"
    credentials.parent.mkdir(parents=True)
    shutil.copy(cluster["credentials"], credentials)
    environment = {
        "PATH": str(path),
        "HOME": str(root),
        "LC_ALL": "C.UTF-8",
        "DOC_ROOT": str(root),
        "DOC_PROGRAMS": str(programs),
        "DOC_RIG": str(rig),
        **{f"DOC_{name}": cluster[name] for name in ["NODE", "POD", "OPERATION"]},
        "SMARTSCALE_ENDPOINT": cluster["endpoint"],
    }
    return root, clone, environment


def steps(block: pages.Block) -> list:
    """The commands of a block, each with what the page shows of its output; `None`: nothing is shown."""
    if block.language == "sh":
        return [(block.text, None)]
    found = []
    for line in block.text.splitlines(keepends=True):
        if line.startswith("$ "):
            found.append([line[2:], ""])
        elif line.startswith("> ") and found and found[-1][1] == "":
            found[-1][0] += line[2:]
        else:
            assert found, f"{block}: a console block begins with a command (`$ …`)"
            found[-1][1] += line
    return [tuple(step) for step in found]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(pages.REPOSITORY)))
def test_the_commands_of_a_page_work_one_after_another(page, sandbox, tmp_path):
    root, clone, environment = sandbox
    # A page in a folder of its own speaks of that folder, but for those in docs/.
    here = clone if page.parent.name == "docs" or page.parent == pages.REPOSITORY else clone / page.parent.relative_to(pages.REPOSITORY)
    script, shown = ["set -euo pipefail"], []
    for block in session(pages.blocks(page)):
        script.append(f"cd {here}; echo '── {block}' >&2")
        for command, output in steps(block):
            command = OF_A_MACHINE.sub(lambda found: f"{root}{found[1]}", command)
            said = tmp_path / f"said-{len(shown)}"
            # In this shell, so that what one command sets the next one has.
            script.append(f"{{ {command}\n}} > {said}" if output is not None else command)
            shown.append((block, output, said))
    ran = subprocess.run(
        ["/bin/bash", "-c", "\n".join(script)], cwd=here, env=environment, capture_output=True, text=True, timeout=300, stdin=subprocess.DEVNULL
    )
    assert ran.returncode == 0, f"after the last line that begins with ──:\n{ran.stderr}\n{ran.stdout}"
    text = page.read_text()
    for block, output, said in shown:
        if output is None:
            continue
        real = said.read_text().replace(str(root), "")
        if os.environ.get("UPDATE_GOLDEN"):
            assert "```" not in real
            text = text.replace(block.text, block.text.replace(output, real) if output else block.text + real)
        else:
            assert real == output, f"{block} shows something else (UPDATE_GOLDEN=1 writes it anew)"
    if text != page.read_text():
        page.write_text(text)


@pytest.mark.parametrize("block", EVERY, ids=str)
def test_every_block_says_what_it_is_and_is_that(block):
    match block.language:
        case "sh" | "console":
            assert block.language == "console" or not re.search(r"^\$ ", block.text, re.M), "a prompt: it is a `console` block"
        case "toml":
            tomllib.loads(block.text)
        case "json":
            json.loads(block.text)
        case "ini":
            configparser.ConfigParser(interpolation=None).read_string(block.text)
        case "yaml":
            assert list(yaml.safe_load_all(block.text))
        case "text":
            # A picture or an output. A line that calls a program is one of its synopses, which the next test reads.
            assert not any(called(line) and not is_synopsis(line) for line in joined(block.text)), "a command: say `sh`"
        case other:
            pytest.fail(f"{block}: ```{other}: say `sh` (it is run), `console` (run, and its output compared), toml, json, yaml, ini or `text`")


POLICY = "cluster limits scale_up scale_down drain forecast cost freeze schedule pool instance_type".split()


def whole_policy(text: str, said: dict) -> str:
    """An excerpt of a policy with what it must have besides."""
    needs = {"name": '"workers"', "zones": '["us-east-1a"]', "instance_types": '["t3.medium"]'}
    pool = said.get("pool", [{}])[0]
    lines = "".join(f"{key} = {value}\n" for key, value in needs.items() if key not in pool)
    text = text.replace("[[pool]]\n", f"[[pool]]\n{lines}", 1) if "pool" in said else f"{text}\n[[pool]]\n{lines}"
    return text if "cluster" in said else f'{text}\n[cluster]\nid = "k3s-demo"\n'


def whole_configuration(text: str, said: dict) -> str:
    """The same of a coordinator's configuration."""
    first = {"mode": '"observe"', "policy": '"policy.toml"'}
    text = "".join(f"{key} = {value}\n" for key, value in first.items() if key not in said) + text
    more = {"serve": 'listen = "0.0.0.0:7443"\nadvertise = "10.0.0.10:7443"', "fleet": ""}
    return text + "".join(f"\n[{table}]\n{lines}\n" for table, lines in more.items() if table not in said)


EXCERPTS = [block for block in EVERY if block.language == "toml"]


@pytest.mark.parametrize("block", EXCERPTS, ids=str)
def test_an_excerpt_of_a_configuration_is_read_by_the_program(block, programs, tmp_path):
    said, examples = tomllib.loads(block.text), pages.REPOSITORY / "docs/examples"
    for example in ["policy.toml", "quiet.yaml", "trace.csv", "workload.toml"]:
        shutil.copy(examples / example, tmp_path)
    if set(said) <= set(POLICY):
        (tmp_path / "policy.toml").write_text(whole_policy(block.text, said))
        command = ["smartscale", "plan", "-f", "quiet.yaml", "--policy", "policy.toml"]
    elif set(said) <= {"workload", "cloud"}:
        (tmp_path / "workload.toml").write_text(block.text)
        command = "smartscale backtest --trace trace.csv --policy policy.toml --workload workload.toml".split()
    elif "agent.toml" in block.text or "coordinators" in said:
        least = "" if "coordinators" in said else f'coordinators = ["10.0.0.10:7443"]\ntrust_domain = "smartscale"\ncluster = "k3s-demo"\nca_fingerprint = "sha256:{"0" * 64}"\n'
        (tmp_path / "agent.toml").write_text((least + block.text).replace("FINGERPRINT", "0" * 64))
        command = ["smartscale-agent", "check-config", "--config", "agent.toml"]
    else:
        (tmp_path / "coordinator.toml").write_text(whole_configuration(block.text, said))
        command = ["smartscale-coordinator", "check-config", "--config", "coordinator.toml"]
    ran = subprocess.run([programs / command[0], *command[1:]], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, f"{ran.stderr}\n{block.text}"


def joined(text: str) -> list:
    """Lines, those that are indented below a command with it."""
    return re.sub(r"\n {4,}", " ", text).splitlines()


def called(line: str) -> bool:
    return line.split(" ", 1)[0] in {*stand_ins.PROGRAMS_HERE, "docker", "git", "ssh"}


def is_synopsis(line: str) -> bool:
    return "…" in line or "[" in line or "|" in line


@pytest.mark.parametrize(
    "line",
    [line for block in EVERY if block.language == "text" for line in joined(block.text) if line.startswith(OURS)],
)
def test_a_synopsis_has_only_options_that_there_are(line, programs):
    program, command = line.split()[:2]
    helped = subprocess.run([programs / program, command, "--help"], capture_output=True, text=True)
    assert helped.returncode == 0, helped.stderr
    for option in re.findall(r"(?<![\w-])--?[a-z][a-z-]*", line.split(maxsplit=2)[2]):
        assert re.search(rf"(?<![\w-]){option}\b", helped.stdout), f"{program} {command} has no {option}"


INLINE = re.compile(r"`((?:sudo )?(?:smartscale|smartscale-agent|smartscale-coordinator) [^`]*)`")


def inline() -> list:
    found = []
    for page in pages.pages():
        if page.name == "CHANGELOG.md":
            continue
        for command in INLINE.findall(pages.prose(page)):
            found.append((f"{page.relative_to(pages.REPOSITORY)}: {' '.join(command.split())}"))
    return sorted(set(found))


@pytest.mark.parametrize("said", inline())
def test_a_command_within_a_sentence_has_only_words_that_there_are(said, programs):
    """`smartscale explain NODE` and the like: the commands and options have to be there, names may be anything."""
    words = said.partition(": ")[2].removeprefix("sudo ").split()
    program, words = words[0], [word for word in words[1:] if word not in {"…", "|"}]
    commands, options = [], re.findall(r"(?<![\w-])--?[a-z][a-z-]*", " ".join(words))
    for word in words:
        helped = subprocess.run([programs / program, *commands, word, "--help"], capture_output=True, text=True)
        if not re.fullmatch(r"[a-z-]+", word) or word.startswith("-") or helped.returncode != 0:
            break
        commands.append(word)
    assert commands or words[0].startswith("-"), f"{program} has no {words[0]}"
    helped = subprocess.run([programs / program, *commands, "--help"], capture_output=True, text=True)
    for option in options:
        assert re.search(rf"(?<![\w-]){option}\b", helped.stdout), f"{program} {' '.join(commands)} has no {option}"
