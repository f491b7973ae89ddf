"""What a rollout is to go by, looked at as soon as its nodes are named: a slip is told before any of them is read."""

from __future__ import annotations

from fleet.child import CannotRun
from fleet.events import InventoryEvent
from fleet.waves import LimitError, limits

__all__ = ["look_at_limits"]


def look_at_limits(
    inventory: InventoryEvent, max_unavailable: str | None = None, canary: str | None = None
) -> dict[str, int]:
    """How many nodes of each group may be unavailable at a time. Raises CannotRun for a slip there or in the canary."""
    try:
        found = limits(inventory.sizes, inventory.data, max_unavailable)
    except LimitError as error:
        raise CannotRun(str(error)) from error
    if canary is not None and not any(canary == each.name or canary in each.groups for each in inventory.hosts):
        raise CannotRun(f"--canary {canary}: no node of this run has this name or is in a group of this name")
    return found
