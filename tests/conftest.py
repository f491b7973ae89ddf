"""What every test may use."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import NoReturn

import pytest
from hypothesis import HealthCheck, settings

# So that `pytest` finds the packages as `python -m pytest` does.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

# A node takes long to draw on a slow machine, and no property here is about time. In CI hypothesis itself chooses a
# profile that repeats: this one adds to it.
settings.register_profile(
    "patient",
    settings(),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
settings.load_profile("patient")

pytest_plugins = ["tests.labs"]


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Which tests stay together where several workers share them: a file's, and all that share machines or a tree."""
    here = Path(__file__).parent
    for item in items:
        room = item.path.relative_to(here).parts[0]
        item.add_marker(pytest.mark.xdist_group(room if room in ("vm", "image") else str(item.path.relative_to(here))))


def unavailable(reason: str) -> NoReturn:
    """Skip a test that this machine can't run. In CI it fails instead: a check that silently stops is none."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"cannot run here, and CI may not skip it: {reason}", pytrace=False)
    pytest.skip(reason)
