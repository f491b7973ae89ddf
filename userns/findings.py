"""Findings: what the plan noticed about a node, each with a stable id that operators can name in `allow`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

# While a node has this finding, its kubelet does not start again with the pods that it gets: no label before.
RESTART_NEEDED = "kubelet-restart-needed"


class Severity(StrEnum):
    """How much a finding matters: a blocker refuses the node, a warning is shown in every run, a note explains."""

    BLOCKER = "blocker"
    WARNING = "warning"
    NOTE = "note"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing noticed. `id` is stable and public; `source` says where the rule comes from.

    `lines` are to be written into somebody's configuration as they are, or to be run on the node.
    """

    id: str
    severity: Severity
    message: str
    source: str = ""
    allowed: bool = False
    lines: tuple[str, ...] = ()

    def __str__(self) -> str:
        note = ' (a blocker, accepted by "allow")' if self.allowed else ""
        return f"{self.severity} {self.id}{note}: {self.message}"


def blocker(id: str, message: str, source: str = "", lines: tuple[str, ...] = ()) -> Finding:
    """A finding that refuses the node unless the operator's `allow` names its id."""
    return Finding(id, Severity.BLOCKER, message, source, lines=lines)


def warning(id: str, message: str, source: str = "", lines: tuple[str, ...] = ()) -> Finding:
    """A finding that is shown in every run and refuses nothing."""
    return Finding(id, Severity.WARNING, message, source, lines=lines)


def note(id: str, message: str, source: str = "", lines: tuple[str, ...] = ()) -> Finding:
    """A finding that only explains."""
    return Finding(id, Severity.NOTE, message, source, lines=lines)


def apply_allow(findings: list[Finding], allow: list[str] | tuple[str, ...]) -> tuple[Finding, ...]:
    """Turn each blocker that `allow` names into a warning; nothing else does. Blockers come first."""
    order = list(Severity)
    seen = [
        replace(f, severity=Severity.WARNING, allowed=True) if f.severity is Severity.BLOCKER and f.id in allow else f
        for f in findings
    ]
    return tuple(sorted(seen, key=lambda f: order.index(f.severity)))
