"""The lab's own cgroup, in the version 2 hierarchy: on a systemd host the only one, on others beside version 1."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

from lab.errors import LabError


def root() -> Path:
    """The top of the version 2 hierarchy, where this machine (or this mount namespace) has it."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        place, _, kind = line.partition(" - ")
        if kind.split()[0] == "cgroup2":
            return Path(place.split()[4])
    raise LabError("this machine has no cgroup2 file system mounted, which systemd in a node needs")


def of_lab(lab: str) -> Path:
    """The cgroup of a lab."""
    return root() / f"userns-node-lab-{lab}"


def create(group: Path) -> None:
    """Make a cgroup that hands every controller it gets down to its children.

    What the machine's root does not hand down is left alone: switching a controller on there concerns everybody.
    """
    group.mkdir()
    for controller in (group / "cgroup.controllers").read_text().split():
        (group / "cgroup.subtree_control").write_text(f"+{controller}")


def processes(group: Path) -> list[int]:
    """The processes in a cgroup and below, the oldest of each first."""
    found: list[int] = []
    # os.walk passes over a group that vanishes while it looks; pathlib's rglob raises.
    for directory in sorted(each[0] for each in os.walk(group)):
        with contextlib.suppress(OSError):
            found += map(int, Path(directory, "cgroup.procs").read_text().split())
    return found


def remove(group: Path) -> None:
    """Kill what runs in a cgroup and remove it. The kernel lets go of it a moment after the last process."""
    end = time.monotonic() + 120
    while group.exists() and time.monotonic() < end:
        with contextlib.suppress(OSError):
            (group / "cgroup.kill").write_text("1")
        for directory, _, _ in os.walk(group, topdown=False):
            with contextlib.suppress(OSError):
                os.rmdir(directory)
        time.sleep(0.02)
