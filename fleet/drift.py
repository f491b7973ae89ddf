"""What is otherwise between two runs: nodes that came and went, and what of a node changed. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from fleet.records import Record, Status

__all__ = ["Drift", "between", "last_read"]


@dataclass(frozen=True, slots=True)
class Drift:
    """What of one node is otherwise, in words."""

    name: str
    what: tuple[str, ...]


def last_read(before: Sequence[Record], after: Iterable[Record], earlier: Iterable[Iterable[Record]]) -> list[Record]:
    """The records of the run before, completed for `between` by what `earlier` runs, the latest first, have last read.

    One that could not be read in that run has its status alone. Only those matter that were read again in `after`.
    """
    again = {each.name for each in after if each.tier}
    unread = {each.name for each in before if not each.tier and each.name in again}
    found = dict[str, Record]()
    for records in earlier if unread else ():
        found |= {each.name: each for each in records if each.tier and each.name in unread}
        if not (unread := unread - found.keys()):
            break
    return [_with_status(found[each.name], each) if each.name in found else each for each in before]


def _with_status(read: Record, of: Record) -> Record:
    return read.model_copy(update={"status": of.status, "reasons": of.reasons, "changes": _to_do(read)})


def between(before: Iterable[Record], after: Iterable[Record]) -> list[Drift]:
    """Each node of which something differs, those that are gone first: no list of nodes has them."""
    old, new = {each.name: each for each in before}, {each.name: each for each in after}
    found = []
    for name, record in new.items():
        what = tuple(_differences(old[name], record)) if name in old else (f"new: {record.status}",)
        if what:
            found.append(Drift(name, what))
    return [Drift(name, (f"gone: it was {record.status}",)) for name, record in old.items() if name not in new] + found


# A rollout and the plan after it are no drift: what was proven is ready, and what waits for its turn is to be changed.
_SAME = {Status.CHANGED: Status.READY, Status.WAITING: Status.CHANGES}


def _differences(old: Record, new: Record) -> Iterator[str]:
    was, now = (_SAME.get(each.status, each.status) for each in (old, new))
    if was != now:
        yield f"{was} -> {now}" + (f" ({new.reasons[0]})" if new.reasons else "")
    if not (old.tier and new.tier):
        return  # one of the two was not read: nothing more is known of it
    for name in ("tier", "kernel", "system"):
        before, after = getattr(old, name), getattr(new, name)
        if before != after:
            yield f"{name} {before} -> {after}"
    for component in sorted(old.versions.keys() | new.versions.keys()):
        there = [each.versions[component].installed if component in each.versions else "" for each in (old, new)]
        if there[0] != there[1]:
            yield f"{component} {there[0] or 'none'} -> {there[1] or 'none'}"
    had, has = ({each.id: each for each in record.findings if each.severity != "note"} for record in (old, new))
    yield from (f"new {finding.severity} {id}" for id, finding in has.items() if id not in had)
    yield from (f"no more {finding.severity} {id}" for id, finding in had.items() if id not in has)
    for id, finding in has.items():
        if id in had and had[id].severity != finding.severity:
            yield f"{finding.severity} {id}, which was a {had[id].severity}"
    had_to, has_to = (_to_do(each) for each in (old, new))
    yield from (f"would now {each}" for each in has_to if each not in had_to)
    if was == now:  # else that is what its status says
        yield from (f"would no longer {each}" for each in had_to if each not in has_to)


def _to_do(record: Record) -> tuple[str, ...]:
    """The changes that it still needs: those of one that was changed were made."""
    return () if record.status is Status.CHANGED else record.changes
