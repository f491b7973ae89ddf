"""A kubelet that works, and whose cgroup driver would not be containerd's any more after the run."""

from __future__ import annotations

import pytest

from tests import nodes
from userns.findings import Finding, Severity
from userns.kubelet.config import KubeletSettings, keeps_driver
from userns.node import Node, RunningKubelet

CGROUPFS, SYSTEMD = {"cgroupDriver": "cgroupfs"}, {"cgroupDriver": "systemd"}
BEGINS = {
    "asked": "the kubelet that runs here uses the cgroup driver cgroupfs",
    "own": "the kubelet here has the cgroup driver cgroupfs",
    "downgrade": "containerd 2.1.9 tells the kubelet here the cgroup driver systemd, and 1.7.34 tells none",
}
CURES = {
    "asked": 'Set cgroup_driver = "cgroupfs"; or drain the node, allow this, and restart the kubelet right after '
    "the run",
    "own": 'Set cgroup_driver = "cgroupfs"; or drain the node, allow this, and right after the run set cgroupDriver: '
    "systemd in the kubelet's configuration and restart it",
    "downgrade": "Set cgroupDriver: systemd in the kubelet's configuration first",
}


def working(driver: str, told: dict[str, str], runs: bool = True) -> Node:
    """A node whose kubelet works, beside a containerd whose files say `driver`."""
    return nodes.bare(kubelet_config=told, cgroup_driver=driver, running_kubelet=RunningKubelet() if runs else None)


def found(node: Node, kubernetes: str, before: str, target: str = "2.3.4", driver: str = "systemd") -> Finding | None:
    return next(keeps_driver(node, KubeletSettings(target, driver), kubernetes, before), None)


@pytest.mark.parametrize(
    ("kubernetes", "before", "target", "driver", "told", "kind"),
    [
        # It asks, once.
        ("1.33", "2.1.9", "2.3.4", "cgroupfs", {}, "asked"),
        ("1.33", "2.1.9", "2.3.4", "systemd", {}, None),
        ("1.33", "2.1.9", "2.3.4", "systemd", CGROUPFS, None),  # containerd's answer wins
        ("1.33", "1.7.24", "2.3.4", "systemd", {}, "asked"),  # it gave none: the kubelet's own default
        ("1.33", "1.7.24", "2.3.4", "cgroupfs", SYSTEMD, None),
        ("1.33", "", "2.3.4", "cgroupfs", {}, None),
        ("1.33", "2.1.9", "2.3.4", "", {}, None),
        # It is too old to ask.
        ("1.30", "2.1.9", "2.3.4", "cgroupfs", {}, "own"),
        ("1.30", "2.1.9", "2.3.4", "cgroupfs", CGROUPFS, "own"),
        ("1.30", "1.7.24", "2.3.4", "cgroupfs", {"cgroupDriver": "null"}, "own"),
        ("1.30", "2.1.9", "2.3.4", "cgroupfs", SYSTEMD, None),
        ("1.30", "2.1.9", "2.3.4", "systemd", {}, None),  # they differ already
        ("1.30", "2.1.9", "2.3.4", "", CGROUPFS, None),
        ("1.30", "", "2.3.4", "cgroupfs", {}, None),
        # It asks one that gives no answer.
        ("1.33", "1.7.24", "1.7.34", "cgroupfs", {}, "own"),
        ("1.33", "1.7.24", "1.7.34", "cgroupfs", SYSTEMD, None),
        ("1.33", "1.7.24", "1.7.34", "systemd", CGROUPFS, None),
        # It has got an answer, and is to get none any more.
        ("1.33", "2.1.9", "1.7.34", "cgroupfs", {}, "own"),
        ("1.33", "2.1.9", "1.7.34", "cgroupfs", SYSTEMD, "asked"),  # until it is restarted
        ("1.33", "2.1.9", "1.7.34", "systemd", {}, "downgrade"),
        ("1.33", "2.1.9", "1.7.34", "systemd", SYSTEMD, None),
    ],
)
def test_a_kubelet_that_would_be_left_with_another_cgroup_driver_blocks(
    kubernetes: str, before: str, target: str, driver: str, told: dict[str, str], kind: str | None
) -> None:
    said = found(working(driver, told), kubernetes, before, target)
    if kind is None:
        assert said is None
        return
    assert said is not None
    assert (said.id, said.severity) == ("kubelet-keeps-cgroup-driver", Severity.BLOCKER)
    assert said.message.startswith(BEGINS[kind])
    assert CURES[kind] in said.message


def test_its_own_driver_says_where_it_is_from_and_why_containerds_does_not_count() -> None:
    def message(node: Node, *versions: str) -> str:
        said = found(node, *versions)
        assert said is not None
        return said.message

    default = message(working("cgroupfs", {}), "1.30", "2.1.9")
    assert "(its default, as its own configuration names none; a kubelet 1.30 does not ask)" in default
    written = message(working("cgroupfs", CGROUPFS), "1.33", "1.7.24", "1.7.34")
    assert "(its own configuration has it; containerd 1.7.34 tells none)" in written


def test_the_driver_that_the_node_has_may_be_kept() -> None:
    assert found(working("cgroupfs", {}), "1.30", "2.1.9", driver="cgroupfs") is None
    assert found(working("cgroupfs", {}), "1.33", "2.1.9", driver="cgroupfs") is None
    taken = found(working("systemd", SYSTEMD), "1.30", "2.1.9", driver="cgroupfs")
    assert taken is not None
    assert taken.message.startswith("the kubelet here has the cgroup driver systemd")


def test_a_kubelet_that_does_not_run_now_still_has_its_own_driver_and_asks_when_it_starts() -> None:
    assert found(working("cgroupfs", CGROUPFS, runs=False), "1.30", "2.1.9") is not None
    assert found(working("cgroupfs", CGROUPFS, runs=False), "1.33", "2.1.9") is None


@pytest.mark.parametrize("kubernetes", ["1.30", "1.33"])
def test_the_driver_of_a_kubelet_with_another_runtime_is_not_containerds_matter(kubernetes: str) -> None:
    told = {"containerRuntimeEndpoint": "unix:///run/cri-dockerd.sock"}
    assert found(working("cgroupfs", told), kubernetes, "2.1.9") is None


@pytest.mark.parametrize("wanted", ["1.30", "1.36"])  # the kubelet that is here decides
@pytest.mark.parametrize(
    ("driver", "told", "expected"),
    [
        ("cgroupfs", {}, {"kubelet-keeps-cgroup-driver": Severity.BLOCKER}),
        ("cgroupfs", CGROUPFS, {"kubelet-keeps-cgroup-driver": Severity.BLOCKER}),
        ("systemd", {}, {"kubelet-config-differs": Severity.WARNING}),
        ("systemd", CGROUPFS, {"kubelet-config-differs": Severity.WARNING}),
        ("systemd", SYSTEMD, {}),
        ("", {}, {}),  # none works yet
    ],
)
def test_the_plan_says_it_once_and_holds_up_no_node_that_gets_no_worse(
    driver: str, told: dict[str, str], expected: dict[str, Severity], wanted: str
) -> None:
    node = nodes.converged(kubernetes_version="1.30").model_copy(
        update={
            "kubelet_version": "1.30.2",
            "kubelet_config": told,
            "cgroup_driver": driver,
            "running_kubelet": RunningKubelet() if driver else None,
        }
    )
    said = nodes.plan(node, kubernetes_version=wanted).findings
    ids = ("kubelet-keeps-cgroup-driver", "kubelet-config-differs")
    assert {each.id: each.severity for each in said if each.id in ids} == expected
