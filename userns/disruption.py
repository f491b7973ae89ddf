"""Disruption: which changes of a plan disturb the pods that run on a node, so that they are to be moved away first.

A restart of containerd is none: shims and containers go on, which tests on real nodes watch. Pure.
"""

from __future__ import annotations

from userns import paths, programs
from userns.changes import InstallArtifact, InstallPackage, WriteFile
from userns.kubelet import subids
from userns.node import Unit
from userns.planning import Plan
from userns.versions import parse

__all__ = ["of_plan"]


def of_plan(plan: Plan) -> tuple[str, ...]:
    """Why pods on this node would be disturbed; nothing where none of the changes does that."""
    if plan.node.units.get("containerd", Unit()).active != "active":
        return ()  # nothing runs there
    found = []
    for change in plan.changes:
        match change:
            case (
                InstallArtifact(component="containerd", version=version)
                | InstallPackage(component="containerd", version=version)
            ):
                found += _downgrade(plan, version)
            case WriteFile(path=paths.SUBUID | paths.SUBGID as path):
                if _range_changes(plan, path):
                    found.append(f"the kubelet's range in {path} changes: pods have user ids of the old one")
    return tuple(found)


def _downgrade(plan: Plan, version: str) -> list[str]:
    there = programs.in_use(plan.node, plan.policy, "containerd")
    try:
        older = bool(there) and parse(version).release[:2] < parse(there).release[:2]
    except ValueError:
        return [f"containerd calls itself {there!r}: whether {version} can take over its containers is unknown"]
    if not older:
        return []
    return [
        f"containerd goes back from {there} to {version}: an older branch need not read what a newer one has stored"
    ]


def _range_changes(plan: Plan, path: str) -> bool:
    """And not only the file's mode, or a range that is there for the first time."""
    lines = plan.node.subuid if path == paths.SUBUID else plan.node.subgid
    ours = subids.owners(plan.node.kubelet_user)
    has = {(start, count) for owner, start, count in subids.ranges(lines) if owner in ours}
    return bool(has) and has != {plan.policy.kubelet_id_range}
