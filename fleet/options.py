"""How somebody wants a rollout."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["WAYS", "Options"]

# What an operator can say where a change would disturb pods.
WAYS = "--drain to move them away first, --before and --after for commands of your own, or --no-drain"


@dataclass(frozen=True, slots=True)
class Options:
    """How to roll out. `max_unavailable` overrides the groups' data; `canary` is a host or a group.

    `drain` is None where the operator has not decided: then nothing that disturbs pods is done.
    """

    yes: bool = False
    json: bool = False
    verbose: bool = False
    resume: bool = False
    max_unavailable: str | None = None
    max_failures: int = 0
    canary: str | None = None
    drain: bool | None = None
