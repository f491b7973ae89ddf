"""What a lab leaves on the machine while it runs, and how each trace is removed."""

from __future__ import annotations

import contextlib
import fcntl
import os
import subprocess
from pathlib import Path

from lab import cache, cgroups
from lab.paths import LABS, NODES
from lab.processes import has_ended, tool

# The labs of this process, for whoever checks that they left nothing.
STARTED: list[str] = []

# Modules that the kernel loads by itself when a lab makes its bridge or a node mounts an overlay.
_AUTOLOADED = ("overlay", "veth", "bridge", "stp", "llc")


def claim(lab: str) -> int:
    """Make the lab's directory. The lab lives as long as some process holds the lock that is returned."""
    with cache.locked(LABS / ".lock"):
        sweep()
        (LABS / lab).mkdir()
        lock = os.open(LABS / lab / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX)
    STARTED.append(lab)
    return lock


def is_alive(lab: str) -> bool:
    """Whether some process still holds the lab's lock."""
    try:
        with (LABS / lab / "lock").open("r+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        pass
    return False


def sweep() -> None:
    """Remove what labs left that could not tidy up, because somebody killed their keeper too."""
    for directory in [path for path in LABS.glob("*") if path.is_dir()]:
        if not is_alive(directory.name):
            remove(directory.name)


def remove(lab: str) -> None:
    """Remove every trace of a lab, its processes first."""
    cgroups.remove(cgroups.of_lab(lab))
    for tree in NODES.glob(f"*-{lab}"):
        cache.remove_tree(tree)
    cache.remove_tree(LABS / lab)


def left_by(lab: str) -> list[str]:
    """What there is of a lab on this machine: processes, its cgroup, directories, mounts. Nothing, once it ended.

    Its namespaces are not looked for: without a process and without a mount of them, the kernel has dropped them.
    """
    found = [f"process {pid}: {command}" for pid, command in _processes(lab)]
    found += [str(path) for path in (cgroups.of_lab(lab), LABS / lab) if path.exists()]
    found += [str(path) for path in NODES.glob(f"*-{lab}")]
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    return found + [f"mount {line.split()[4]}" for line in mounts if lab in line]


def _processes(lab: str) -> list[tuple[int, str]]:
    """The processes that are in the lab's cgroup or have its id in their command line."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
            groups = (process / "cgroup").read_text()
        except OSError:
            continue  # it ended while we looked
        is_of_it = lab in command or cgroups.of_lab(lab).name in groups
        if is_of_it and not has_ended(int(process.name)):
            found.append((int(process.name), command))
    return found


def modules() -> set[str]:
    """The kernel modules that are loaded."""
    with contextlib.suppress(FileNotFoundError):
        return {line.split()[0] for line in Path("/proc/modules").read_text().splitlines()}
    return set()


def unload_new(before: set[str]) -> None:
    """Unload what the kernel loaded for the lab. A module that somebody else has begun to use refuses, and stays."""
    for module in _AUTOLOADED:
        if module in modules() - before:
            subprocess.run([tool("rmmod"), module], stderr=subprocess.DEVNULL, check=False)
