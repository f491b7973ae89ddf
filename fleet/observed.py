"""From a plan to a node's record, and from that to one that can be shown. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fleet.records import FindingRecord, Record, Status, Versions
from userns import disruption, programs
from userns.console import plain
from userns.planning import Plan

__all__ = ["of_plan", "printable"]


def of_plan(name: str, groups: Sequence[str], plan: Plan) -> Record:
    """The record of a node that was read and planned for."""
    node, ready = plan.node, plan.readiness
    status = Status.REFUSED if plan.refused else Status.CHANGES if plan.steps else Status.READY
    return Record(
        name=name,
        groups=tuple(groups),
        status=status,
        reasons=tuple(str(each) for each in plan.blockers),
        tier=ready.tier,
        summary=ready.summary,
        kernel=node.kernel,
        system=f"{node.os_id} {node.os_version}".strip(),
        versions=_versions(plan),
        findings=tuple(
            FindingRecord(
                id=each.id,
                severity=each.severity.value,
                message=each.message,
                source=each.source,
                allowed=each.allowed,
                lines=each.lines,
            )
            for each in plan.findings
        ),
        decisions=tuple(str(each) for each in plan.decisions if each.name not in ("tier", "because")),
        changes=plan.steps,
        disrupts=disruption.of_plan(plan),
    )


def _versions(plan: Plan) -> dict[str, Versions]:
    node, policy = plan.node, plan.policy
    return {
        component: Versions(
            installed=programs.installed(node, policy, component),
            wanted=policy.versions.get(component, ""),
            packaged=programs.packaged(node, policy, component),
            wants_package=policy.install_from == "package",
        )
        for component in programs.MEMBERS
    }


def printable(record: Record) -> Record:
    """The record as history, JSON and page may keep it: with nothing in the node's own words that a terminal obeys.

    Its name and its groups are the inventory's, by which it is found again.
    """
    return Record.model_validate({**_plain(record.model_dump()), "name": record.name, "groups": record.groups})


def _plain(value: Any) -> Any:
    match value:
        case str():
            return plain(value)
        case dict():
            return {_plain(key): _plain(each) for key, each in value.items()}
        case list() | tuple():
            return [_plain(each) for each in value]
    return value
