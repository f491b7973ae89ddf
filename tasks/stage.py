"""A stage: the directory on one node where one run lays what it will swap in."""

from __future__ import annotations

from dataclasses import dataclass, field
from secrets import token_hex

from userns.paths import STATE


@dataclass(slots=True)
class Stage:
    """Where this run's set lies on the node, and the lines of `actions` that `activate.sh` reads.

    The name is random, so that two controllers at one node never write into the same directory; the lock and
    the `expect` line decide which of them goes first, and that the other plans again.
    """

    token: str = field(default_factory=lambda: token_hex(8))
    actions: list[str] = field(default_factory=list)

    @property
    def path(self) -> str:
        """The stage's directory on the node."""
        return f"{STATE}/staged/{self.token}"

    def add(self, kind: str, *fields: str) -> None:
        """Add one action. An empty field is written "-", because a shell's `read` folds two TABs into one.

        Raises ValueError for a field that would break the line.
        """
        for each in fields:
            if any(ord(char) < 32 for char in each):
                raise ValueError(f"{each!r} can't stand in an action: it has a control character")
        self.actions.append("\t".join((kind, *(each or "-" for each in fields))))

    @property
    def text(self) -> str:
        """The `actions` file."""
        return "".join(f"{line}\n" for line in self.actions)
