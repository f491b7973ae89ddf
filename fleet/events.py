"""What goes between the fleet and the process in which pyinfra runs: one request, then events, a JSON line each."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from fleet.records import Record

__all__ = ["Ended", "Event", "HostEvent", "InventoryEvent", "Problem", "RecordEvent", "Request", "StepEvent", "parse"]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Request(_Frozen):
    """What pyinfra is to do: name the hosts, plan for them, or deploy to them.

    `hosts` are names; None means all that `limit` and `exclude` (groups, names or patterns) leave. `group_data` are
    the names in groups' data that the fleet wants to know. Where more than `at_most` hosts are chosen, it only names
    them. Changes may disturb the pods of those in `may_disturb`: they were moved away, or somebody has agreed. `until`
    is when its process ends if nobody lets it live on, by the machine's monotonic clock.
    """

    action: Literal["inventory", "plan", "apply"]
    inventory: str
    hosts: tuple[str, ...] | None = None
    limit: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    data: dict[str, str] = {}
    diff: bool = False
    may_disturb: tuple[str, ...] = ()
    group_data: tuple[str, ...] = ()
    at_most: int | None = None
    until: float | None = None


class HostEvent(_Frozen):
    """A host of the inventory, with the groups that it is in, its name in Kubernetes, and where its workers are."""

    name: str
    groups: tuple[str, ...]
    kubernetes_node: str = ""
    region: str = ""


class InventoryEvent(_Frozen):
    """The hosts that are worked on, how many each of their groups has in all, and what the groups' data says."""

    kind: Literal["inventory"] = Field(default="inventory")
    hosts: tuple[HostEvent, ...]
    sizes: dict[str, int]
    data: dict[str, dict[str, Any]] = {}


class StepEvent(_Frozen):
    """A host has come so far."""

    kind: Literal["step"] = Field(default="step")
    name: str
    step: str


class RecordEvent(_Frozen):
    """A host is done with."""

    kind: Literal["record"] = Field(default="record")
    record: Record


class Problem(_Frozen):
    """There is no run, and why."""

    kind: Literal["problem"] = Field(default="problem")
    message: str


class Ended(_Frozen):
    """All was told."""

    kind: Literal["ended"] = Field(default="ended")


Event = InventoryEvent | StepEvent | RecordEvent | Problem | Ended
_EVENTS: TypeAdapter[Event] = TypeAdapter(Annotated[Event, Field(discriminator="kind")])


def parse(line: str | bytes) -> Event:
    """The event in a line. Raises ValueError."""
    return _EVENTS.validate_json(line)
