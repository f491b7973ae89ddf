"""Settings of a node's own containerd.service: which of them our unit, in its place, would take away."""

from __future__ import annotations

import math
from collections.abc import Iterator

from userns.findings import Finding, warning
from userns.node import FileState, Node
from userns.paths import UNIT

__all__ = ["lost"]

# Where the lines go that stay: drop-ins are nobody's but the operator's.
_KEPT = f"{UNIT}.d/10-kept.conf"
# Open files, soft and hard: what ours gives before systemd 240, and systemd's own default since (system.conf).
_OPEN_FILES = (1024, 524288)


def lost(node: Node, ours: str | None) -> Iterator[Finding]:
    """What goes with a unit that is not a deploy's. `ours` is the unit that is to be written, None where none is.

    One in /usr/lib stays, but is hidden by ours in /etc: no diff would show it.
    """
    unit = node.units.get("containerd")
    if ours is None or unit is None or not unit.fragment:
        return
    if unit.fragment == UNIT and node.files.get(UNIT, FileState(kind="absent")).recorded:
        return
    gone, effects, lines, copied = list[str](), list[str](), list[str](), ""
    if _is_higher(unit.limit_nofile):
        lines.append(f"LimitNOFILE={unit.limit_nofile}")
        gone.append(lines[-1])
        effects.append(
            "containers that start later get 1024 open files, unless they raise that themselves: a database or a proxy "
            'may stop with "too many open files" (upstream took the limit out on purpose)'
        )
    if unit.environment_files:
        lines += (each := [f"EnvironmentFile={path}" for path in unit.environment_files])
        gone += each
    if unit.environment:
        names = ", ".join(unit.environment)
        gone.append(f"Environment= with {names}")
        copied = f" and copy the Environment= lines of {names} from {unit.fragment}"
    if unit.environment or unit.environment_files:
        effects.append("where they name a proxy, images cannot be pulled any more")
    if not gone:
        return
    below = f"the lines below into {_KEPT}" if lines else f"[Service] into {_KEPT}"
    yield warning(
        "unit-setting-lost",
        f"{unit.fragment} is replaced by a containerd.service that does not have {'; '.join(gone)}: "
        f"{'; '.join(effects)}. Drop-ins stay, and what one sets is not told here. To keep it, write {below}{copied}, "
        "before the deploy",
        "containerd RELEASES.md, 2.0; moby/moby#51485; systemd.exec(5)",
        lines=("[Service]", *lines) if lines else (),
    )


def _is_higher(limit: str) -> bool:
    """Whether one of its numbers is more than what ours gives. systemd ignores what is none."""
    soft, _, hard = limit.partition(":")
    return any(_number(each) > ours for each, ours in zip((soft, hard or soft), _OPEN_FILES, strict=True))


def _number(text: str) -> float:
    if text == "infinity":
        return math.inf
    return int(text) if text.isdecimal() and len(text) < 20 else 0
