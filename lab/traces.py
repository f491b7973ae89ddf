"""What a lab leaves on the machine while it runs, and how each trace is removed."""

from __future__ import annotations

import contextlib
import fcntl
import os
import subprocess
from contextlib import AbstractContextManager
from pathlib import Path

from lab import cache, cgroups
from lab.paths import LABS, NODES
from lab.processes import has_ended, tool

# The labs of this process, for whoever checks that they left nothing.
STARTED: list[str] = []

# Modules that the kernel loads by itself when a lab makes its bridge and its ports or a node mounts an overlay.
AUTOLOADED = ("overlay", "tun", "veth", "bridge", "stp", "llc")
# Those that links are made of: no link holds its module, and rmmod takes everybody's along.
_OF_LINKS = ("tun", "veth", "bridge")


def turn() -> AbstractContextManager[None]:
    """Who begins a lab, ends one or counts them does so alone: the modules are one machine's."""
    return cache.locked(LABS / ".lock")


def claim(lab: str) -> int:
    """Make the lab's directory. The lab lives as long as some process holds the lock that is returned."""
    with turn():
        sweep()
        if not any_alive():
            (LABS / ".modules").write_text("\n".join(sorted(modules())))
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


def any_alive() -> bool:
    """Whether any lab is alive, of whatever process. Asked in one's `turn`."""
    return any(is_alive(path.name) for path in LABS.glob("*") if path.is_dir())


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


def unload() -> None:
    """Unload what the kernel loaded for labs, where none is alive any more: the last one does it, in its `turn`."""
    before = LABS / ".modules"
    if before.exists() and not any_alive():
        unload_new(set(before.read_text().split()))
        before.unlink()


def unload_new(before: set[str]) -> None:
    """Unload what is new of these modules. One that somebody else has begun to use stays."""
    for module in AUTOLOADED:
        if module in modules() - before and not (module in _OF_LINKS and _has_links(module)):
            subprocess.run([tool("rmmod"), module], stderr=subprocess.DEVNULL, check=False)


def _has_links(kind: str) -> bool:
    """Whether any network namespace of this machine has a link of this kind."""
    found: dict[str, Path] = {}
    for namespace in [*Path("/proc").glob("[0-9]*/ns/net"), *Path("/run/netns").glob("*")]:
        with contextlib.suppress(OSError):  # the process ended while we looked
            found.setdefault(str(namespace.stat().st_ino), namespace)
    for namespace in found.values():
        look = [tool("nsenter"), f"--net={namespace}", "--", tool("ip"), "-o", "link", "show", "type", kind]
        if subprocess.run(look, capture_output=True, check=False).stdout:
            return True
    return False
