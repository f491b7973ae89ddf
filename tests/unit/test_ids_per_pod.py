"""The number of IDs a pod (idsPerPod): which kubelets go by it, and that it does not change under pods."""

from __future__ import annotations

import pytest

from tests.unit.test_kubelet_range import POD, found, node, severities
from userns.node import PodIds, RunningKubelet

SMALL, LARGE = PodIds(pod="5m", start=65536 * 6, length=65536), PodIds(pod="1a", start=65536 * 8, length=131072)


@pytest.mark.parametrize(
    ("kubelet", "told", "said"),
    [
        ("1.32.1", {}, "Do not set idsPerPod yet"),
        ("1.34.9", {}, "Do not set idsPerPod yet"),
        ("1.34.9", {"idsPerPod": "131072"}, "It has idsPerPod 131072 already"),
        ("1.35.0", {}, "has no effect yet: the kubelet here gives each pod 65536 IDs, for its configuration has no id"),
        ("1.35.0", {"idsPerPod": "196608"}, "each pod 196608 IDs, for its configuration has idsPerPod 196608."),
        ("1.35.0", {"idsPerPod": "131072"}, ""),
    ],
)
def test_a_kubelet_that_does_not_go_by_ids_per_pod_is_told_why(kubelet: str, told: dict[str, str], said: str) -> None:
    some = node(kubelet_version=kubelet, running_kubelet=RunningKubelet(), kubelet_config=told)
    ignored = found(some, None, ids_per_pod=131072).get("ids-per-pod-ignored")
    assert (ignored is not None) is bool(said)
    if ignored:
        assert said in ignored.message
        assert ("is read from 1.35 on" in ignored.message) is (kubelet < "1.35")
    nothing_runs = node(kubelet_version=kubelet)
    assert ("ids-per-pod-ignored" in found(nothing_runs, None, ids_per_pod=131072)) is (kubelet < "1.35")


@pytest.mark.parametrize(
    ("kubelet", "told", "pods", "severity"),
    [
        ("1.35.1", {}, (SMALL,), "blocker"),
        ("1.35.1", {"idsPerPod": "65536"}, (LARGE, SMALL), "blocker"),
        ("1.35.1", {"idsPerPod": "131072"}, (LARGE,), None),
        ("1.35.1", {"idsPerPod": "131072"}, (LARGE, SMALL), "warning"),  # told already: it does not start as it is
        ("1.35.1", {}, (), None),
        ("1.34.1", {}, (SMALL,), None),  # reads nothing, and is not asked to be told
        ("1.34.1", {"idsPerPod": "131072"}, (SMALL,), None),
    ],
)
@pytest.mark.parametrize("runs", [True, False])
@pytest.mark.parametrize("wanted", [None, (131072, 131072 * 110)])
def test_the_number_of_ids_a_pod_does_not_change_under_pods_either(
    kubelet: str,
    told: dict[str, str],
    pods: tuple[PodIds, ...],
    severity: str | None,
    runs: bool,
    wanted: tuple[int, int] | None,
) -> None:
    printed = (f"0: kubelet {wanted[0]} {wanted[1]}",) * 2 if wanted else ()
    some = node(
        kubelet_version=kubelet,
        kubelet_user="997" if wanted else "",
        getsubids=dict(zip(("subuid", "subgid"), ((each,) for each in printed), strict=False)),
        running_kubelet=RunningKubelet() if runs else None,
        kubelet_config=told,
        pod_ids=pods,
    )
    said = found(some, wanted, ids_per_pod=131072).get("kubelet-id-range-in-use")
    assert (said.severity.value if said else None) == severity
    if said and severity == "blocker":
        assert "1 pod (5m) with a user namespace would have blocks of the wrong size" in said.message
        assert "Set ids_per_pod = 65536 for this node" in said.message


def test_pods_that_were_too_many_to_tell_have_the_size_that_the_kubelet_gives() -> None:
    some = node(pod_ids=(LARGE,), pods_untold=7)
    assert severities(some, None, ids_per_pod=131072)["kubelet-id-range-in-use"] == "blocker"
    assert "kubelet-id-range-in-use" not in found(some, None, ids_per_pod=131072, image=True)


def test_pods_that_do_not_fit_the_number_of_ids_that_the_kubelet_was_told_already_are_told() -> None:
    some = node(pod_ids=(POD,), kubelet_config={"idsPerPod": "131072"})
    assert severities(some, None, ids_per_pod=131072)["kubelet-id-range-in-use"] == "warning"
