"""Where the installed tools are (tests/rig/install)."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def rig() -> Path:
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(os.environ.get("SMARTSCALE_CACHE") or Path(cache) / "smartscale") / "rig"
    missing = [name for name in ["infrastructure/node_modules", "venv"] if not (folder / name).exists()]
    assert not missing, f"{missing} are not installed below {folder}: run `make tools`"
    return folder
