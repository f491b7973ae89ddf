"""The lines that a kubelet's configuration needs: those, no others, and as they have to be written."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import nodes
from userns.findings import Severity
from userns.kubelet.config import KubeletSettings, contradictions, gates
from userns.node import RunningKubelet

GATE = ("featureGates:", "  UserNamespacesSupport: true")
OLD_GATE = ("featureGates:", "  UserNamespacesStatelessPodsSupport: true")


def settings(**changed: Any) -> KubeletSettings:
    return KubeletSettings(**{"containerd": "2.3.4", **changed})


def lines(kubernetes: str, told: dict[str, str] | None = None, **changed: Any) -> tuple[str, ...]:
    return gates(kubernetes, settings(**changed), told or {})[0].lines


@pytest.mark.parametrize(
    ("kubernetes", "expected"),
    [
        ("1.25", (*OLD_GATE, "cgroupDriver: systemd")),
        ("1.27.4", (*OLD_GATE, "cgroupDriver: systemd")),
        ("1.28", (*GATE, "cgroupDriver: systemd")),
        ("1.30.2", (*GATE, "cgroupDriver: systemd")),
        ("1.31", GATE),  # asks containerd for the driver
        ("1.32", GATE),
        ("1.33", ()),
        ("1.35", ()),
        ("1.36", ()),
        ("1.40", ()),
    ],
)
def test_each_kubernetes_needs_its_lines(kubernetes: str, expected: tuple[str, ...]) -> None:
    assert lines(kubernetes) == expected


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"max_pods": 250}, ("maxPods: 250",)),
        ({"ids_per_pod": 131072}, ("userNamespaces:", "  idsPerPod: 131072")),
        ({"containerd": "1.7.34"}, ("cgroupDriver: systemd",)),
        ({"containerd": "1.7.34", "cgroup_driver": "cgroupfs"}, ("cgroupDriver: cgroupfs",)),
        ({"cgroup_driver": "cgroupfs"}, ()),
    ],
)
def test_a_setting_that_is_not_the_kubelets_default_is_a_line(
    changed: dict[str, Any], expected: tuple[str, ...]
) -> None:
    assert lines("1.36", **changed) == expected


@pytest.mark.parametrize(("kubernetes", "there"), [("1.32", False), ("1.34.9", False), ("1.35", True)])
def test_ids_per_pod_is_a_line_only_where_the_kubelet_reads_it(kubernetes: str, there: bool) -> None:
    """Where it knows the field and ignores it, the line would take effect with an upgrade, under running pods."""
    told = gates(kubernetes, settings(ids_per_pod=131072))[0]
    assert ("  idsPerPod: 131072" in told.lines) is there
    assert ("idsPerPod only while no pod with a user namespace is on its node" in told.message) is there
    assert "idsPerPod" not in gates(kubernetes, settings(max_pods=9))[0].message


def test_what_the_node_has_already_is_not_asked_for() -> None:
    told = {"cgroupDriver": "systemd", "maxPods": "250", "UserNamespacesSupport": "true", "idsPerPod": "131072"}
    assert lines("1.30", told, max_pods=250) == ()
    assert lines("1.33", told, max_pods=250, ids_per_pod=131072) == ()
    assert lines("1.33", {"maxPods": "50"}) == ("maxPods: 110",)


def test_the_lines_are_announced_where_there_are_some() -> None:
    assert "needs these lines" in gates("1.32", settings())[0].message
    assert "needs these lines" not in gates("1.36", settings())[0].message
    assert [each.lines for each in gates("1.36", settings(max_pods=9))] == [("maxPods: 9",), ()]


def test_versions_alone_ask_for_gates_alone() -> None:
    assert gates("1.30")[0].lines == GATE
    assert gates("1.36")[0].lines == ()


def test_the_plan_has_the_lines_of_this_nodes_settings() -> None:
    plan = nodes.plan(nodes.bare(), kubernetes_version="1.32", max_pods=200, kubelet_id_range=None)
    told = next(each for each in plan.findings if each.id == "kubernetes-feature-gates")
    assert told.severity is Severity.NOTE
    assert told.lines == (*GATE, "maxPods: 200")


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({"UserNamespacesSupport": "false"}, "turns user namespaces off"),
        ({"UserNamespacesStatelessPodsSupport": "true"}, "a gate that it does not know"),
        ({"maxPods": "250"}, "maxPods 250, and max_pods"),
        ({"idsPerPod": "131072"}, "idsPerPod 131072, and ids_per_pod"),
    ],
)
def test_a_config_that_is_at_odds_with_the_settings_is_told(told: dict[str, str], said: str) -> None:
    (found,) = contradictions("1.36", settings(), told)
    assert (found.id, found.severity) == ("kubelet-config-differs", Severity.WARNING)
    assert said in found.message


def test_a_cgroup_driver_matters_where_the_kubelet_does_not_ask_containerd() -> None:
    told = {"cgroupDriver": "cgroupfs"}
    assert list(contradictions("1.36", settings(), told)) == []
    assert "pods would not start" in next(contradictions("1.30", settings(), told)).message
    assert "pods would not start" in next(contradictions("1.36", settings(containerd="1.7.34"), told)).message


def test_a_kubelet_that_works_has_a_cgroup_driver_without_being_told_one() -> None:
    assert list(contradictions("1.30", settings(), {})) == []
    (found,) = contradictions("1.30", settings(), {}, works=True)
    assert "cgroupDriver cgroupfs (its default, " in found.message
    assert list(contradictions("1.30", settings(cgroup_driver="cgroupfs"), {}, works=True)) == []
    assert list(contradictions("1.36", settings(), {}, works=True)) == []


def test_the_old_gate_is_fine_where_it_is_the_gate() -> None:
    assert list(contradictions("1.27", settings(), {"UserNamespacesStatelessPodsSupport": "true"})) == []


def test_a_config_is_found_by_the_plan() -> None:
    plan = nodes.plan(nodes.bare(kubelet_config={"maxPods": "30"}))
    assert "kubelet-config-differs" in {each.id for each in plan.findings}


def running(told: dict[str, str] | None = None, **changed: Any) -> list[str]:
    """The findings of a plan for a node with a kubelet that was started so, and whose files say `told`."""
    node = nodes.bare(kubelet_config=told or {}, running_kubelet=RunningKubelet(**changed))
    return [f"{each.severity.value} {each.id}: {each.message}" for each in nodes.plan(node).findings]


def of(found: list[str], id: str) -> list[str]:
    return [each for each in found if f" {id}: " in each]


def test_a_kubelet_with_another_root_blocks_and_its_root_is_named() -> None:
    (found,) = of(running(root="/data/kubelet", uses_root=False), "kubelet-root-differs")
    assert found.startswith("blocker ")
    assert "its root in /data/kubelet, and kubelet_root is /var/lib/kubelet" in found
    assert of(running(root="/data/kubelet", uses_root=True), "kubelet-root-differs") == []


@pytest.mark.parametrize(
    "endpoint",
    [
        *("unix:///run/crio/crio.sock", "/run/k3s/containerd/containerd.sock", "unix:///run/cri-dockerd.sock"),
        "unix://[[.CRI]]",  # a template that nobody has filled in, and no URL
    ],
)
def test_a_kubelet_that_talks_to_another_runtime_blocks(endpoint: str) -> None:
    (found,) = of(running({"containerRuntimeEndpoint": endpoint}), "kubelet-uses-another-runtime")
    assert found.startswith("blocker ")
    assert f"uses {endpoint}, and" in found


def test_a_node_that_moves_to_containerd_may_be_allowed() -> None:
    docker = {"containerRuntimeEndpoint": "unix:///run/cri-dockerd.sock"}
    node = nodes.bare(running_kubelet=RunningKubelet(), kubelet_config=docker)
    assert [each.id for each in nodes.plan(node).blockers] == ["kubelet-uses-another-runtime"]
    assert not nodes.plan(node, allow=["kubelet-uses-another-runtime"]).refused


@pytest.mark.parametrize(
    "endpoint",
    [
        "",
        "unix:///run/containerd/containerd.sock",
        "unix:///var/run/containerd/containerd.sock",
        "unix:/run/containerd/containerd.sock",
        "/run/containerd/containerd.sock",
        "null",
    ],
)
def test_a_kubelet_that_talks_to_this_containerd_is_fine(endpoint: str) -> None:
    assert of(running({"containerRuntimeEndpoint": endpoint}), "kubelet-uses-another-runtime") == []


@pytest.mark.parametrize(
    ("endpoint", "told"), [("unix:///run/crio/crio.sock", True), ("unix:///run/containerd/containerd.sock", False)]
)
def test_of_a_kubelet_that_does_not_run_the_file_is_told_and_refuses_nothing(endpoint: str, told: bool) -> None:
    """A flag may overrule it, and a node may be on its way from one runtime to the other."""
    plan = nodes.plan(nodes.bare(kubelet_config={"containerRuntimeEndpoint": endpoint}))
    found = [each for each in plan.findings if each.id == "kubelet-uses-another-runtime"]
    assert [each.severity for each in found] == [Severity.WARNING] * told
    assert not told or f"/var/lib/kubelet/config.yaml, has containerRuntimeEndpoint {endpoint}." in found[0].message


def test_a_gate_that_is_off_blocks_where_the_kubelet_runs() -> None:
    (found,) = of(running({"UserNamespacesSupport": "false"}), "user-namespaces-gate-off")
    assert found.startswith("blocker ")
    node = nodes.bare(kubelet_config={"UserNamespacesSupport": "false"})
    assert "user-namespaces-gate-off" not in {each.id for each in nodes.plan(node).findings}


@pytest.mark.parametrize(
    ("version", "told", "severity"),
    [
        ("1.32.4", {}, Severity.WARNING),
        ("1.32.4", {"UserNamespacesSupport": "true"}, None),
        ("1.27.1", {}, Severity.WARNING),
        ("1.27.1", {"UserNamespacesStatelessPodsSupport": "false"}, Severity.BLOCKER),
        ("1.33.0", {}, None),
    ],
)
def test_a_gate_that_is_off_by_default_is_asked_for(
    version: str, told: dict[str, str], severity: Severity | None
) -> None:
    node = nodes.bare(kubelet_version=version, kubelet_config=told, running_kubelet=RunningKubelet())
    minor = version.rpartition(".")[0]
    plan = nodes.plan(node, kubernetes_version=minor, containerd_version="1.7.34" if minor < "1.30" else "2.3.4")
    assert {each.severity for each in plan.findings if each.id == "user-namespaces-gate-off"} == {severity} - {None}


def test_the_gates_are_those_of_the_kubelet_that_is_there() -> None:
    plan = nodes.plan(nodes.bare(kubelet_version="1.32.4"), kubernetes_version="1.36")
    told = [each for each in plan.findings if each.id == "kubernetes-feature-gates"]
    assert told[0].lines == GATE
    assert not any("take UserNamespacesSupport out" in each.message for each in told)


@given(
    kubernetes=st.sampled_from([f"1.{minor}" for minor in range(25, 40)]),
    pods=st.integers(1, 5000),
    ids=st.sampled_from([65536, 131072]),
    driver=st.sampled_from(["systemd", "cgroupfs"]),
    containerd=st.sampled_from(["1.7.34", "2.0.0", "2.3.4"]),
)
def test_whoever_writes_the_lines_is_asked_for_none_again(
    kubernetes: str, pods: int, ids: int, driver: str, containerd: str
) -> None:
    wanted = KubeletSettings(containerd, driver, pods, ids)
    written = dict(line.strip().split(": ") for line in gates(kubernetes, wanted)[0].lines if not line.endswith(":"))
    assert gates(kubernetes, wanted, written)[0].lines == ()
    assert list(contradictions(kubernetes, wanted, written)) == []
