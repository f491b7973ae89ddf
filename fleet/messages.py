"""What goes through a Dask scheduler: an order for each attempt at a shard, what comes back, and who may go on.

All of it, and it is text: no setting's value, no key, no password is in any of it. A worker has the same checkout and
the same inventory, and SSH keys of its own.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, TypeAdapter

from fleet.checkout import Checkout
from fleet.events import Event

__all__ = ["Grants", "Order", "Seat", "Word", "grants"]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Order(_Frozen):
    """What a worker is to do, once: it is for the process with this `token`, which must have this checkout.

    `line` names the queue and the variable through which the attempt and its controller talk. `lease` is in seconds.
    """

    attempt: str
    token: str
    line: str
    lease: float
    checkout: Checkout
    action: Literal["plan", "apply"]
    inventory: str
    names: tuple[str, ...]
    diff: bool = False
    may_disturb: tuple[str, ...] = ()


class Seat(_Frozen):
    """Who a worker is: a token that no other process ever has, and what it would work with."""

    token: str
    checkout: Checkout


class Word(_Frozen):
    """What an attempt says: that it asks to go on for the `beat`th time (from 1), and what happened since.

    `ended` is why it ended, "" where all that was asked for was told, None where it goes on.
    """

    attempt: str
    beat: int
    events: tuple[Event, ...] = ()
    ended: str | None = None


# The last beat of each attempt that was granted; WITHDRAWN where it has to end.
Grants = dict[str, int]
WITHDRAWN = -1
_GRANTS: TypeAdapter[Grants] = TypeAdapter(Grants)


def grants(text: str) -> Grants:
    """Read them. Raises ValueError."""
    return _GRANTS.validate_json(text)
