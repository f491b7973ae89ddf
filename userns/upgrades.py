"""From the containerd that a node has to the one that it is to have: what upstream allows, and what it would cost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from userns import paths
from userns.containerd.reserved_keys import value_of
from userns.findings import Finding, blocker, warning
from userns.node import Node, Unit
from userns.policy import Policy
from userns.tables import BORDERS, PAUSES, UPGRADES, Border, branch
from userns.versions import parse

__all__ = ["TASKS", "crosses", "needs_empty_node", "of_node", "orphans", "running_containerd", "skipped"]

TASKS = "containerd-downgrade-with-tasks"
_CURE = (
    "Their containers would run on without anybody who could stop them. Drain the node and remove its pods first "
    "(crictl rmp --all --force; ctr -n NAMESPACE tasks ls)"
)


def of_node(node: Node, policy: Policy) -> list[Finding]:
    """What stands against going from this node's containerd to the policy's. An image has nothing that runs."""
    if node.image is not None:
        return []
    now = running_containerd(node)
    wanted = policy.containerd_version
    return [*orphans(now, wanted, node.shims), *skipped(now, wanted), *_pause(node, policy, now)]


def needs_empty_node(node: Node, policy: Policy) -> bool:
    """Whether no task may run when the change is made: to be looked at again under the lock."""
    if node.image is not None or TASKS in policy.allow:
        return False
    return crosses(running_containerd(node), policy.containerd_version)


def crosses(now: str, wanted: str) -> bool:
    """Whether the wanted containerd could not talk to the shims of the one that is there now ("": either not known)."""
    return _border(now, wanted) is not None


def running_containerd(node: Node) -> str:
    """The version of the containerd that containerd.service starts, "" where that cannot be told.

    Without a unit, that of a containerd where a release or a package puts it.
    """
    unit = node.units.get("containerd", Unit())
    program = unit.program
    for path in (program,) if program else (paths.INSTALLED["containerd"], paths.PACKAGED["containerd"]):
        if binary := node.binaries.get(path):
            return binary.version
    return ""


def orphans(now: str, wanted: str, shims: Mapping[str, int] | None, program: str = "containerd") -> Iterator[Finding]:
    """A blocker where the wanted containerd could not talk to the shims that run (None: not known whether any do).

    Of a `program` whose version cannot be told (`wanted` is "") nobody knows that it could.
    """
    row = _border(now, wanted)
    if row is None or shims == {}:
        return
    if wanted:
        why = (
            f"containerd is to go from {now or 'an unknown version'} back to {wanted}, and {_tasks(shims)}: {wanted} "
            "cannot talk to the shims of 2.x"
        )
    else:
        why = (
            f"the version of the {program} that is to come back cannot be told: no record has it, and the kept copy "
            f"does not answer to --version. And {_tasks(shims)}: containerd 1.x cannot talk to the shims of 2.x"
        )
    yield blocker(TASKS, f"{why}. {_CURE}", row.source)


def _tasks(shims: Mapping[str, int] | None) -> str:
    """What is known of the tasks that run here; there is at least one, or None."""
    if not shims:
        return "whether tasks run here could not be read"
    count = sum(shims.values())
    return (
        f"{count} task{'s' if count > 1 else ''} (shims in the namespace{'s' if len(shims) > 1 else ''} "
        f"{', '.join(sorted(shims))}) run{'' if count > 1 else 's'} here"
    )


def skipped(now: str, wanted: str) -> Iterator[Finding]:
    """A warning where upstream does not support this upgrade in one step."""
    if not now:
        return
    old, new = branch(parse(now)), branch(parse(wanted))
    row = UPGRADES.get(old)
    if row is None or new in (old, *row.to) or parse(new) < parse(old):
        return
    ways = " or ".join(row.to)
    yield warning(
        "containerd-skips-minor",
        f"containerd goes from {now} to {wanted} in one step, which upstream does not support: from {old} it goes to "
        f"{ways}. Go that way (containerd_version), or try it on one node first",
        row.source,
    )


def _pause(node: Node, policy: Policy, now: str) -> Iterator[Finding]:
    """A warning where new pods need another image than those that run, which a node in an air gap may not have.

    Whoever names one, here or in a drop-in, knows it; what a config.toml named that goes is told as such.
    """
    old, new = (PAUSES.get(branch(parse(each))) if each else None for each in (now, policy.containerd_version))
    if old is None or new is None or old.image == new.image or policy.sandbox_image:
        return
    key = ("pinned_images", "sandbox")
    if any(each.path[-2:] == key for drop_in in node.drop_ins for each in drop_in.keys):
        return
    usual = [row.image for row in PAUSES.values()]
    for each in node.config_keys:
        if each.path[-2:] == key and value_of(each.value) not in (usual if each.state == "unknown" else [old.image]):
            return
    yield warning(
        "pause-image-changes",
        f"every new pod begins with {new.image} once containerd goes from {now} to {policy.containerd_version}, and no "
        f"longer with {old.image}. Where nodes cannot pull it, load it before (ctr -n k8s.io images import), or name "
        "one that they have: set sandbox_image",
        new.source,
    )


def _border(now: str, wanted: str) -> Border | None:
    """The border between the two; where a version is not known, the one that may lie between them."""
    return next(
        (
            row
            for row in BORDERS
            if (not wanted or parse(wanted) in row.containerd) and (not now or parse(now) in row.shims)
        ),
        None,
    )
