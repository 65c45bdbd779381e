"""What the machines are told at their first boot: the programs take their configuration, and the scripts do their steps."""

import hashlib
import os
import re
import subprocess
from pathlib import Path

import pytest
import yaml

import template
from given import GIVEN

STAND_INS = """#!/bin/sh
echo "$(basename "$0") $*" >>"$CALLS"
case "$(basename "$0") $*" in
"aws secretsmanager get-secret-value"*) base64 <"$AUTHORITY" ;;
*"jsonpath={.data.token}") echo dG9rZW4= ;;
*"jsonpath={.data.ca"*) echo Y2VydGlmaWNhdGU= ;;
"curl "*) while [ $# -gt 1 ]; do case $1 in --output) echo fetched >"$2" ;; esac; shift; done ;;
"hostname"*) echo K3s-Server ;;
esac
"""


def user_data(resource: str, given: dict) -> str:
    made = template.Stack(given).resources()[resource]
    return made["UserData"] if resource == "Server" else made["LaunchTemplateData"]["UserData"]


def files(resource: str, given: dict) -> dict:
    document = yaml.safe_load(user_data(resource, given))
    assert document["runcmd"] == [["/usr/local/sbin/smartscale-first-boot"]]
    return {one["path"]: one["content"] for one in document["write_files"]}


@pytest.mark.parametrize("given", GIVEN)
@pytest.mark.parametrize("resource", ["Server", "WorkerTemplate"])
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
    "<Topic arn>": "arn:aws:sns:eu-west-1:123456789012:smartscale-demo",
}


@pytest.mark.parametrize("given", GIVEN)
def test_the_coordinator_takes_its_configuration(given, programs, tmp_path):
    written = files("Server", GIVEN[given])
    for name in ["coordinator.toml", "policy.toml"]:
        text = written[f"/etc/smartscale/{name}"]
        text = re.sub(r"<\w+ \w+>", lambda match: KNOWN[match[0]], text)
        (tmp_path / name).write_text(text)
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
    text = re.sub(r"(?<![\w.:/])/(etc|usr|var)/(?!bin/env)", rf"{folder}/\1/", text)
    tools = folder / "tools"
    tools.mkdir()
    names = "aws curl dpkg rpm snap systemctl k3s sh-fetched hostname id chown"
    for name in names.split():
        (tools / name).write_text(STAND_INS)
        (tools / name).chmod(0o755)
    for path in ["etc/smartscale", "etc/rancher/k3s", "usr/bin", "usr/local/bin", "var/tmp"]:
        (folder / path).mkdir(parents=True)
    text = re.sub(r"\bsh (\S*/var/tmp/k3s)", r"sh-fetched \1", text)
    authority = folder / "authority"
    authority.mkdir()
    for name in ["ca.crt", "ca.key"]:
        (authority / name).write_text(name)
    subprocess.run(
        ["tar", "--create", "--file", folder / "authority.tar", "--directory", authority, "ca.crt", "ca.key"],
        check=True,
    )
    script = folder / "first-boot"
    script.write_text(text)
    environment = {
        "PATH": f"{tools}:{os.environ['PATH']}",
        "CALLS": str(folder / "calls"),
        "AUTHORITY": str(folder / "authority.tar"),
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
            "curl --fail",
            "rpm --install /var/tmp/smartscale-agent.rpm",
            "curl --fail",
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
            "chown smartscale: /etc/smartscale/ca.crt /etc/smartscale/ca.key /etc/smartscale/kubeconfig",
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
            "systemctl enable --now smartscale-coordinator.service",
        ],
    )
    assert not any("join-tokens" in call for call in calls)


def test_a_second_run_changes_no_key_and_no_token(tmp_path):
    calls = first_boot("Server", DEB, tmp_path, times=2)
    assert sum("get-secret-value" in call for call in calls) == 1



def test_a_package_that_is_not_the_one_that_was_meant_is_not_installed(tmp_path):
    calls = first_boot("WorkerTemplate", RPM | {"AgentPackageSha256": "a" * 64}, tmp_path, well=False)
    assert [call.split()[0] for call in calls] == ["curl"]
