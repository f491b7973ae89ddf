"""From a plan to a node's record. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fleet.records import FindingRecord, Record, Status, Versions
from userns import disruption, programs
from userns.planning import Plan

__all__ = ["of_plan"]


def of_plan(name: str, groups: Sequence[str], plan: Plan, diffs: Mapping[str, Sequence[str]] | None = None) -> Record:
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
        diffs={path: tuple(lines) for path, lines in (diffs or {}).items()},
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
