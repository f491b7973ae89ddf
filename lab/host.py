"""What this machine is like around a lab, so that the demo and the tests can check that a lab leaves it as it was."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from lab import network, traces
from lab.paths import BUILD

# What changes by itself while nothing is done: counters, random numbers, and what the kernel tunes to its load.
_UNSTABLE = (
    "kernel/ns_last_pid",
    "kernel/perf_",
    "kernel/pty/nr",
    "kernel/random/",
    "kernel/sched_domain",
    "fs/aio-nr",
    "fs/dentry-state",
    "fs/file-nr",
    "fs/inode-",
    "fs/quota/",
)

Fingerprint = dict[str, str]
_LIVES = "a lab is alive"


def fingerprint() -> Fingerprint:
    """The machine's state as names and values, to be compared with `differences`."""
    return {**_sysctls(), **_overlay(), **_modules(), **_mounts(), **_network(), **_cgroups(), **_labs()}


def differences(before: Fingerprint, after: Fingerprint) -> list[str]:
    """What is not as it was and may be a lab's doing, a line each."""
    return [_line(*change) for change in _changes(before, after) if _may_be_a_labs(*change, after)]


def meanwhile(before: Fingerprint, after: Fingerprint) -> list[str]:
    """What else is not as it was, because somebody logged in, a service started a container, or the like."""
    return [_line(*change) for change in _changes(before, after) if not _may_be_a_labs(*change, after)]


Change = tuple[str, str | None, str | None]


def _changes(before: Fingerprint, after: Fingerprint) -> Iterator[Change]:
    for name in sorted((before.keys() | after.keys()) - {_LIVES}):
        if before.get(name) != after.get(name):
            yield name, before.get(name), after.get(name)


def _line(name: str, was: str | None, now: str | None) -> str:
    return f"{name}: {was or '(absent)'} -> {now or '(absent)'}"


def _may_be_a_labs(name: str, was: str | None, now: str | None, after: Fingerprint) -> bool:
    if was is not None and now is not None:
        return not name.startswith("cgroup ")  # a value that somebody has set, or a mount on what was there
    if now is None:
        return False  # a lab takes nothing away that is not its own
    match name.partition(" ")[0]:
        case "module":
            return name.removeprefix("module ") in traces.AUTOLOADED and _LIVES not in after
        case "mount":
            return any(mark in f"{name} {now}" for mark in (str(BUILD), *traces.STARTED))
        case "interface":
            return re.fullmatch(rf"interface ({network.BRIDGE}|port\d+)", name) is not None
        case kind:
            return kind in ("lab", "network")  # the network namespaces with a name, as nodes have one


def _read(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError):
        return None  # write-only, or gone meanwhile


def _sysctls() -> Fingerprint:
    top = Path("/proc/sys")
    found = {}
    for area in ("user", "kernel", "fs", "vm"):
        for file in (top / area).rglob("*"):
            name = str(file.relative_to(top))
            if file.is_file() and not name.startswith(_UNSTABLE) and (value := _read(file)) is not None:
                found[f"sysctl {name.replace('/', '.')}"] = value
    return found


def _overlay() -> Fingerprint:
    parameters = Path("/sys/module/overlay/parameters").glob("*")
    return {f"overlay {parameter.name}": _read(parameter) or "" for parameter in parameters}


def _modules() -> Fingerprint:
    """What is loaded, and whether a lab is alive, of another process, too: what is loaded for it, it unloads itself."""
    with traces.turn():
        loaded = {f"module {name}": "loaded" for name in traces.modules()}
        return loaded | ({_LIVES: "yes"} if traces.any_alive() else {})


def _mounts() -> Fingerprint:
    found: Fingerprint = {}
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        place, _, source = line.partition(" - ")
        name = f"mount {place.split()[4]}"
        # Several may be stacked on one place, so their order is part of the value.
        found[name] = f"{found.get(name, '')} {place.split()[5]} {source}".strip()
    return found


def _network() -> Fingerprint:
    interfaces = {f"interface {path.name}": "present" for path in Path("/sys/class/net").glob("*")}
    return interfaces | {f"network namespace {path.name}": "named" for path in Path("/run/netns").glob("*")}


def _cgroups() -> Fingerprint:
    """What every cgroup is handed down from the top: a lab must not switch a controller on for everybody."""
    found = {}
    for top in (Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/unified")):
        if (controllers := _read(top / "cgroup.subtree_control")) is not None:
            found[f"cgroup {top}"] = controllers
    return found


def _labs() -> Fingerprint:
    """What the labs of this process have left. Those of other processes come and go by their own clock."""
    return {f"lab {lab}": ", ".join(left) for lab in traces.STARTED if (left := traces.left_by(lab))}
