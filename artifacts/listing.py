"""`list`: what the lock pins, how it was verified, and what the tables know of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import date
from typing import Any

from userns import advisories
from userns.findings import Severity
from userns.releases import Lock
from userns.tables import ADVISORIES, RELEASES, branch
from userns.versions import parse

__all__ = ["Row", "as_json", "as_text", "rows"]


@dataclass(frozen=True, slots=True)
class Row:
    """One version in the lock file."""

    component: str
    version: str
    architectures: tuple[str, ...]
    verified: str
    source: str
    fixes_until: str
    ended: bool
    blocked: tuple[str, ...]
    open: tuple[str, ...]


def rows(lock: Lock, components: Iterable[str], today: date) -> Iterator[Row]:
    """The lock's versions, newest first, with their advisories and their end of life."""
    known = {row.finding: row for row in ADVISORIES}
    for component in components:
        for version in lock.versions(component):
            blocked: list[str] = []
            others: list[str] = []
            for finding in advisories.check(component, version):
                row = known[finding.id]
                if finding.severity is not Severity.NOTE:
                    blocks = finding.severity is Severity.BLOCKER
                    (blocked if blocks else others).append(f"{row.id} ({row.severity})")
            name = branch(parse(version))
            until = next((row.until for row in RELEASES if (row.component, row.branch) == (component, name)), None)
            yield Row(
                component,
                version,
                lock.architectures(component, version),
                lock.verified(component, version),
                lock.source(component, version),
                until.isoformat() if until else "",
                until is not None and until < today,
                tuple(blocked),
                tuple(others),
            )


def as_json(found: Iterable[Row]) -> list[Mapping[str, Any]]:
    """The rows for other programs."""
    return [asdict(row) for row in found]


def as_text(found: Iterable[Row]) -> Iterator[str]:
    """The rows for people: a line a version, and one for what speaks against it."""
    sources: dict[str, str] = {}
    for row in found:
        if not row.verified:
            sources.setdefault(row.source, str(len(sources) + 1))
        verified = row.verified or f"not verified here [{sources[row.source]}]"
        life = ""
        if row.fixes_until:
            life = f"no fixes since {row.fixes_until}" if row.ended else f"fixes until {row.fixes_until}"
        fields = (f"{row.component} {row.version}".ljust(18), ", ".join(row.architectures), verified, life)
        yield "  ".join(field for field in fields if field)
        if row.blocked:
            yield f"    refused: {', '.join(row.blocked)}"
        if row.open:
            yield f"    open or unconfirmed: {', '.join(row.open)}"
    for source, number in sources.items():
        yield f"[{number}] {source}"
