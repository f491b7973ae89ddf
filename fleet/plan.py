"""`fleet.py plan`: read every node, change none, say what would change and why."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from pydantic_core import to_json

from fleet import child, text
from fleet.child import Events, in_words
from fleet.drained import remembered, untold
from fleet.events import HostEvent, InventoryEvent, RecordEvent, Request, StepEvent
from fleet.history import History
from fleet.limits import look_at_limits
from fleet.outcome import DONE, EXIT_INTERRUPTED, INTERRUPTED_BEFORE, NOT_BEGUN
from fleet.progress import Progress
from fleet.records import Record, Status, exit_code, totals
from fleet.terminal import say
from fleet.waves import MAX_UNAVAILABLE

__all__ = ["as_json", "gather", "nodes_as_json", "options", "run"]


def gather(
    request: Request,
    progress: Progress,
    verbose: bool = False,
    begun: Callable[[InventoryEvent], object] = lambda _: None,
    events_of: Events = child.events,
) -> tuple[InventoryEvent, list[Record]]:
    """What the request has to say of every host, in the inventory's order. One that was not told of is unknown.

    `begun` is called before anything is read; `events_of` runs the request. Raises what they raise, child.CannotRun or
    child.BrokenOff.
    """
    records: dict[str, Record] = {}
    with events_of(request, verbose) as events:
        inventory = child.inventory_of(events)
        begun(inventory)
        try:
            progress.begin(len(inventory.hosts))
            for event in events:
                match event:
                    case RecordEvent(record=record):
                        records[record.name] = record
                        progress.advance()
                    case StepEvent(name=name, step=step):
                        progress.say(f"{name}: {step}")
        finally:  # the bar hides the terminal's cursor
            progress.end()
    return inventory, [_of_host(each, records.get(each.name)) for each in inventory.hosts]


def _of_host(host: HostEvent, record: Record | None) -> Record:
    """Its record, which has no groups where it comes from somebody who gave the node up."""
    if record is None:
        return Record(name=host.name, groups=host.groups, status=Status.UNKNOWN, reasons=("nothing was told of it",))
    return record if record.groups else record.model_copy(update={"groups": host.groups})


def run(request: Request, history: History, *, as_json_: bool, verbose: bool, events_of: Events = child.events) -> int:
    """Plan for all hosts and print it. The exit code: 0 nothing to do, 2 changes, 1 a node that needs attention."""
    number = history.begin("plan", request.inventory, options(request), request.data)
    asking = request.model_copy(update={"group_data": (MAX_UNAVAILABLE,)})
    try:
        _, records = gather(asking, Progress("reading"), verbose, look_at_limits, events_of)
    except KeyboardInterrupt:
        history.finish(number, INTERRUPTED_BEFORE, EXIT_INTERRUPTED)
        raise
    except Exception as error:
        history.finish(number, f"{NOT_BEGUN}: {in_words(error)}", 1)
        raise
    drained = history.drained(request.inventory)  # now: a run may have given some back while we were reading
    records = [*remembered(history, records, drained, say)]
    for line in untold(history, request.inventory, number, drained, {each.name for each in records}):
        say(line)
    try:
        history.put(number, records)
        history.finish(number, DONE, exit_code(records))
    finally:  # a full disk must not cost what was read
        if as_json_:
            # Not by json: with an indentation it is pure Python, and takes longer than all else that is done here.
            print(to_json(as_json(request.inventory, records), indent=1).decode())
        else:
            print(text.plan(records, diff=request.diff, verbose=verbose), end="")
    return exit_code(records)


def options(request: Request) -> dict[str, Any]:
    """What is written down of how somebody chose: of data the names alone, because a value may be a password."""
    return {"limit": request.limit, "exclude": request.exclude, "data": sorted(request.data)}


def as_json(inventory: str, records: Sequence[Record]) -> dict[str, Any]:
    """The plan as JSON values."""
    return {
        "inventory": inventory,
        "exit_code": exit_code(records),
        "totals": totals(records),
        "nodes": nodes_as_json(records),
    }


def nodes_as_json(records: Iterable[Record]) -> Mapping[str, Any]:
    """Each node's record by its name."""
    return {each.name: each.model_dump(mode="json", exclude={"name"}) for each in records}
