"""What every test may use."""

from __future__ import annotations

import os
import re
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest
from hypothesis import HealthCheck, settings
from xdist.scheduler import LoadScopeScheduling

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


# What takes longest is begun first, so that nobody is left with it at the end.
LONGEST = ("vm", "node", "image", "fleet", "deploy")


def _room(nodeid: str) -> str:
    parts = Path(nodeid.partition("::")[0]).parts
    return parts[1] if len(parts) > 2 else ""


# Rooms whose tests wait for nothing but programs of this machine, and how long one may take there, in seconds.
SHORT = {"unit": 900, "deploy": 900, "artifacts": 900}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the rooms into that order; within one nothing changes. And bound the tests of the short ones."""
    rank = {room: number for number, room in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(_room(item.nodeid), len(rank)))
    for item in items:
        if (seconds := SHORT.get(_room(item.nodeid))) and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(seconds))


class Together(LoadScopeScheduling):  # type: ignore[misc]
    """Which tests stay together where several workers share them: a file's, and all that share machines or a tree.

    By a scheduler and not by marks, for xdist 3.8 writes those into what pytest 9.2 no longer reads.
    """

    def _split_scope(self, nodeid: str) -> str:
        room = _room(nodeid)
        return room if room in ("vm", "image") else nodeid.partition("::")[0]


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    """Under `--dist loadscope`, or any other."""
    config.option.loadscopereorder = False  # not by their number: a module of two tests may take minutes
    return Together(config, log)


@pytest.fixture
def signals_are_heard() -> Iterator[None]:
    """What a test starts hears HUP, INT and TERM, also where this run ignores some of them, as under nohup.

    A shell can trap nothing that it inherits as ignored. What has a handler is reset in every program that is started,
    and this process goes on ignoring it.
    """
    ignored = [
        each for each in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM) if signal.getsignal(each) == signal.SIG_IGN
    ]
    for each in ignored:
        signal.signal(each, lambda *_: None)
    yield
    for each in ignored:
        signal.signal(each, signal.SIG_IGN)


INSTALLS = Path(__file__).resolve().parent.parent / "lab/install-packages.sh"


def brought() -> set[str]:
    """The programs that lab/install-packages.sh brings, for the tests and for what they need of the lab."""
    return set(re.findall(r"(?m)^ +need (\S+) \S+$", INSTALLS.read_text()))


# Of packages that no Debian is without (Essential).
EVERYWHERE = {
    *("awk", "cat", "chmod", "date", "dpkg-query", "grep", "id", "ls", "mkdir", "mv", "printf", "rm", "sed", "sh"),
    *("nsenter", "sha256sum", "sleep", "timeout", "tr", "unshare"),
}


def program(name: str) -> str:
    """The path of a program that a test needs. A fresh machine has to get it: in CI its lack is a failure."""
    assert name in EVERYWHERE | brought(), f"lab/install-packages.sh does not bring {name}"
    return shutil.which(name) or unavailable(f"{name} is not installed: sh lab/install-packages.sh tests")


def in_ci() -> bool:
    """Whether this is a run that others wait for, on a machine that nobody knows."""
    return os.environ.get("CI") == "true"


def unavailable(reason: str) -> NoReturn:
    """Skip a test that this machine can't run. In CI it fails instead: a check that silently stops is none."""
    if in_ci():
        pytest.fail(f"cannot run here, and CI may not skip it: {reason}", pytrace=False)
    pytest.skip(reason)
