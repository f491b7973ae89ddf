"""The table that the check walks says what readiness says, of every node that there could be."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, given, settings

from tests import nodes
from tests.strategies import any_node, any_settings
from tests.unit.check_place import asked, place
from userns import readiness, readiness_table
from userns.findings import Severity
from userns.idmap import release as release_of
from userns.node import Node, Probe
from userns.policy import Policy, PolicyError
from userns.readiness import Readiness
from userns.tables import BOUNDARIES, KNOWN_IDS
from userns.versions import parse


def policy_of(wanted: dict[str, Any]) -> Policy | None:
    try:
        return nodes.policy(**wanted)
    except PolicyError:
        return None


def found(ready: Readiness) -> set[tuple[str, Severity]]:
    return {(each.id, each.severity) for each in ready.findings}


def answer(node: Node, question: str) -> str:
    """What the check takes a probe's answer for; the same words in Python."""
    probe = node.probes.get(question, Probe(result="unknown"))
    said = {"ok": "ok", "unknown": "unknown"}.get(probe.result)
    if said is None:
        named = {(step, errno): name for step, errno, name in readiness_table.errno_answers()}
        said = named.get((probe.step, probe.errno)) or named.get(("", probe.errno)) or "cannot"
    if said in ("unknown", "exhausted") and question in readiness_table.ROOTS:
        release = release_of(node.kernel)
        type = node.filesystems[question].type
        rows = {name: (since, module) for name, since, module in readiness_table.since()}
        first = BOUNDARIES["mount_setattr"].since
        since, module = rows.get(type, rows.get(type.partition(".")[0], (first, None)))
        can = release is not None and release >= first and since is not None and release >= since
        if module and node.zfs_version:
            can = can and parse(node.zfs_version) >= module
        return f"{said}-{'can' if can else 'cannot'}"
    return said


def walk(table: readiness_table.Table, node: Node) -> tuple[readiness_table.Outcome, set[tuple[str, Severity]]]:
    release = release_of(node.kernel)
    ages = [str(each) for each in readiness_table.boundaries() if release is not None and release >= each]
    here, met = table.first, set(table.found)
    while isinstance(here, int):
        state = table.states[here]
        said = (ages or [readiness_table.OLDEST])[-1] if state.question == "kernel" else answer(node, state.question)
        if state.question not in ("kernel", readiness_table.NAMED) and said.startswith("cannot"):
            said = "cannot"
        (way,) = [each for each in state.answers if said in each.answers]
        met |= set(way.found)
        here = way.next
    return here, met


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(asked(), any_settings)
def test_the_table_says_what_readiness_says_of_any_answers(node: Node, wanted: dict[str, Any]) -> None:
    if policy := policy_of(wanted):
        ready = readiness.of_node(node, policy)
        end, met = walk(readiness_table.of_policy(policy), node)
        assert (end.tier, end.rootfs, end.volumes, end.slow_chown) == (
            ready.tier,
            ready.rootfs,
            ready.volumes,
            ready.slow_chown,
        )
        assert met == found(ready)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(any_node(), any_settings)
def test_the_table_says_what_readiness_says_of_any_node(node: Node, wanted: dict[str, Any]) -> None:
    if policy := policy_of(wanted):
        roots = {name: node.filesystems.get(name, place(name, "")) for name in ("containerd-root", "kubelet-root")}
        node = node.model_copy(update={"filesystems": roots})
        ready = readiness.of_node(node, policy)
        end, met = walk(readiness_table.of_policy(policy), node)
        assert (end.tier, met) == (ready.tier, found(ready))


def test_no_finding_of_the_table_has_two_severities() -> None:
    for wanted in ({}, {"slow_chown": True}, {"slow_chown": False}, {"snapshotter": "stargz"}):
        ids = [id for id, _ in readiness_table.of_policy(nodes.policy(**wanted)).findings]
        assert len(ids) == len(set(ids))
        assert set(ids) <= set(KNOWN_IDS)
