"""Where the installed tools are (tests/rig/install), and the programs (`make programs`)."""

import os
from pathlib import Path

import pytest


def cache() -> Path:
    above = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("SMARTSCALE_CACHE") or Path(above) / "smartscale")


@pytest.fixture(scope="session")
def programs() -> Path:
    folder = Path(os.environ.get("CARGO_TARGET_DIR") or cache() / "target") / "debug"
    for name in ["smartscale-agent", "smartscale-coordinator"]:
        assert (folder / name).exists(), f"{name} is not built in {folder}: run `make programs`"
    return folder


@pytest.fixture(scope="session")
def rig() -> Path:
    folder = cache() / "rig"
    missing = [name for name in ["infrastructure/node_modules", "venv"] if not (folder / name).exists()]
    assert not missing, f"{missing} are not installed below {folder}: run `make tools`"
    return folder
