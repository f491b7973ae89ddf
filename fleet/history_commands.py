"""`fleet.py history`, `show`, `drift`, `report`: what was done, what became of it, what is otherwise since."""

from __future__ import annotations

import json
import os
import stat
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from datetime import date, datetime, timedelta
from pathlib import Path

from tabulate import tabulate

from fleet import drift, page, prometheus, text
from fleet.child import CannotRun
from fleet.history import History, NoSuchRun, absolute
from fleet.last_word import last_words, rollouts_beside
from fleet.plan import nodes_as_json
from fleet.records import Record, Status
from fleet.report import About, as_json, make
from fleet.report_run import before, reported
from fleet.resume import resumable
from fleet.run import Run, short
from fleet.terminal import say

__all__ = ["differences", "end", "history", "prune", "report", "show"]

# How many runs over the same nodes are kept, however old they are: a run, and the one that it is compared with.
KEPT = 2


def history(past: History, inventory: str | None, count: int, json_: bool) -> int:
    """List the runs, the latest first."""
    runs = [*past.runs(inventory, count=count)]
    if json_:
        print(json.dumps([each.as_json() for each in runs], indent=1, ensure_ascii=False))
        return 0
    rows = [
        [
            *(each.id, each.started, each.kind, each.inventory, each.chosen or "all", each.user),
            *(short(each.commit) or "-", _counts(each), _outcome(each)),
        ]
        for each in runs
    ]
    headers = ["run", "started", "what", "inventory", "of it", "by", "commit", "nodes", "outcome"]
    print(tabulate(rows, headers=headers, tablefmt="plain", disable_numparse=True) if rows else "no run yet")
    return 0


def end(past: History, number: int) -> int:
    """Mark a run as ended that went away without a word."""
    print(f"run {number}: {past.end(number).outcome}")
    return 0


def prune(past: History, inventory: str | None, days: int, now: datetime) -> int:
    """Forget the runs that ended more than `days` ago, but for those that a later run asks for.

    Those are the last two over each part of an inventory that came to something (what drifted), what to resume, and
    each that knows of a node that is drained still, or was drained by one that is kept.
    """
    runs, old = [*past.runs(inventory)], (now - timedelta(days=days)).isoformat(timespec="seconds")
    inventories = {run.inventory for run in runs}
    asked_for = {run for each in inventories for run in past.drained(each).values()}
    asked_for |= {run.id for each in inventories for run in resumable(past, each)}
    counts: Counter[tuple[object, ...]] = Counter()
    for run in runs:
        alike = run.inventory, run.kind, run.choice
        counts[alike] += (counted := _came_to_something(run))
        if run.goes_on or (counted and counts[alike] <= KEPT) or (run.ended or run.started) > old:
            asked_for.add(run.id)
    for each in inventories:
        while more := past.last_words(each, asked_for) - asked_for:  # which may have drained others
            asked_for |= more
    forgotten = [run.id for run in runs if run.id not in asked_for]
    past.forget(forgotten)
    print(f"{len(forgotten)} runs forgotten, {len(runs) - len(forgotten)} kept")
    return 0


def _came_to_something(run: Run) -> bool:
    """Whether a later run may ask for it: a typo that is made twice must not cost the run before it."""
    return run.knows_its_nodes and not (run.kind == "apply" and run.changed_nothing)


def show(past: History, number: int, names: Sequence[str], json_: bool, verbose: bool) -> int:
    """Tell one run, or some nodes of it, in full. Raises NoSuchRun."""
    run, records = past.run(number), past.records(number)
    if names:
        records = [each for each in records if each.name in names]
        if missing := set(names) - {each.name for each in records}:
            raise NoSuchRun(f"run {number} has no node {', '.join(sorted(missing))}")
    waves = past.waves(number)
    if json_:
        nodes = {name: {**node, "wave": waves.get(name)} for name, node in nodes_as_json(records).items()}
        print(json.dumps({**run.as_json(), "nodes": nodes}, indent=1, ensure_ascii=False))
        return 0
    print(f"run {run.id}: {run.kind} {_over(run)}, by {run.user} on {run.host}, commit {short(run.commit) or '-'}")
    print(f"from {run.started} to {run.ended or '-'}: {_outcome(run)}\n")
    print(text.plan(records, verbose=verbose), end="")
    for wave in sorted(set(waves.values())):
        print(f"wave {wave}: {text.names([name for name, of in waves.items() if of == wave])}")
    if names:
        for record in records:
            print("\n".join([f"\n{record.name}: {record.summary}", *map(_indented, _about(record))]))
    return 0


def differences(past: History, numbers: Sequence[int], json_: bool) -> int:
    """Tell what is otherwise between two runs; of one run, since the run before it over the same nodes.

    Raises NoSuchRun.
    """
    new = past.run(numbers[-1])
    old = past.run(numbers[0]) if len(numbers) > 1 else next(before(new, past.runs(new.inventory)), None)
    if old is None:
        raise NoSuchRun(f"there is no run over {_over(new)} before run {new.id}")
    _knows(old)
    _knows(new)
    now = past.records(new.id)
    was = _known_before(past, old, now)
    if old.part != new.part:  # what one of them left out has neither come nor gone
        both = {each.name for each in was} & {each.name for each in now}
        was, now = ([each for each in records if each.name in both] for records in (was, now))
        runs = " and ".join(f"run {each.id} (over {_over(each)})" for each in (old, new))
        say(f"of {runs}, the nodes of both are compared: {len(both)}")
    found = drift.between(was, now)
    if json_:
        told = {"from": old.as_json(), "to": new.as_json(), "drift": [asdict(each) for each in found]}
        print(json.dumps(told, indent=1, ensure_ascii=False))
        return 0
    print(f"from run {old.id} ({old.started}) to run {new.id} ({new.started}):")
    for each in found:
        print("\n".join([each.name, *map(_indented, each.what)]))
    print(f"{len(found)} nodes are otherwise" if found else "no node is otherwise")
    return 0


def report(
    past: History, inventory: str | None, number: int | None, files: Mapping[str, Path | None], today: date
) -> int:
    """Write the report on a run, else on the last one over an inventory as it is, in the forms asked for.

    Raises NoSuchRun, and CannotRun where a file cannot be written.
    """
    run: Run | None
    newer: Run | None = None
    if number is not None:
        run = _knows(past.run(number))
        if inventory and run.inventory != absolute(inventory):
            raise NoSuchRun(f"run {number} is over {run.inventory}, and not over {absolute(inventory)}")
    else:
        last = next((each for each in past.runs(inventory) if each.knows_its_nodes), None)
        run, newer = reported(past.runs(last.inventory)) if last else (None, None)
    if run is None:
        raise NoSuchRun(f"there is no run{f' over {inventory}' if inventory else ''} to report: plan one")
    if newer:
        say(f"run {newer.id} is newer, but had {newer.chosen}: --run {newer.id} reports it")
    if not run.is_whole:
        say(f"run {run.id} had {run.chosen}")
    beside = [] if number else rollouts_beside(past, run)
    for rollout, _ in beside:
        say(f"what run {rollout.id}, which was at work beside run {run.id}, made of its nodes since then is in it")
    words = last_words(past, [(run, True), *beside]) if beside else {}
    records = [words.get(each.name, each) for each in past.records(run.id)]
    earlier = next(before(run, past.runs(run.inventory)), None)
    about = About(
        run=run.id,
        kind=run.kind,
        inventory=run.inventory,
        started=run.started,
        ended=run.ended,
        outcome=run.outcome,
        user=run.user,
        commit=run.commit,
        before=earlier.id if earlier else 0,
        before_started=earlier.started if earlier else "",
        chosen=run.chosen,
        newer=newer.id if newer else 0,
        newer_chosen=newer.chosen if newer else "",
    )
    fleet = make(about, records, _known_before(past, earlier, records) if earlier else None, today)
    forms = {
        "html": page.html,
        "json": lambda fleet: json.dumps(as_json(fleet), ensure_ascii=False) + "\n",
        "prometheus": prometheus.metrics,
    }
    for form, file in files.items():
        if file is not None:
            _write(file, forms[form](fleet))
            say(f"run {run.id} as {form}: {file}")
    return 0


def _known_before(past: History, run: Run, after: Sequence[Record]) -> list[Record]:
    """What was known of its nodes at the end of this run: also of those that it could not read, and `after` has."""
    earlier = (past.records(each.id) for each in before(run, past.runs(run.inventory)))
    return drift.last_read(past.records(run.id), after, earlier)


def _write(file: Path, text: str) -> None:
    """By rename: a collector never reads half of it. "-" is standard output.

    A link is followed, and what is no file of its own (a pipe, a device, /dev/stdout) is written into: a rename would
    put a file in its place.
    """
    if str(file) == "-":
        sys.stdout.write(text)
        return
    try:
        real = file.resolve() if _can_be_replaced(file) else None
        if real is None:
            file.write_text(text, "utf-8")
            return
        beside = real.with_name(f".{real.name}.{os.getpid()}")
        try:
            beside.write_text(text, "utf-8")
            beside.replace(real)
        except OSError:
            with suppress(OSError):  # whatever kept it from being written may keep it from being removed
                beside.unlink()
            raise
    except OSError as error:
        raise CannotRun(f"{file} cannot be written: {error.strerror}") from error


def _can_be_replaced(file: Path) -> bool:
    """Whether it is not there yet, or a file with a name: /dev/stdout may be one that was removed meanwhile."""
    try:
        return stat.S_ISREG(file.stat().st_mode) and file.resolve().samefile(file)
    except FileNotFoundError:
        return not file.exists()


def _knows(run: Run) -> Run:
    if not run.knows_its_nodes:
        raise NoSuchRun(f"run {run.id} has read no node ({_outcome(run)}): there is nothing to tell of it")
    return run


def _over(run: Run) -> str:
    return f"{run.inventory} {run.chosen}".rstrip()


def _about(record: Record) -> list[str]:
    findings = (f"{each.severity} {each}" for each in record.findings)
    drained = ["its pods were moved away, and not let back"] if record.drained else []
    verb = _DID.get(record.status, "would")
    return [*(f"{verb} {each}" for each in record.changes), *drained, *record.proof, *record.decisions, *findings]


# Of one that failed nobody knows how far its changes came.
_DID = {Status.CHANGED: "did", Status.FAILED: "was to", Status.UNKNOWN: "was to"}


def _indented(line: str) -> str:
    return f"  {line}"


def _counts(run: Run) -> str:
    return ", ".join(f"{count} {status}" for status, count in run.totals.items()) or "-"


def _outcome(run: Run) -> str:
    return "goes on" if run.goes_on else run.outcome.splitlines()[0]
