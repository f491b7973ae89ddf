"""`fleet.py apply --resume`: which earlier run goes on, whether it may, and what need not be done again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import takewhile
from typing import Any

from fleet.child import CannotRun
from fleet.events import Request
from fleet.history import History
from fleet.outcome import BROKEN_OFF, DONE, ENDED_BY_HAND
from fleet.records import Record, Status
from fleet.run import Run
from fleet.seal import SEAL, sealed_as

__all__ = ["accepted", "done_in", "latest", "resumable"]


def latest(history: History, request: Request, now: Mapping[str, Any], but: int = 0) -> Run | None:
    """The last run of apply that a command with the options `now` may go on with, `but` the one that is asking.

    Where a later one had some of its nodes, or none is over the same choice of them, it is that one, or the last one:
    there is something to tell of it.
    """
    later = list[tuple[Run, set[str]]]()
    for run in _candidates(history, request.inventory):
        if run.id == but:
            continue
        names = history.names(run.id)
        if not _otherwise(run, request, now):
            return next((each for each, its in later if its & names), run)
        later.append((run, names))
    return later[0][0] if later else None


def resumable(history: History, inventory: str) -> Iterator[Run]:
    """Of each part of an inventory that somebody chose, the last run that may be gone on with."""
    seen = set[object]()
    for run in _candidates(history, inventory):
        if run.part not in seen:
            seen.add(run.part)
            yield run


def _candidates(history: History, inventory: str) -> Iterator[Run]:
    """The runs that may have changed something, the latest first."""
    runs = history.runs(inventory, "apply")
    return (each for each in runs if not each.changed_nothing and not _killed_while_reading(each))


def _killed_while_reading(run: Run) -> bool:
    """Whether it was to go on with an earlier one, and knows nothing: that one is to go on, still."""
    gone = run.outcome.startswith((BROKEN_OFF, ENDED_BY_HAND))
    return gone and bool(run.options.get("resume")) and set(run.totals) <= {Status.WAITING}


def accepted(run: Run | None, request: Request, now: Mapping[str, Any], say: Callable[[str], None]) -> Run:
    """This run, where a command with the options `now` may go on with it. Raises CannotRun.

    Whoever resumes wants the nodes of that run, and not all that it had left out. Fewer are fine.
    """
    nothing = "nothing to resume"
    if run is None:
        raise CannotRun(f"{nothing}: the history has no apply over {request.inventory}")
    if run.goes_on:
        raise CannotRun(f"{nothing}: run {run.id} on {run.host} goes on: {run.way_out}")
    if run.outcome == DONE:
        raise CannotRun(f"{nothing}: run {run.id}, the last apply over {_over(run, request)}, is done")
    if otherwise := _otherwise(run, request, now):
        raise CannotRun(otherwise)
    then = run.options
    for name in ("max_unavailable", "max_failures"):
        if then.get(name) and not now[name]:
            say(f"run {run.id} had --{name.replace('_', '-')} {then[name]}, and this one has the default")
    return run


def _otherwise(run: Run, request: Request, now: Mapping[str, Any]) -> str:
    """Why a command with the options `now` is another one than the run's, or ""."""
    then = run.options
    left_out = set(then.get("exclude", ())) - set(now["exclude"])
    if then.get("data", []) != now["data"] or left_out or set(then.get("limit", ())) != set(now["limit"]):
        return (
            f"run {run.id} was begun with {_told(then)}, and this command has {_told(now)}: give the same "
            "command with --resume, or another one without it"
        )
    if not sealed_as(request.data, str(then.get(SEAL, ""))):
        return f"run {run.id} was begun with other values of --data: give the same with --resume"
    return ""


def done_in(history: History, run: Run, inputs: str, say: Callable[[str], None]) -> dict[str, Record]:
    """What a run has done with, by name: nothing, where it had other inputs (the settings, the code).

    Nor what a later run, such as the plan of a timer, has found otherwise: it is read again.
    """
    if inputs != run.inputs:
        say(f"run {run.id} was made with another inventory or other code: every node is read again")
        return {}
    later = takewhile(lambda each: each.id > run.id, history.runs(run.inventory))
    read = (record for each in later if each.knows_its_nodes for record in history.records(each.id))
    unwell = {record.name for record in read if not record.is_well}
    done = {each.name: each for each in history.records(run.id) if each.is_well and each.name not in unwell}
    say(f"resuming run {run.id}: {len(done)} nodes are done with and are not read again")
    return done


def _over(run: Run, request: Request) -> str:
    return f"{request.inventory} {run.chosen}".rstrip()


def _told(options: Mapping[str, Any]) -> str:
    """Which nodes somebody chose, in the words of the command line."""
    words = [f"--{name} {each}" for name in ("limit", "exclude", "data") for each in options.get(name, ())]
    return " ".join(words) or "the whole inventory"
