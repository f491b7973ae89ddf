"""Which nodes are changed next: a canary, then a share of each group at a time, until too many have failed. Pure."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fleet.records import WELL, Status
from fleet.text import counted

__all__ = ["MAX_UNAVAILABLE", "LimitError", "Rollout", "Stop", "Wave", "limit", "limits"]

# What a group's data may say to a rollout.
MAX_UNAVAILABLE = "max_unavailable"
DEFAULT_MAX_UNAVAILABLE = "10%"


class LimitError(ValueError):
    """A `max_unavailable` that is none, in words."""


def limit(value: object, size: int) -> int:
    """How many of a group's `size` nodes may be away at a time: a count, or a percentage (rounded down, at least 1).

    Raises LimitError.
    """
    count = re.fullmatch(r"([0-9]+)(%?)", str(value))
    if isinstance(value, bool) or not count or (number := int(count[1])) < 1 or (count[2] and number > 100):
        raise LimitError(f'{value!r} is no number of nodes: expected a count such as 3, or a percentage such as "10%"')
    return max(1, size * number // 100) if count[2] else number


def limits(sizes: Mapping[str, int], data: Mapping[str, Mapping[str, Any]], every: object = None) -> dict[str, int]:
    """The limit of each group, by its size: `every` where that is given, else what its data says, else a tenth.

    Raises LimitError, which names the group.
    """
    found = {}
    for group, size in sizes.items():
        try:
            found[group] = limit(every or data.get(group, {}).get(MAX_UNAVAILABLE, DEFAULT_MAX_UNAVAILABLE), size)
        except LimitError as error:
            raise LimitError(f"{MAX_UNAVAILABLE} of {group}: {error}") from error
    return found


@dataclass(frozen=True, slots=True)
class Wave:
    """The nodes that are changed together."""

    number: int
    nodes: tuple[str, ...]
    canary: bool = False

    def __str__(self) -> str:
        return f"wave {self.number}" + (" (canary)" if self.canary else "")


@dataclass(frozen=True, slots=True)
class Stop:
    """No wave follows. `reason` is empty where every node had its turn."""

    reason: str = ""


@dataclass
class Rollout:
    """A rollout as far as it has come.

    `waiting` are the nodes to change, in order. `groups` are the groups of each node, `limits` how many of a group may
    be away at a time. `unavailable` are the nodes that are: those that could not be reached, those that failed,
    and those that were drained and not given back, which may wait for their change none the less.
    `canary` goes first and alone; None: it has gone.
    """

    waiting: list[str]
    groups: Mapping[str, Sequence[str]]
    limits: Mapping[str, int]
    unavailable: set[str] = field(default_factory=set)
    max_failures: int = 0
    canary: str | None = None
    failed: list[str] = field(default_factory=list)
    waves: list[Wave] = field(default_factory=list)

    def next(self) -> Wave | Stop:
        """The next wave, or why there is none. Its nodes wait no longer."""
        if self.failed and len(self.waves) == 1 and self.waves[0].canary:
            return Stop(f"the canary failed: {self.failed[0]}")
        if len(self.failed) > self.max_failures:
            count, which = counted(len(self.failed)), ", ".join(self.failed)
            return Stop(f"{count} failed ({which}); --max-failures allows {self.max_failures}")
        if not self.waiting:
            return Stop()
        canary = None if self.waves else self.canary
        nodes = self._share(self.waiting if canary is None else [canary])
        if not nodes:
            return Stop(self._why_nobody())
        wave = Wave(len(self.waves) + 1, tuple(nodes), canary is not None)
        self.waves.append(wave)
        gone = set(nodes)
        self.waiting = [each for each in self.waiting if each not in gone]
        return wave

    def settle(self, results: Mapping[str, Status]) -> None:
        """What became of a wave's nodes."""
        for name, status in results.items():
            if status in WELL:
                self.unavailable.discard(name)
            else:
                self.failed.append(name)
                self.unavailable.add(name)

    def _share(self, candidates: Sequence[str]) -> list[str]:
        """As many as their groups can do without; a node of several groups counts in each."""
        away, here = self._away(), Counter[str]()
        chosen = []
        for name in candidates:
            groups, gone = self.groups[name], name in self.unavailable
            # One that is away already costs nothing more; a wave has no more of them than of others.
            if all((here if gone else away)[group] < self.limits[group] for group in groups):
                chosen.append(name)
                here.update(groups)
                away.update(() if gone else groups)
        return chosen

    def _away(self) -> Counter[str]:
        return Counter(group for name in self.unavailable for group in self.groups.get(name, ()))

    def _why_nobody(self) -> str:
        away = self._away()
        groups = dict.fromkeys(group for name in self.waiting for group in self.groups[name])
        told = "; ".join(
            f"{each} has {away[each]} unavailable ({', '.join(self._members(each))}) and may have {self.limits[each]}"
            for each in groups
            if away[each] >= self.limits[each]
        )
        return f"no other node may go: {told}. Repair or --exclude them, or raise max_unavailable"

    def _members(self, group: str) -> list[str]:
        return sorted(name for name in self.unavailable if group in self.groups.get(name, ()))
