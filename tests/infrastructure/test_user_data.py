"""What the machines are told at their first boot: the programs take their configuration, and the scripts do their steps."""

import hashlib
import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

import template
from given import GIVEN

STAND_INS = """#!/bin/sh
echo "$(basename "$0") $*" >>"$CALLS"
case "$(basename "$0") $*" in
"aws secretsmanager get-secret-value"*authority*) base64 <"$FOLDER/authority.tar" ;;
"aws secretsmanager get-secret-value"*standby*) base64 <"$FOLDER/run/standby.tar" ;;
"rm /run/"*) ;;
*" --kubeconfig "*) echo kubeconfig >"$3" ;;
*"jsonpath={.data.token}") echo dG9rZW4= ;;
*"jsonpath={.data.ca"*) echo Y2VydGlmaWNhdGU= ;;
"curl "*) while [ $# -gt 1 ]; do case $1 in -o) echo fetched >"$2" ;; esac; shift; done ;;
"hostname"*) echo K3s-Server ;;
esac
"""


def user_data(resource: str, given: dict) -> str:
    made = template.Stack(given).resources()[resource]
    return made.get("LaunchTemplateData", made)["UserData"]


def files(resource: str, given: dict) -> dict:
    document = yaml.safe_load(user_data(resource, given))
    assert document["runcmd"] == [["/usr/local/sbin/smartscale-first-boot"]]
    return {one["path"]: one["content"] for one in document["write_files"]}


@pytest.mark.parametrize(
    "resource, given",
    [
        ("Server", "default"),
        ("Server", "other"),
        ("WorkerTemplate", "default"),
        ("WorkerTemplate", "other"),
        ("StandbyServer", "other"),
    ],
)
def test_user_data_is_read_by_cloud_init_and_short_enough(resource, given):
    """16 KiB before base64: https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instancedata-add-user-data.html."""
    text = user_data(resource, GIVEN[given])
    assert text.startswith("#cloud-config\n") and len(text.encode()) <= 16 * 1024
    assert "${" not in text


def checked(program: Path, path: Path) -> str:
    asked = subprocess.run(
        [program, "--config", path, "check-config"],
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert asked.returncode == 0, asked.stderr
    return asked.stdout + asked.stderr


# What AWS would have put in.
KNOWN = {
    "<Table name>": "smartscale-demo",
    "<WorkerTemplate id>": "lt-0123456789abcdef0",
    "<NewSubnetA id>": "subnet-0aaaaaaaaaaaaaaa1",
    "<NewSubnetB id>": "subnet-0aaaaaaaaaaaaaaa2",
    "<Notices url>": "https://sqs.eu-west-1.amazonaws.com/123456789012/smartscale-demo-notices",
    "<DecisionLog name>": "/smartscale/k3s-demo/decisions",
    "<Topic arn>": "arn:aws:sns:eu-west-1:123456789012:smartscale-demo",
}


def configure(given: dict, folder: Path):
    """Writes the coordinator's files as they are on the server."""
    written = files("Server", given)
    for name in ["coordinator.toml", "policy.toml"]:
        text = written[f"/etc/smartscale/{name}"]
        (folder / name).write_text(re.sub(r"<\w+ \w+>", lambda match: KNOWN[match[0]], text))


@pytest.mark.parametrize("given", GIVEN)
def test_the_coordinator_takes_its_configuration(given, programs, tmp_path):
    configure(GIVEN[given], tmp_path)
    said = checked(programs / "smartscale-coordinator", tmp_path / "coordinator.toml")
    least, most = GIVEN[given].get("MinNodes", 2), GIVEN[given].get("MaxNodes", 10)
    assert f"1 pools, {least} to {most} nodes" in said
    assert "warning" not in said


@pytest.mark.parametrize("given", GIVEN)
def test_the_agent_takes_its_configuration(given, programs, tmp_path):
    (tmp_path / "agent.toml").write_text(files("WorkerTemplate", GIVEN[given])["/etc/smartscale/agent.toml"])
    checked(programs / "smartscale-agent", tmp_path / "agent.toml")


# Packages that are what the stand-in of curl fetches.
SUM = hashlib.sha256(b"fetched\n").hexdigest()
DEB = GIVEN["default"] | {
    "CoordinatorPackage": "https://packages.example.org/smartscale-coordinator.deb",
    "CoordinatorPackageSha256": SUM,
}
RPM = GIVEN["other"] | {"CoordinatorPackageSha256": SUM, "AgentPackageSha256": SUM}


def first_boot(resource: str, given: dict, folder: Path, times: int = 1, well: bool = True) -> list:
    """The calls that the script makes on a machine whose image has nothing; stand-ins note them. Paths lie below the folder."""
    text = files(resource, given)["/usr/local/sbin/smartscale-first-boot"]
    text = re.sub(r"(?<![\w.:/])/(etc|usr|var|run)/", rf"{folder}/\1/", text)
    tools = folder / "tools"
    tools.mkdir()
    names = "aws curl dpkg rpm snap systemctl k3s sh-fetched hostname chown rm"
    for name in names.split():
        (tools / name).write_text(STAND_INS)
        (tools / name).chmod(0o755)
    for path in ["etc/smartscale", "etc/rancher/k3s", "usr/bin", "usr/local/bin", "var/tmp", "run"]:
        (folder / path).mkdir(parents=True, exist_ok=True)
    text = re.sub(r"\bsh (\S*/var/tmp/k3s)", r"sh-fetched \1", text)
    authority = folder / "authority"
    authority.mkdir()
    for name in ["ca.crt", "ca.key"]:
        (authority / name).write_text(name)
    subprocess.run(
        ["tar", "--create", "--file", folder / "authority.tar", "--directory", authority, "ca.crt", "ca.key"],
        check=True,
    )
    if resource == "Server":
        configure(given, folder / "etc/smartscale")
    script = folder / "first-boot"
    script.write_text(text)
    environment = {
        "PATH": f"{tools}:{os.environ['PATH']}",
        "CALLS": str(folder / "calls"),
        "FOLDER": str(folder),
    }
    for _ in range(times):
        ran = subprocess.run(["sh", script], env=environment, capture_output=True, text=True, timeout=30)
        assert (ran.returncode == 0) == well, ran.stderr
    return (folder / "calls").read_text().replace(str(folder), "").splitlines()


def in_order(calls: list, wanted: list):
    at = 0
    for start in wanted:
        found = next((index for index in range(at, len(calls)) if calls[index].startswith(start)), None)
        assert found is not None, (start, calls)
        at = found + 1


def test_a_worker_installs_what_its_image_lacks_and_starts_the_agent_alone(tmp_path):
    calls = first_boot("WorkerTemplate", RPM, tmp_path)
    in_order(
        calls,
        [
            "curl -fsSL",
            "rpm --install /var/tmp/smartscale-agent.rpm",
            "curl -fsSL",
            "sh-fetched /var/tmp/k3s agent",
            "systemctl enable --now smartscale-agent.service",
        ],
    )
    assert [call for call in calls if call.startswith("systemctl")] == [calls[-1]]


def test_a_server_brings_up_k3s_and_then_the_coordinator(tmp_path):
    calls = first_boot("Server", DEB, tmp_path)
    in_order(
        calls,
        [
            "dpkg --install /var/tmp/smartscale-coordinator.deb",
            "aws secretsmanager get-secret-value --region eu-west-1 --secret-id smartscale/authority",
            "sh-fetched /var/tmp/k3s server",
            "systemctl enable --now k3s.service",
            "k3s kubectl get --raw /readyz",
            "k3s kubectl apply --kustomize /usr/share/smartscale/kubernetes",
            "k3s kubectl --namespace kube-system patch configmap smartscale-other-nodes --type merge"
            ' --patch {"data":{"k3s-server":""}}',
            "k3s kubectl apply --kustomize /usr/share/smartscale/kubernetes/join-tokens",
            "k3s kubectl apply --filename -",
            "k3s kubectl --kubeconfig /etc/smartscale/kubeconfig config set-credentials smartscale --token token",
            "chown --recursive smartscale: /etc/smartscale",
            "systemctl enable --now smartscale-coordinator.service",
        ],
    )
    assert not any("put-secret-value" in call for call in calls)
    etc = tmp_path / "etc"
    assert [(etc / "smartscale" / name).read_text() for name in ["ca.crt", "ca.key"]] == ["ca.crt", "ca.key"]
    assert re.fullmatch("[0-9a-f]{64}\n", (etc / "rancher/k3s/agent-token").read_text())
    assert (etc / "rancher/k3s/agent-token").stat().st_mode & 0o777 == 0o600


def test_a_server_stores_the_shared_token(tmp_path):
    calls = first_boot("Server", RPM, tmp_path)
    in_order(
        calls,
        [
            "rpm --install /var/tmp/smartscale-coordinator.rpm",
            "k3s kubectl get --raw /readyz",
            "aws secretsmanager put-secret-value --region eu-west-1 --secret-id shop/k3s/join-token"
            " --secret-string file:///var/lib/rancher/k3s/server/agent-token",
            "aws secretsmanager put-secret-value --region eu-west-1 --secret-id smartscale/shop/standby"
            " --secret-binary fileb:///run/standby.tar",
            "systemctl enable --now smartscale-coordinator.service",
        ],
    )
    assert not any("join-tokens" in call for call in calls)


def test_a_second_coordinator_gets_what_the_first_one_has_and_each_is_the_others_peer(programs, tmp_path):
    first_boot("Server", RPM, tmp_path)
    # What the first one has put into the secret (`rm` is a stand-in).
    second = tmp_path / "second"
    (second / "run").mkdir(parents=True)
    (second / "run/standby.tar").write_bytes((tmp_path / "run/standby.tar").read_bytes())
    calls = first_boot("StandbyServer", RPM, second)
    in_order(
        calls,
        [
            "rpm --install /var/tmp/smartscale-coordinator.rpm",
            "aws secretsmanager get-secret-value --region eu-west-1 --secret-id shop/authority",
            "aws secretsmanager get-secret-value --region eu-west-1 --secret-id smartscale/shop/standby",
            "systemctl enable --now smartscale-coordinator.service",
        ],
    )
    one, two = [
        tomllib.loads((folder / "etc/smartscale/coordinator.toml").read_text()) for folder in [tmp_path, second]
    ]
    assert (one["name"], two["name"]) == ("coordinator-a", "coordinator-b")
    assert one["serve"]["peers"] == {"coordinator-b": two["serve"]["advertise"]}
    assert two["serve"]["peers"] == {"coordinator-a": one["serve"]["advertise"]}
    same = {"name", "serve"}
    assert {key: one[key] for key in one if key not in same} == {key: two[key] for key in two if key not in same}
    for name in ["policy.toml", "kubeconfig", "ca.crt", "ca.key"]:
        assert (second / "etc/smartscale" / name).read_text() == (tmp_path / "etc/smartscale" / name).read_text()
    checked(programs / "smartscale-coordinator", second / "etc/smartscale/coordinator.toml")
    agent = tomllib.loads(files("WorkerTemplate", RPM)["/etc/smartscale/agent.toml"])
    assert agent["coordinators"] == [one["serve"]["advertise"], two["serve"]["advertise"]]


def test_what_a_server_applies_and_starts_is_in_the_packages():
    packaging = template.PATH.parents[1]
    contents = {}
    for part in ["server", "worker"]:
        package = yaml.safe_load((packaging / part / "package.yaml").read_text())
        contents |= {one["dst"]: one.get("src") for one in package["contents"]}
    text = files("Server", GIVEN["default"])["/usr/local/sbin/smartscale-first-boot"]
    applied = re.findall(r"--kustomize (\S+)", text)
    assert len(applied) == 2
    for folder in applied:
        where = next(one for one in contents if one and folder.startswith(one) and contents[one] == "../kubernetes/")
        assert (packaging / "kubernetes" / folder[len(where) :].strip("/") / "kustomization.yaml").exists(), folder
    for program in ["smartscale-agent", "smartscale-coordinator"]:
        assert {f"/usr/bin/{program}", f"/usr/lib/systemd/system/{program}.service"} <= set(contents)
    assert (packaging / "server/smartscale.sysusers").read_text().startswith("u smartscale ")


def test_a_second_run_changes_no_key_and_no_token(tmp_path):
    calls = first_boot("Server", DEB, tmp_path, times=2)
    assert sum("get-secret-value" in call for call in calls) == 1



def test_a_package_that_is_not_the_one_that_was_meant_is_not_installed(tmp_path):
    calls = first_boot("WorkerTemplate", RPM | {"AgentPackageSha256": "a" * 64}, tmp_path, well=False)
    assert [call.split()[0] for call in calls] == ["curl"]
