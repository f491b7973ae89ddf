"""Which node goes first, and alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from fleet.child import CannotRun
from fleet.records import Record

__all__ = ["canary"]


def canary(
    wanted: str | None, waiting: Sequence[str], records: Iterable[Record], say: Callable[[str], None]
) -> str | None:
    """One of the `waiting`: the first one, or whom `wanted` names, a node or a group; None where that one is well.

    Raises CannotRun.
    """
    if wanted is None:
        return waiting[0]
    named = [each for each in records if wanted == each.name or wanted in each.groups]
    for each in named:
        if each.name in waiting:
            return each.name
    if any(each.is_well for each in named):
        say(f"the canary {wanted} is ready already: the first wave is one of many")
        return None
    raise CannotRun(f"--canary {wanted}: no node that would change has this name or is in a group of this name")
