"""Where the programs (`make programs`) and installed tools (tests/rig/install) are, and a coordinator that answers."""

import json
import os
import re
import subprocess
import time
from pathlib import Path

import pytest


def cache() -> Path:
    above = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("SMARTSCALE_CACHE") or Path(above) / "smartscale")


@pytest.fixture(scope="session")
def rig() -> Path:
    return cache() / "rig"


@pytest.fixture(scope="session")
def programs() -> Path:
    folder = Path(os.environ.get("CARGO_TARGET_DIR") or cache() / "target") / "debug"
    for name in ["smartscale", "smartscale-agent", "smartscale-coordinator"]:
        assert (folder / name).exists(), f"{name} is not built in {folder}: run `make programs`"
    return folder


@pytest.fixture(scope="session")
def cluster(programs, tmp_path_factory) -> dict:
    """The demo after its story: a coordinator that people's commands reach. Its credentials, and names to ask for."""
    folder = tmp_path_factory.mktemp("demo")
    with (folder / "said").open("w") as said:
        demo = subprocess.Popen(
            [programs / "smartscale", "demo", "--keep", "--speed", "96"], stdout=said, stderr=subprocess.STDOUT, cwd=folder
        )
    try:
        deadline = time.monotonic() + 300
        told = re.compile(r"--credentials (\S+) --endpoint (\S+) status")
        while not (found := told.search((folder / "said").read_text())):
            assert demo.poll() is None and time.monotonic() < deadline, (folder / "said").read_text()
            time.sleep(0.2)
        environment = {"SMARTSCALE_CREDENTIALS": found[1], "SMARTSCALE_ENDPOINT": found[2]}

        def ask(*words):
            answer = subprocess.run(
                [programs / "smartscale", *words, "-o", "json"],
                env=environment,
                capture_output=True,
                text=True,
                timeout=60,
                check=True,
            )
            return json.loads(answer.stdout)

        ours = [node["name"] for node in ask("nodes")["nodes"] if node.get("pool")]
        yield {
            "credentials": found[1],
            "endpoint": found[2],
            "NODE": ours[0],
            "POD": "shop/api-01",
            "OPERATION": ask("operations")["operations"][0]["id"],
        }
    finally:
        demo.terminate()
        demo.wait(timeout=30)
