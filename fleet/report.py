"""The report on a fleet's last run, as values that every form of it is made from. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from typing import Any

from fleet import drift
from fleet.outcome import BEFORE_A_WAVE, DONE, IN_FLIGHT
from fleet.records import ATTENTION, ORDER, Record, Status, totals
from userns import advisories
from userns.findings import Severity

__all__ = ["NOT_YET", "TIERS", "About", "Attention", "Fleet", "as_json", "fix", "make"]

# A plan knows what a node would have: that is not what it has.
NOT_YET = "not-yet"
# From the best to the worst; "unknown" for a node that is as it should be and whose record has none of these.
TIERS = ("idmapped", "rootfs-only", "chown", "unsupported", "unknown", NOT_YET)


@dataclass(frozen=True, slots=True)
class About:
    """The run that is reported, and the one before it (0: none).

    `chosen` is its --limit, --exclude and --data, "" where it was over the inventory as it is; `newer` a later run that
    was not.
    """

    run: int
    kind: str
    inventory: str
    started: str
    ended: str
    outcome: str
    user: str
    commit: str
    before: int = 0
    before_started: str = ""
    chosen: str = ""
    newer: int = 0
    newer_chosen: str = ""


@dataclass(frozen=True, slots=True)
class InstalledVersion:
    """A component's version on so many nodes, and what speaks against it, the gravest first."""

    component: str
    version: str
    nodes: int
    advisories: tuple[Mapping[str, str], ...]


@dataclass(frozen=True, slots=True)
class Attention:
    """Nodes that need the same attention for the same reasons, and what to do about them."""

    status: str
    reasons: tuple[str, ...]
    fix: str
    nodes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Fleet:
    """Everything that the report says."""

    about: About
    totals: Mapping[str, int]
    tiers: Mapping[str, Mapping[str, int]]  # what nodes have, by group, and "all"
    attention: tuple[Attention, ...]
    versions: tuple[InstalledVersion, ...]
    drift: tuple[drift.Drift, ...]
    records: tuple[Record, ...]


def make(about: About, records: Sequence[Record], before: Sequence[Record] | None, today: date | None = None) -> Fleet:
    """The report on these records; without a run before, there is no drift."""
    return Fleet(
        about=about,
        totals=totals(records),
        tiers=_tiers(records),
        attention=tuple(_attention(records, about)),
        versions=tuple(_versions(records, today)),
        drift=() if before is None else tuple(drift.between(before, records)),
        records=tuple(records),
    )


def tier(record: Record) -> str:
    """The tier that the node has: none yet, unless it is ready or was changed."""
    if not record.is_well:
        return NOT_YET
    return record.tier if record.tier in TIERS else "unknown"


def fix(record: Record, about: About) -> str:
    """What to do about a node that needs attention after this run."""
    blockers = [each.id for each in record.findings if each.severity == Severity.BLOCKER]
    match record.status:
        case Status.UNKNOWN if not about.outcome:
            return f"Wait for run {about.run}: it goes on."
        case status if status not in ATTENTION:
            return "Its pods are away still. Do as the reason says, or apply again with --drain, which gives it back."
        case Status.REFUSED if blockers:
            ids = ", ".join(f'"{id}"' for id in dict.fromkeys(blockers))
            return f"Do as the reason says, or accept it: allow = [{ids}] in the data of the node or of its group."
        case Status.REFUSED:
            return "Do as the reason says."
        case Status.UNREACHABLE:
            return "See that it is up, that its address and key are right, and that ssh from here reaches it."
        case Status.UNKNOWN if about.kind != "apply":
            return "Plan for it again."
        case Status.UNKNOWN:
            return "Plan for it again: what had begun on it has finished or undone itself meanwhile."
        case _:
            return f"Do as the reason says, then {_again(about)}."


def _in_flight(record: Record, about: About) -> bool:
    """Whether a run that goes on is at it, so that nothing is known of it, and nothing wrong."""
    return record.status is Status.UNKNOWN and not about.outcome and {*record.reasons} <= {IN_FLIGHT}


def _again(about: About) -> str:
    """A run that has begun no wave, or was done in spite of failures, is none to resume."""
    if about.kind != "apply":
        return "plan again"
    done = about.outcome.startswith((DONE, *BEFORE_A_WAVE))
    return "apply again" + ("" if done else " with --resume")


def as_json(fleet: Fleet) -> dict[str, Any]:
    """The report as JSON values."""
    return {
        "run": asdict(fleet.about),
        "totals": dict(fleet.totals),
        "tiers": {group: dict(counts) for group, counts in fleet.tiers.items()},
        "attention": [asdict(each) for each in fleet.attention],
        "versions": [asdict(each) for each in fleet.versions],
        "drift": [asdict(each) for each in fleet.drift],
        "nodes": {each.name: each.model_dump(mode="json", exclude={"name", "diffs"}) for each in fleet.records},
    }


def _attention(records: Iterable[Record], about: About) -> list[Attention]:
    """The gravest first, and of those the one that most nodes share."""
    shared: dict[tuple[Status, tuple[str, ...], str], list[str]] = {}
    for record in records:
        if record.needs_attention and not _in_flight(record, about):
            shared.setdefault((record.status, record.reasons, fix(record, about)), []).append(record.name)
    found = sorted(shared.items(), key=lambda item: (ORDER.index(item[0][0]), -len(item[1])))
    return [Attention(str(status), reasons, what, tuple(names)) for (status, reasons, what), names in found]


def _tiers(records: Iterable[Record]) -> dict[str, dict[str, int]]:
    counts: dict[str, Counter[str]] = {"all": Counter()}
    for record in records:
        for group in dict.fromkeys(("all", *sorted(record.groups))):
            counts.setdefault(group, Counter())[tier(record)] += 1
    groups = ["all", *sorted(counts.keys() - {"all"})]
    return {group: {each: counts[group][each] for each in TIERS if counts[group][each]} for group in groups}


def _versions(records: Iterable[Record], today: date | None) -> Iterable[InstalledVersion]:
    packaged: dict[tuple[str, str], list[bool]] = {}
    for record in records:
        for component, each in record.versions.items():
            if each.installed:
                packaged.setdefault((component, each.installed), []).append(each.packaged)
    order = list(Severity)
    for (component, version), nodes in sorted(packaged.items()):
        try:
            found = advisories.check(component, version, today, packaged=all(nodes))
        except ValueError:
            found = []
        found.sort(key=lambda each: order.index(each.severity))
        told = tuple(
            {"id": each.id, "severity": each.severity.value, "message": each.message, "source": each.source}
            for each in found
        )
        yield InstalledVersion(component, version, len(nodes), told)
