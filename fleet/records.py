"""What is known of a node: one record, as the runner writes it and as every report shows it. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

from pydantic import BaseModel, ConfigDict

from userns.findings import RESTART_NEEDED

__all__ = ["ATTENTION", "ORDER", "UNAVAILABLE", "FindingRecord", "Record", "Status", "Versions", "exit_code", "totals"]


class Status(StrEnum):
    """What is to be done with a node, or what became of it."""

    READY = "ready"  # nothing to do
    CHANGES = "changes"  # to be changed
    CHANGED = "changed"  # and proven
    WAITING = "waiting"  # to be changed, but the run ended before its turn
    REFUSED = "refused"  # left as it is
    UNREACHABLE = "unreachable"
    FAILED = "failed"
    UNKNOWN = "unknown"  # the run broke off while it was in flight


# What counts against how many of a group may be away.
UNAVAILABLE = (Status.FAILED, Status.UNKNOWN, Status.UNREACHABLE)
# In this order they are what an operator wants to see first.
ATTENTION = (Status.FAILED, Status.UNKNOWN, Status.UNREACHABLE, Status.REFUSED)
# And then the others.
ORDER = (*ATTENTION, Status.WAITING, Status.CHANGES, Status.CHANGED, Status.READY)
# As a node should be: there is nothing to do, or it was done and proven.
WELL = (Status.READY, Status.CHANGED)


class _Frozen(BaseModel):
    # A newer version of this project may have written more into a history than is known here.
    model_config = ConfigDict(frozen=True, extra="ignore")


class Versions(_Frozen):
    """A component's version on the node ("" where it is not installed) and the wanted one ("" where none is).

    `packaged` and `wants_package`: it is the distribution's own package, which is repaired under its old number.
    """

    installed: str = ""
    wanted: str = ""
    packaged: bool = False
    wants_package: bool = False

    @property
    def after(self) -> Versions:
        """What is there once it was changed."""
        if not self.wanted:
            return self
        return self.model_copy(update={"installed": self.wanted, "packaged": self.wants_package})


class FindingRecord(_Frozen):
    """A finding, as `python -m userns explain --json` has it."""

    id: str
    severity: str
    message: str
    source: str = ""
    allowed: bool = False
    lines: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.id}: {self.message}" + (f" ({self.source})" if self.source else "")


class Record(_Frozen):
    """One node in one run.

    `reasons` say why it is refused, could not be reached or failed; `changes` are in words; `diffs` are the lines of
    each file's diff, by path, where they were asked for; `proof` is what the kernel said of its containers.
    `disrupts` says which of the changes disturb what runs on the node, and why; `drained` that its pods were moved away
    for them, and not let back. `proof_allowed`: what the kernel said, or would say, is accepted by `allow` alone.
    """

    name: str
    groups: tuple[str, ...] = ()
    status: Status
    reasons: tuple[str, ...] = ()
    tier: str = ""
    summary: str = ""
    kernel: str = ""
    system: str = ""
    versions: dict[str, Versions] = {}
    findings: tuple[FindingRecord, ...] = ()
    decisions: tuple[str, ...] = ()
    changes: tuple[str, ...] = ()
    disrupts: tuple[str, ...] = ()
    drained: bool = False
    diffs: dict[str, tuple[str, ...]] = {}
    proof: tuple[str, ...] = ()
    proof_allowed: bool = False

    @property
    def needs_attention(self) -> bool:
        """Whether somebody has to look at this node: also at one that has not got its pods back."""
        return self.status in ATTENTION or self.drained

    def with_status(self, status: Status, reasons: Iterable[str]) -> Record:
        """The same node, and what became of it."""
        return self.model_copy(update={"status": status, "reasons": tuple(reasons)})

    @property
    def at_the_end(self) -> Record:
        """The same node where no wave follows: one to be changed waits, and has reasons only if its pods are away."""
        kept = self.reasons if self.drained else ()
        return self.with_status(Status.WAITING, kept) if self.status is Status.CHANGES else self

    def with_what_is_known(self, planned: Record) -> Record:
        """The record of a wave, with what the plan knew where the wave could not even read the node."""
        return self if self.tier else planned.with_status(self.status, self.reasons)

    @property
    def awaits_kubelet(self) -> bool:
        """Whether its kubelet has to start anew before it can have pods with a user namespace."""
        return any(each.id == RESTART_NEEDED for each in self.findings)

    @property
    def label(self) -> str | None:
        """The tier that its label in Kubernetes should say; "" where it should have none; None: whatever it says.

        Of a node that was not read (its settings have a slip, nobody reached it), or whose change is still to come, it
        is not known that it is worse than before; nor of one that is ready and whose proof was accepted, if it was
        tried.
        """
        if not self.is_well:
            return "" if self.tier and self.status in (Status.FAILED, Status.REFUSED) else None
        if self.awaits_kubelet:
            return ""
        if self.proof_allowed:
            return "" if self.status is Status.CHANGED else None
        return self.tier if self.tier != "unsupported" else ""

    @property
    def is_well(self) -> bool:
        """Whether the node is as it should be."""
        return self.status in WELL


def exit_code(records: Iterable[Record]) -> int:
    """0: nothing to do; 2: nodes to change; 1, before anything else: a node that needs attention, or waits."""
    known = [*records]
    statuses = {each.status for each in known}
    if Status.WAITING in statuses or any(each.needs_attention for each in known):
        return 1
    return 2 if Status.CHANGES in statuses else 0


def totals(records: Iterable[Record]) -> dict[str, int]:
    """How many nodes there are of each status; none where there are none."""
    found = dict.fromkeys(map(str, Status), 0)
    for record in records:
        found[record.status] += 1
    return {status: count for status, count in found.items() if count}
