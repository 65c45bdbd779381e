"""Every program that a page of the documentation calls, under its own name.

Ours are run as they are, against the demo's coordinator where they ask one. What belongs to a machine, to AWS or to a real
cluster cannot be run here: its words are held against the program's own parser (kubectl), against the service's model (aws), or
against what is in this repository (units, packages, make targets, files). A program that is not here is "command not found", and
the page's test fails.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
ROOT = Path(os.environ.get("DOC_ROOT", "/nonexistent"))
PROGRAMS = Path(os.environ.get("DOC_PROGRAMS", "/nonexistent"))
RIG = Path(os.environ.get("DOC_RIG", "/nonexistent"))
# What these do has no effect beyond the sandbox: they are the machine's own.
AS_THEY_ARE = "awk base64 basename bash cat chmod cp cut date dirname env false find grep gzip head ln ls mkdir mktemp mv printf rm sed sh sha256sum sleep sort stat tail tar tee test touch tr true uniq wc xargs openssl".split()
# Scripts of the repository that take long: not run here, but in tests of their own.
LONG = {"packaging/release": "tests/tests/packaging", "packaging/reproducible": "`make reproducible`"}


def refuse(why: str):
    sys.exit(f"{' '.join(sys.argv[1:])}: {why}")


def expect(holds: bool, why: str):
    if not holds:
        refuse(why)


def real(program: Path, words: list, **more) -> int:
    return subprocess.run([program, *words], **more).returncode


def smartscale(words: list) -> int:
    # In the pages' commands these words stand for a name.
    stand_for = {name: os.environ[f"DOC_{name}"] for name in ["NODE", "POD", "OPERATION"]}
    words = [stand_for.get(word, word) for word in words]
    # A page's own credentials and address are of a cluster that is not there: the demo's take their place.
    for option in ["--credentials", "--endpoint"]:
        if option in words:
            at = words.index(option)
            expect(option == "--endpoint" or Path(words[at + 1]).exists(), f"{words[at + 1]} is not there")
            words = words[:at] + words[at + 2 :]
    command = next((word for word in words if not word.startswith("-")), "")
    if command == "demo":
        # It is played by tests of its own, and takes a minute: its words alone are held against its parser.
        return real(PROGRAMS / "smartscale", [*words, "--help"], stdout=subprocess.DEVNULL)
    if command in {"backtest"} and {"--prometheus", "--recorded"} & set(words):
        # Nobody has a history: it has to get as far as asking for one.
        ran = subprocess.run([PROGRAMS / "smartscale", *words], stderr=subprocess.PIPE, text=True)
        expect(ran.returncode == 1 or "--help" not in ran.stderr, ran.stderr)
        return 0
    if command == "watch":
        try:
            subprocess.run([PROGRAMS / "smartscale", *words], timeout=2)
        except subprocess.TimeoutExpired:
            return 0
        refuse("it ended by itself")
    if command in {"drain", "recycle"}:
        # One at a time: the page may order another.
        real(PROGRAMS / "smartscale", words)
        return 0 if "--cancel" in words else real(PROGRAMS / "smartscale", ["drain", os.environ["DOC_NODE"], "--cancel"], stdout=subprocess.DEVNULL)
    return real(PROGRAMS / "smartscale", words)


def coordinator(words: list) -> int:
    folder = ROOT / "etc/smartscale"
    command = next((word for word in words if not word.startswith("-")), "run")
    if command == "init" and "--folder" not in words:
        # A new machine has none yet.
        folder.rename(folder.with_name(f"smartscale-{os.getpid()}"))
        words = [*words, "--folder", str(folder)]
    elif "--config" not in words:
        words = [*words, "--config", str(folder / "coordinator.toml")]
    if command in {"run", "check"} or "--kms-key" in words:
        # They ask the cluster and AWS: their words alone are held against their parser.
        return real(PROGRAMS / "smartscale-coordinator", [*words, "--help"], stdout=subprocess.DEVNULL)
    return real(PROGRAMS / "smartscale-coordinator", words)


def agent(words: list) -> int:
    if "check-config" in words or "version" in words:
        return real(PROGRAMS / "smartscale-agent", words)
    # It would drain or join this machine: its words alone are held against its parser.
    return real(PROGRAMS / "smartscale-agent", [*words, "--help"], stdout=subprocess.DEVNULL)


def kubectl(words: list) -> int:
    program = next(path for path in [RIG / "bin/kubectl", Path("/usr/bin/kubectl"), Path("/usr/local/bin/kubectl")] if path.exists())
    if words[:1] == ["config"]:
        return real(program, words, env={**os.environ, "KUBECONFIG": str(ROOT / "kubeconfig")}, stdout=subprocess.DEVNULL)
    ran = subprocess.run([program, *words, "--help"], capture_output=True, text=True)
    expect(ran.returncode == 0 and "Usage:" in ran.stdout, ran.stderr)
    for option, path in zip(words, words[1:]):
        # Where the coordinator's package puts it.
        path = path.replace("/usr/share/smartscale/kubernetes", str(REPOSITORY / "packaging/kubernetes"))
        if option == "-k":
            built = subprocess.run([RIG / "bin/kustomize", "build", path], capture_output=True, text=True)
            expect(built.returncode == 0, built.stderr)
        if option == "-f" and path != "-":
            expect(Path(path).exists(), f"{path} is not there")
    if "-" in words and "-f" in words:
        import yaml

        expect(any(yaml.safe_load_all(sys.stdin.read())), "nothing is applied")
    if words[:1] == ["get"] and {"yaml", "json"} & set(words):
        example = Path("docs/examples/cluster.yaml").read_text()
        if "json" in words:
            import json

            import yaml

            example = json.dumps({"items": [item for one in yaml.safe_load_all(example) for item in (one or {}).get("items", [one])]})
        sys.stdout.write(example)
    elif any("jsonpath" in word for word in words):
        sys.stdout.write("c3RhbmQtaW4=")
    return 0


def aws(words: list) -> int:
    import botocore.session
    from botocore import xform_name

    of_the_cli = {"query", "output", "region", "profile"}
    service, operation, *rest = words
    session = botocore.session.get_session()
    if operation == "wait":
        waiters = session.create_client(service, region_name="eu-west-1", aws_access_key_id="-", aws_secret_access_key="-").waiter_names
        expect(rest[0].replace("-", "_") in waiters, f"{rest[0]} is no waiter")
        return 0
    if service == "s3":
        expect(operation == "cp", f"s3 {operation} is not known here")
        return 0
    model = session.get_service_model(service)
    known = {xform_name(name, "-"): name for name in model.operation_names}
    expect(operation in known, f"{service} has no {operation}")
    shape = model.operation_model(known[operation]).input_shape
    members = {xform_name(name, "-") for name in shape.members} if shape else set()
    members |= {f"no-{one}" for one in members}
    required = {xform_name(name, "-") for name in shape.required_members} if shape else set()
    options = {word[2:] for word in rest if word.startswith("--")}
    expect(options <= members | of_the_cli, f"no options {options - members - of_the_cli}")
    expect(required <= options, f"lacks {required - options}")
    for word in rest:
        if found := re.match(r"fileb?://(.*)", word):
            expect(Path(found[1]).exists(), f"{found[1]} is not there")
    if "query" in options:
        print("stand-in")
    return 0


def make(words: list) -> int:
    targets = set(re.findall(r"^([\w-]+):(?!=)", (REPOSITORY / "Makefile").read_text(), re.M))
    for word in words:
        expect(word in targets or "=" in word, f"there is no target {word}")
    return 0


def cargo(words: list) -> int:
    import tomllib

    ours, _, theirs = " ".join(words).partition(" -- ")
    ours = ours.split()
    if ours[0] == "run":
        return smartscale(theirs.split())
    expect(ours[0] in {"test", "check", "bench", "build"}, f"cargo {ours[0]} is not known here")
    members = tomllib.loads((REPOSITORY / "Cargo.toml").read_text())["workspace"]["members"]
    packages = {tomllib.loads((REPOSITORY / one / "Cargo.toml").read_text())["package"]["name"]: REPOSITORY / one for one in members}
    named = [after for word, after in zip(ours, ours[1:]) if word in {"-p", "--package"}]
    expect(all(name in packages or name == "PACKAGE" for name in named), f"no package {named}")
    for word, after in zip(ours, ours[1:]):
        if word == "--test":
            folders = [packages[name] for name in named] or packages.values()
            expect(any((one / "tests" / f"{after}.rs").exists() or (one / "tests" / after / "main.rs").exists() for one in folders), f"no tests {after}")
    return 0


def systemctl(words: list) -> int:
    verbs = {"enable", "disable", "start", "stop", "restart", "reload", "status", "is-active", "daemon-reload"}
    verb, *units = [word for word in words if not word.startswith("-")]
    expect(verb in verbs, f"{verb} is not known here")
    for unit in units:
        name = unit.removesuffix(".service")
        ours = {path.stem: path for path in (REPOSITORY / "packaging").glob("*/*.service")}
        expect(name in ours or name == "k3s", f"no unit {name} is packaged")
        if verb == "reload":
            expect("ExecReload=" in ours[name].read_text(), f"{name} cannot be reloaded")
    return 0


def journalctl(words: list) -> int:
    units = [after for word, after in zip(words, words[1:]) if word in {"-u", "--unit"}]
    return systemctl(["status", *units])


def packages(words: list) -> int:
    expect(words[0] in {"--install", "install", "-i", "-U"}, f"{words[0]} is not known here")
    known = {re.search(r"^name: (\S+)", path.read_text(), re.M)[1] for path in (REPOSITORY / "packaging").glob("*/package.yaml")}
    for word in words[1:]:
        if not word.startswith("-"):
            name = re.split(r"[_*]", Path(word).name)[0].rstrip("-")
            expect(name in known, f"no package {name}: there are {known}")
    return 0


def python3(words: list) -> int:
    expect(words[:2] == ["-m", "venv"], "only `-m venv` is known here")
    pip = Path(words[2]) / "bin/pip"
    pip.parent.mkdir(parents=True)
    pip.write_text('#!/bin/bash\n[ "$1 $2" = "install --requirement" ] && [ -e "$3" ]\n')
    pip.chmod(0o755)
    return 0


def pulumi(words: list) -> int:
    if words[:2] == ["config", "set"]:
        name = words[2]
        expect(name == "aws:region" or re.search(rf"^ +([\w-]+:)?{name}:", Path("Pulumi.yaml").read_text(), re.M), f"no setting {name}")
    else:
        expect(words[0] in {"up", "destroy"} or words[:2] == ["stack", "init"], "it is not known here")
    return 0


def curl(words: list) -> int:
    url = next(word for word in words if word.startswith("http"))
    if url == "https://get.k3s.io":
        # K3s' own installer, for the shell behind: this machine gets none.
        return 0
    source = (REPOSITORY / "coordinator/src/tell/http.rs").read_text()
    expect(f'"/{url.split("/", 3)[3]}"' in source, "no coordinator serves that")
    return 0


def install_file(words: list) -> int:
    """`install`, without giving files to a user that only the package makes."""
    kept = []
    while words:
        word, *words = words
        if word in {"-o", "-g"}:
            user, *words = words
            expect(user in {"smartscale", "root"}, f"nobody has made the user {user}")
        else:
            kept.append(word)
    return real(Path("/usr/bin/install"), kept)


def ssh_keygen(words: list) -> int:
    expect("-t" in words and "-f" in words and "-N" in words, "it would ask for what is not said")
    Path(words[words.index("-f") + 1]).write_text("stand-in")
    return 0


def ssh_keyscan(words: list) -> int:
    expect(words and all(re.fullmatch(r"[\w.-]+", word) for word in words), "it takes hosts")
    return 0


def scp(words: list) -> int:
    for word in words[:-1]:
        expect(":" in word or word.startswith("-") or Path(word).exists(), f"{word} is not there")
    return 0


def jq(words: list) -> int:
    program = next((path for path in [Path("/usr/bin/jq"), Path("/usr/local/bin/jq")] if path.exists()), None)
    if program is None:
        # Nothing else here needs it: what only changes its input is passed on, what selects finds nothing.
        said = sys.stdin.read()
        if any("+=" in word or "|=" in word for word in words):
            sys.stdout.write(said)
        return 0
    return real(program, words)


def promtool(words: list) -> int:
    return real(RIG / "prometheus/usr/bin/promtool", words)


def on_behalf(words: list) -> int:
    """`sudo -u USER COMMAND`, `runuser --user USER -- COMMAND`."""
    while words and words[0].startswith("-"):
        option, *words = words
        if option in {"-u", "--user"}:
            user, *words = words
            expect(user == "smartscale", f"nobody has made the user {user}")
    return subprocess.run(words).returncode


PROGRAMS_HERE = {
    "smartscale": smartscale,
    "smartscale-coordinator": coordinator,
    "smartscale-agent": agent,
    "kubectl": kubectl,
    "aws": aws,
    "make": make,
    "cargo": cargo,
    "systemctl": systemctl,
    "journalctl": journalctl,
    "dpkg": packages,
    "apt": packages,
    "dnf": packages,
    "rpm": packages,
    "python3": python3,
    "pulumi": pulumi,
    "curl": curl,
    "install": install_file,
    "ssh-keygen": ssh_keygen,
    "ssh-keyscan": ssh_keyscan,
    "scp": scp,
    "jq": jq,
    "promtool": promtool,
    "sudo": on_behalf,
    "runuser": on_behalf,
}


def install(folder: Path, clone: Path, python: str):
    """Puts every program that pages may call into the folder, and scripts that do nothing in the place of the long ones."""
    import shutil

    for script in LONG:
        (clone / script).write_text("#!/bin/bash\n")

    for name in PROGRAMS_HERE:
        program = folder / name
        program.write_text(f'#!/bin/bash\nexec "{python}" "{__file__}" {name} "$@"\n')
        program.chmod(0o755)
    for name in AS_THEY_ARE:
        if found := shutil.which(name):
            (folder / name).symlink_to(found)


if __name__ == "__main__":
    sys.exit(PROGRAMS_HERE[sys.argv[1]](sys.argv[2:]))
