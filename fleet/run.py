"""A run, as the history knows it: over what it was, how it ended, and what it can tell of its nodes."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from fleet.outcome import BEFORE_A_WAVE, NOT_BEGUN
from fleet.seal import SEAL, sealed_as

__all__ = ["Run", "short"]


@dataclass(frozen=True, slots=True)
class Run:
    """One run. `outcome` is "" while it goes on, and BROKEN_OFF where its process ended without a word.

    `span` is from when to when, as exactly as is known, for runs are compared; `started` and `ended` are for people.
    """

    id: int
    kind: str
    inventory: str
    inputs: str
    commit: str
    user: str
    host: str
    options: Mapping[str, Any]
    started: str
    ended: str
    span: tuple[str, str]
    outcome: str
    exit_code: int | None
    totals: Mapping[str, int]
    has_read: bool

    @property
    def goes_on(self) -> bool:
        """Whether it has not ended, as far as can be seen from here."""
        return not self.outcome

    @property
    def way_out(self) -> str:
        """What can be done about one that goes on, in words. That a process is gone is seen on its own host alone."""
        return f"wait for it, or stop it{self.if_gone}"

    @property
    def if_gone(self) -> str:
        """What to do where it only seems to go on, because its host is no longer there."""
        gone = f"; if that host is no longer there: fleet.py history --end {self.id}"
        return gone if self.host != socket.gethostname() else ""

    @property
    def changed_nothing(self) -> bool:
        """Whether it ended before its first wave."""
        return self.outcome.startswith(BEFORE_A_WAVE)

    @property
    def part(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """What --limit and --exclude it had: runs with the same ones are over the same part of an inventory."""
        limit, exclude = (tuple(sorted({*self.options.get(name, ())})) for name in ("limit", "exclude"))
        return limit, exclude

    @property
    def choice(self) -> tuple[tuple[str, ...], ...]:
        """Its part, and of its --data the names: a plan with another setting says what would be, and not what is."""
        return *self.part, _settings(self.options.get("data", ()))

    @property
    def has_all_nodes(self) -> bool:
        """Whether it was over every node of the inventory."""
        return not any(self.part)

    @property
    def is_whole(self) -> bool:
        """Whether it was over the inventory as it is: every node, and no setting from the command line."""
        return not any(self.choice)

    @property
    def chosen(self) -> str:
        """Its choice in the words of the command line; "" where it was over the inventory as it is."""
        named = zip(("limit", "exclude", "data"), self.choice, strict=True)
        return " ".join(f"--{name} {each}" for name, values in named for each in values)

    def had(self, data: Mapping[str, object]) -> bool:
        """Whether it had these settings from the command line, as far as is known of their values."""
        _, _, settings = self.choice
        return settings == _settings(data) and (not settings or sealed_as(data, str(self.options.get(SEAL, ""))))

    @property
    def knows_its_nodes(self) -> bool:
        """Whether it has read them: one that did not begin, or is still reading, has at most their names."""
        return self.has_read and not self.outcome.startswith(NOT_BEGUN)

    def as_json(self) -> dict[str, Any]:
        """As JSON values."""
        told = {name: getattr(self, name) for name in self.__slots__ if name not in ("inputs", "has_read", "span")}
        return told | {"options": {name: value for name, value in self.options.items() if name != SEAL}}


def _settings(names: Iterable[str]) -> tuple[str, ...]:
    """How a node is reached (ssh_password, _sudo) changes nothing of what it is."""
    return tuple(sorted({each for each in names if not each.startswith(("ssh_", "_"))}))


def short(commit: str) -> str:
    """A commit for people, with the "+" of one whose files were changed."""
    return commit[:10] + commit[40:]
