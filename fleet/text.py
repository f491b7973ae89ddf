"""Records as text for people. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from tabulate import tabulate

from fleet.records import ORDER, Record, Status, Versions, totals
from userns.releases import COMPONENTS

__all__ = ["attention", "by_group", "counted", "names", "plan", "summary"]

# Of more nodes than that, not every name is told where they have something in common.
NAMED = 8


def plan(records: Sequence[Record], *, diff: bool = False, verbose: bool = False) -> str:
    """What each node is and would become: by group, then what would change and why, then what needs attention."""
    parts = [*by_group(records)]
    changing = [each for each in records if each.status is Status.CHANGES]
    parts += _section("What would change", _shared(_changes(changing)))
    parts += _section(
        "What disturbs a node's pods",
        _shared((why, each.name) for each in changing for why in each.disrupts),
    )
    if diff:
        shown = _shared(("\n".join(lines), each.name) for each in changing for lines in each.diffs.values())
        parts += _section("How files would change", shown)
    kinds = ("warning", "note") if verbose else ("warning",)
    parts += _section(
        "Warnings",
        _shared(
            (f"{finding.severity} {finding}", each.name)
            for each in records
            for finding in each.findings
            if finding.severity in kinds
        ),
    )
    parts += attention(records)
    return "\n\n".join([*parts, summary(records)]) + "\n"


def by_group(records: Iterable[Record]) -> Iterator[str]:
    """A table for each group; a node of several groups stands in each of them."""
    groups: dict[str, list[Record]] = {}
    for record in records:
        for group in record.groups or ("all",):
            groups.setdefault(group, []).append(record)
    for group, members in sorted(groups.items()):
        rows = [
            [each.name, each.tier or "-", *(_versions(each.versions.get(one)) for one in COMPONENTS), _what(each)]
            for each in sorted(members, key=lambda each: ORDER.index(each.status))
        ]
        table = tabulate(rows, headers=["node", "tier", *COMPONENTS, ""], tablefmt="plain", disable_numparse=True)
        yield f"{group}: {counted(len(members))}\n" + "\n".join(f"  {line.rstrip()}" for line in table.splitlines())


def attention(records: Iterable[Record]) -> list[str]:
    """The nodes that somebody has to look at, each with its reasons."""
    bad = [each for each in records if each.needs_attention]
    bad.sort(key=lambda each: ORDER.index(each.status))
    return _section(
        "What needs attention", _shared(("\n".join([f"{each.status}:", *each.reasons]), each.name) for each in bad)
    )


def summary(records: Iterable[Record]) -> str:
    """All of it in one line."""
    counts = totals(records)
    told = ", ".join(f"{count} {_SAID.get(status, status)}" for status, count in counts.items())
    return f"{counted(sum(counts.values()))}: {told}"


_SAID = {Status.READY.value: "ready (nothing to do)", Status.CHANGES.value: "to change"}


def names(nodes: Sequence[str]) -> str:
    """Nodes by name, or the first of them and how many more."""
    more = len(nodes) - NAMED
    return ", ".join(nodes[:NAMED]) + (f" and {more} more" if more > 0 else "")


def _what(record: Record) -> str:
    if record.status is not Status.CHANGES:
        return str(record.status)
    return f"{len(record.changes)} change{'s' if len(record.changes) > 1 else ''}"


def _versions(versions: Versions | None) -> str:
    if versions is None:
        return "-"
    there, wanted = versions.installed, versions.wanted
    return there or "-" if not wanted or wanted == there else f"{there or 'none'} -> {wanted}"


def _changes(records: Iterable[Record]) -> Iterator[tuple[str, str]]:
    return ((change, each.name) for each in records for change in each.changes)


def _shared(said: Iterable[tuple[str, str]]) -> list[str]:
    """Each text once, with the nodes that it is of below it."""
    nodes: dict[str, list[str]] = {}
    for text, name in said:
        nodes.setdefault(text, []).append(name)
    return [
        "\n".join([*(f"  {line}" for line in text.splitlines()), f"      {names(of)}"]) for text, of in nodes.items()
    ]


def _section(title: str, items: Sequence[str]) -> list[str]:
    return ["\n".join([title, *items])] if items else []


def counted(count: int) -> str:
    """So many nodes, in words."""
    return f"{count} node{'s' if count != 1 else ''}"
