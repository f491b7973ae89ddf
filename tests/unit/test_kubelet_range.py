"""The kubelet's range of IDs: each rule and trap of it is named, with the way out."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tests import nodes
from tests.strategies import any_node
from userns import paths, tables
from userns.findings import Finding, Severity
from userns.kubelet import subids
from userns.kubelet.idrange import ID_SPACE, free_range, inside, overlap, range_problems
from userns.kubelet.ids import RangeWanted, findings
from userns.node import HostIds, Node, PodIds, RunningKubelet, Unit

RANGE = (65536 * 16, 65536 * 110)
PRINTED = f"0: kubelet {RANGE[0]} {RANGE[1]}"
RUNNING = {"kubelet": Unit(load="loaded", active="active")}


def node(**changed: Any) -> Node:
    return nodes.bare(**{"kubelet_version": "1.36.1", **changed})


def asked(*printed: str, **changed: Any) -> Node:
    """A node with a user kubelet, for whom getsubids prints this, of UIDs and of GIDs."""
    return node(**{"kubelet_user": "997", "getsubids": {"subuid": printed, "subgid": printed}, **changed})


def lines(*kubelets: str) -> dict[str, Any]:
    return nodes.sub_ids(*kubelets)


def found(some: Node, wanted: tuple[int, int] | None = RANGE, **settings: Any) -> dict[str, Finding]:
    return {each.id: each for each in findings(some, RangeWanted(wanted, **{"kubernetes": "1.36", **settings}))}


def severities(some: Node, wanted: tuple[int, int] | None = RANGE, **settings: Any) -> dict[str, str]:
    return {id: each.severity.value for id, each in found(some, wanted, **settings).items()}


def without(tool: str) -> tuple[str, ...]:
    return tuple(each for each in nodes.TOOLS.split() if each != tool)


def test_a_node_that_can_have_the_range_says_nothing() -> None:
    assert found(node()) == {}


def test_a_node_that_has_the_range_says_nothing() -> None:
    assert found(asked(PRINTED, units=RUNNING, pod_ids=(PodIds(pod="a", start=RANGE[0], length=65536),))) == {}


# --- the programs that the kubelet asks ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("os", "said"),
    [
        (("debian", "12"), "Install the package uidmap"),
        (("debian", "13"), "Install the package uidmap"),
        (("debian", ""), "Install the package uidmap"),
        (("debian", "11"), "No package of debian 11 has it"),
        (("ubuntu", "22.04"), "No package of ubuntu 22.04 has it"),
        (("ubuntu", "24.04"), "Install the package uidmap"),
        (("rocky", "9.4"), "Install the package shadow-utils-subid"),
        (("fedora", "43"), "Install the package shadow-utils-subid"),
        (("alpine", "3.22.1"), "Install the package shadow-subids"),
        (("opensuse-leap", "15.5"), "No package of opensuse-leap 15.5 has it"),
        (("arch", ""), "Debian 12 and later, Ubuntu 24.04: uidmap; Fedora and EL: shadow-utils-subid"),
    ],
)
def test_a_missing_getsubids_is_named_with_its_package(os: tuple[str, str], said: str) -> None:
    some = node(tools=without("getsubids"), os_id=os[0], os_version=os[1])
    missing = found(some)["getsubids-missing"]
    assert missing.severity is Severity.BLOCKER
    assert said in missing.message


@pytest.mark.parametrize(
    ("kubelet", "refused"), [("1.29.1", False), ("1.30.0", True), ("1.36.1", True), ("1.37.2", True), ("1.38.0", False)]
)
def test_a_user_kubelet_without_getsubids_stops_the_kubelets_from_130_to_137(kubelet: str, refused: bool) -> None:
    some = node(tools=without("getsubids"), kubelet_user="997", kubelet_version=kubelet)
    assert ("getsubids-missing" in found(some, None)) is refused


def test_the_kubelet_that_is_not_installed_yet_is_the_one_of_the_settings() -> None:
    some = node(tools=without("getsubids"), kubelet_user="997", kubelet_version="")
    assert "getsubids-missing" in found(some, None, kubernetes="1.36")
    assert found(some, None, kubernetes="1.29") == {}


@pytest.mark.parametrize(("kubelet", "severity"), [("1.36.1", "note"), ("1.38.0", "warning")])
def test_a_static_kubelet_needs_getent(kubelet: str, severity: str) -> None:
    assert severities(node(tools=without("getent"), kubelet_version=kubelet)) == {"getent-missing": severity}
    assert "getent-missing" not in found(node(tools=without("getent")), None)


# --- a kubelet that is too old --------------------------------------------------------------------------------------


def test_before_130_no_kubelet_asks_for_a_range() -> None:
    assert severities(node(kubelet_version="1.29.4")) == {"kubelet-id-range-ignored": "warning"}
    assert found(asked("0: kubelet 1 1", kubelet_version="1.29.4"), None) == {}
    taken = node(kubelet_version="1.29.4", **lines(f"alice:{RANGE[0]}:1"))
    assert severities(taken)["kubelet-id-range-overlaps"] == "blocker"  # a later one will ask


# --- IDs of somebody else -------------------------------------------------------------------------------------------

LAST = sum(RANGE) - 1


@pytest.mark.parametrize(
    ("line", "overlaps"),
    [
        (f"alice:{RANGE[0]}:65536", True),
        (f"alice:{RANGE[0] - 1}:1", False),
        (f"alice:{RANGE[0] - 1}:2", True),
        (f"alice:{LAST}:1", True),
        (f"alice:{LAST + 1}:65536", False),
        ("alice:0:4294967295", True),
        (f"1000:{RANGE[0]}:1", True),
        (f"kubelet:{RANGE[0]}:{RANGE[1]}", False),
        (f"kubelet:{RANGE[0]}:65536", False),  # ours to write
        (f"alice:{RANGE[0]}:0", False),
        (f":{RANGE[0]}:{RANGE[1]}", True),  # a line without a name is not the kubelet's
        ("alice:x:y", False),
        ("", False),
    ],
)
def test_a_range_that_somebody_else_has_is_refused(line: str, overlaps: bool) -> None:
    for some in (node(subuid=(line,)), node(subgid=(line,))):
        said = {each.id for each in findings(some, RangeWanted(RANGE))} - {"sub-id-unreadable"}
        assert said == ({"kubelet-id-range-overlaps"} if overlaps else set())


@pytest.mark.parametrize(
    ("ids", "overlaps"),
    [
        (HostIds(kind="user", name="alice", first=RANGE[0], last=RANGE[0]), True),
        (HostIds(kind="group", name="staff", first=LAST, last=LAST), True),
        (HostIds(kind="user", name="bob", first=LAST + 1, last=LAST + 1), False),
        (HostIds(kind="user", name="carol", first=RANGE[0] - 1, last=RANGE[0] - 1), False),
        (HostIds(kind="user", first=70_000, last=RANGE[0], count=900), True),
    ],
)
def test_a_user_or_group_of_the_node_inside_the_range_is_refused_by_name(ids: HostIds, overlaps: bool) -> None:
    said = found(node(host_ids=(ids,)))
    assert set(said) == ({"kubelet-id-range-overlaps"} if overlaps else set())
    if overlaps:
        assert (f"{ids.kind} {ids.name} ({ids.first})" if ids.name else "900 more") in next(iter(said.values())).message


def test_many_are_named_in_one_finding_that_says_how_many_more_there_are() -> None:
    crowd = tuple(HostIds(kind="user", name=f"u{n}", first=RANGE[0] + n, last=RANGE[0] + n) for n in range(40))
    said = list(findings(node(host_ids=crowd), RangeWanted(RANGE)))
    assert len(said) == 1
    assert "user u4 " in said[0].message
    assert "; and 35 more" in said[0].message


def test_a_range_that_is_free_is_suggested() -> None:
    some = node(host_ids=(HostIds(kind="user", name="a", first=RANGE[0], last=RANGE[0]),), **lines("b:65536:65536"))
    assert f"such as ({RANGE[0] + 65536}, {RANGE[1]})" in found(some)["kubelet-id-range-overlaps"].message


# --- what getsubids says --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("printed", "said"),
    [
        ((), "no range for it"),
        (("0: kubelet 100000 65536",), "the start 100000 must be a multiple"),
        (("0: kubelet 0 7208960",), "the start 0 must be a multiple of ids_per_pod (65536) and not below it"),
        (("0: kubelet 65536 7208961",), "the count 7208961 must be a multiple"),
        (("0: kubelet 65536 65536",), "has room for 1 pods"),
        (("0: kubelet 65536 4294901760",), "must end below 4294967295"),
        (("0: kubelet 65536 7208960", "1: kubelet 100000 65536"), "2 ranges (kubelet 65536 7208960; kubelet 100000"),
        (("0: kubelet 65536 99999999999",), "which is no range"),
        (("0: kubelet 4294967296 65536",), "which is no range"),
        (("nonsense",), "which is no range"),
    ],
)
def test_a_range_with_which_the_kubelet_does_not_start_is_refused(printed: tuple[str, ...], said: str) -> None:
    invalid = found(asked(*printed), None)
    assert severities(asked(*printed), None) == {"kubelet-id-range-invalid": "blocker"}
    assert said in invalid["kubelet-id-range-invalid"].message


def test_ranges_of_uids_and_gids_have_to_be_the_same() -> None:
    some = node(kubelet_user="997", getsubids={"subuid": (PRINTED,), "subgid": ("0: kubelet 65536 7208960",)})
    assert "is not that of GIDs (kubelet 65536 7208960)" in found(some, None)["kubelet-id-range-invalid"].message
    some = node(kubelet_user="997", getsubids={"subuid": (PRINTED,), "subgid": ()})
    assert "GIDs (none)" in found(some, None)["kubelet-id-range-invalid"].message


def test_a_good_range_of_somebody_elses_making_is_left_alone() -> None:
    assert found(asked(PRINTED), None) == {}


def test_a_bad_range_is_no_matter_where_a_good_one_is_about_to_be_written() -> None:
    auto = lines("kubelet:100000:65536")
    assert found(asked("0: kubelet 100000 65536", **auto)) == {}


def test_a_range_of_somebody_elses_making_that_overlaps_is_told() -> None:
    some = asked(PRINTED, **lines(f"alice:{RANGE[0]}:65536"))
    assert severities(some, None) == {"kubelet-id-range-overlaps": "warning"}


def running(**told: str) -> Node:
    """A kubelet that runs, and was told this."""
    return asked(PRINTED, units=RUNNING, running_kubelet=RunningKubelet(), kubelet_config=told)


def test_a_range_is_judged_by_what_the_kubelet_was_told() -> None:
    assert "kubelet-id-range-invalid" not in found(running(idsPerPod="131072", maxPods="50"))
    odd = (65536 * 15, 65536 * 110)
    refused = found(running(idsPerPod="131072", maxPods="50"), odd)["kubelet-id-range-invalid"]
    assert refused.severity is Severity.BLOCKER
    assert "must be a multiple of ids_per_pod (131072)" in refused.message


def test_a_kubelet_that_was_told_nothing_goes_by_its_own_defaults() -> None:
    few = (65536 * 16, 65536 * 50)
    refused = found(running(), few, max_pods=50)["kubelet-id-range-invalid"]
    assert "has room for 50 pods and max_pods is 110" in refused.message
    assert found(running(maxPods="50"), few, max_pods=50).get("kubelet-id-range-invalid") is None


@pytest.mark.parametrize(("ids", "refused"), [(65536, False), (131072, False), (196608, True)])
def test_a_default_range_that_the_kubelet_does_not_start_with(ids: int, refused: bool) -> None:
    told = found(node(), None, ids_per_pod=ids).get("kubelet-id-range-invalid")
    assert (told is not None) is refused
    assert told is None or "does not divide the kubelet's default range" in told.message


def test_a_range_that_is_written_and_that_getsubids_does_not_know_comes_from_nsswitch() -> None:
    some = asked("0: kubelet 131072 7208960", **lines(f"kubelet:{RANGE[0]}:{RANGE[1]}"))
    said = found(some)["kubelet-id-range-invalid"]
    assert said.severity is Severity.BLOCKER
    assert "nsswitch.conf" in said.message
    assert "131072 to 7340031" in said.message


def test_max_pods_is_what_the_kubelet_is_configured_with() -> None:
    many = {"maxPods": "250"}
    assert (
        "has room for 110 pods" in found(asked(PRINTED, kubelet_config=many), None)["kubelet-id-range-invalid"].message
    )
    said = found(node(kubelet_config=many))["kubelet-id-range-invalid"]
    assert "maxPods 250" in said.message
    assert found(node(kubelet_config={"maxPods": "50"})) == {}


# --- pods on record -------------------------------------------------------------------------------------------------

POD = PodIds(pod="0f6e", start=65536 * 7000, length=65536)
INSIDE = PodIds(pod="1a2b", start=RANGE[0] + 65536, length=65536)


@pytest.mark.parametrize("pod", [POD, INSIDE, PodIds(pod="x")])
def test_the_range_does_not_change_under_pods(pod: PodIds) -> None:
    said = found(node(pod_ids=(pod,)))["kubelet-id-range-in-use"]
    assert said.severity is Severity.BLOCKER
    assert pod.pod in said.message
    assert "drain this node" in said.message
    assert "/var/lib/kubelet/pods/*/userns" in said.message


def test_pods_that_were_too_many_to_tell_count_too() -> None:
    said = found(node(pod_ids=(POD,), pods_untold=7))["kubelet-id-range-in-use"]
    assert "under 8 pods (0f6e, …)" in said.message


def test_the_range_may_grow_over_pods() -> None:
    smaller = asked(f"0: kubelet {RANGE[0]} {65536 * 10}", pod_ids=(INSIDE,))
    assert found(smaller) == {}
    assert severities(smaller.model_copy(update={"units": RUNNING})) == {"kubelet-restart-needed": "warning"}


def test_the_range_does_not_shrink_under_pods_even_if_they_would_fit() -> None:
    larger = asked(f"0: kubelet {RANGE[0]} {65536 * 500}", pod_ids=(INSIDE,))
    assert severities(larger) == {"kubelet-id-range-in-use": "blocker"}
    said = found(larger)["kubelet-id-range-in-use"].message
    assert "they fit, and the kubelet gives out IDs of the old range until it is restarted" in said
    assert "not start again" not in said


@pytest.mark.parametrize(
    ("pods", "untold", "said"),
    [
        ((POD, INSIDE), 0, "the kubelet would not start again"),
        ((POD,), 3, "the kubelet would not start again"),
        ((INSIDE,), 3, "the kubelet may not start again"),
    ],
)
def test_the_kubelet_is_said_not_to_start_again_only_with_a_pod_outside(
    pods: tuple[PodIds, ...], untold: int, said: str
) -> None:
    assert said in found(node(pod_ids=pods, pods_untold=untold))["kubelet-id-range-in-use"].message


def test_a_kubelet_that_runs_has_to_be_restarted_before_it_gives_out_old_ids() -> None:
    said = found(node(units=RUNNING))
    assert severities(node(units=RUNNING)) == {"kubelet-restart-needed": "warning"}
    assert "before a pod with hostUsers: false starts" in said["kubelet-restart-needed"].message


def test_a_kubelet_that_ran_when_its_range_was_written_has_to_be_restarted_still() -> None:
    written = asked(PRINTED, units=RUNNING)
    assert found(written) == {}
    older = written.model_copy(update={"kubelet_is_older": True})
    assert severities(older) == {"kubelet-restart-needed": "warning"}
    assert "before a pod with hostUsers: false starts" in found(older)["kubelet-restart-needed"].message
    stranded = older.model_copy(update={"pod_ids": (POD,)})
    assert severities(stranded) == {"kubelet-id-range-in-use": "warning", "kubelet-restart-needed": "warning"}
    assert "once the pods with other IDs are gone" in found(stranded)["kubelet-restart-needed"].message


@pytest.mark.parametrize("wanted", [RANGE, None])
@pytest.mark.parametrize(
    "pod",
    [
        POD,
        PodIds(pod="x"),
        PodIds(pod="x", start=RANGE[0], length=131072),
        PodIds(pod="x", start=RANGE[0] + 1, length=65536),
    ],
)
def test_pods_that_do_not_fit_the_range_that_is_there_are_told(pod: PodIds, wanted: tuple[int, int] | None) -> None:
    assert severities(asked(PRINTED, pod_ids=(pod, INSIDE)), wanted) == {"kubelet-id-range-in-use": "warning"}


def test_an_image_has_no_pods_and_no_kubelet_that_runs() -> None:
    assert found(node(pod_ids=(POD,), units=RUNNING), image=True) == {}


# --- no range -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kubelet", "told"),
    [
        ("1.29.1", False),
        ("1.30.1", True),
        ("1.37.0", True),
        ("1.38.0-alpha.1", True),
        ("1.38.0-alpha.2", False),
        ("1.38.0", False),
    ],
)
def test_the_default_range_hands_out_a_last_block_that_no_pod_can_have(kubelet: str, told: bool) -> None:
    some = severities(node(kubelet_version=kubelet), None)
    assert some == ({"kubelet-default-range": "note"} if told else {})


@pytest.mark.parametrize(("kubelet", "stranded"), [("1.37.0", False), ("1.38.0", True)])
def test_a_kubelet_that_leaves_out_the_last_block_does_not_start_with_a_pod_in_it(kubelet: str, stranded: bool) -> None:
    last = PodIds(pod="last", start=ID_SPACE - 65536, length=65536)
    fits = PodIds(pod="fits", start=ID_SPACE - 131072, length=65536)
    said = found(node(kubelet_version=kubelet, pod_ids=(last, fits)), None).get("kubelet-id-range-in-use")
    assert (said is not None) is stranded
    assert said is None or said.message.startswith("1 pod (last) with a user namespace")


def test_a_user_inside_the_default_range_is_told() -> None:
    user = HostIds(kind="user", name="alice", first=70_000, last=70_000)
    some = node(host_ids=(user,), kubelet_version="1.38.0")
    assert severities(some, None) == {"kubelet-default-range": "warning"}
    said = found(some, None)["kubelet-default-range"].message
    assert "user alice (70000)" in said
    assert "such as (131072, 7208960) (by /etc/passwd, /etc/group, /etc/subuid and /etc/subgid; users that" in said
    assert "last block" not in said


def test_sub_ids_of_others_inside_the_default_range_are_no_more_than_noted() -> None:
    """Each cloud image of Debian and Ubuntu has such a line for its first user."""
    some = node(kubelet_version="1.38.0", **lines("ubuntu:100000:65536"))
    assert severities(some, None) == {"kubelet-default-range": "note"}
    said = found(some, None)["kubelet-default-range"].message
    assert "/etc/subuid gives 100000 to 165535 to ubuntu; /etc/subgid gives 100000 to 165535 to ubuntu" in said
    assert "such as (196608, 7208960)" in said
    assert found(node(kubelet_version="1.38.0", **lines("low:1:9")), None) == {}


# --- files ----------------------------------------------------------------------------------------------------------


def test_a_file_that_cannot_be_written_anew_is_refused() -> None:
    some = lines("alice:1:1")
    some["subuid"] = ("alice:1:2",)
    assert severities(node(**some)) == {"sub-id-unreadable": "blocker"}
    said = found(node(**some))["sub-id-unreadable"].message
    assert said.startswith(f"{paths.SUBUID} could not be read byte for byte (it has bytes that are no text, or")
    assert "is not touched, so the kubelet does not get kubelet_id_range." in said


def test_a_line_without_a_name_is_not_the_kubelets() -> None:
    nobodys = f":{RANGE[0]}:{RANGE[1]}"
    assert subids.kubelets(node(**lines(nobodys))) == (None, None)
    assert subids.kubelets(node(kubelet_user="997", **lines(nobodys, f"997:{RANGE[0]}:{RANGE[1]}"))) == (RANGE, RANGE)


# --- properties -----------------------------------------------------------------------------------------------------

blocks = st.tuples(st.integers(0, 2**33), st.integers(0, 2**33))
few_ids = st.tuples(st.integers(0, 9), st.integers(0, 9))


@given(taken=st.lists(blocks, max_size=6), ids=st.sampled_from([65536, 131072]), pods=st.integers(1, 2000))
def test_a_range_that_is_called_free_is_good_and_nobodys(taken: list[tuple[int, int]], ids: int, pods: int) -> None:
    free = free_range(taken, ids_per_pod=ids, max_pods=pods)
    assume(free)
    assert free
    assert range_problems(*free, ids_per_pod=ids, max_pods=pods) == []
    assert not any(overlap(each, free) for each in taken)


@given(one=few_ids, other=few_ids)
def test_ranges_are_compared_by_the_ids_that_they_have(one: tuple[int, int], other: tuple[int, int]) -> None:
    ids, others = (set(range(start, start + count)) for start, count in (one, other))
    assert overlap(one, other) is overlap(other, one) is bool(ids & others)
    if ids:
        assert inside(one, other) is (ids <= others)


@given(
    some=any_node(),
    wanted=st.none() | st.just(RANGE) | st.just((65536, ID_SPACE)),
    kubernetes=st.sampled_from(["1.25", "1.30", "1.34.2", "1.36", "1.40"]),
    ids=st.sampled_from([65536, 131072]),
)
def test_any_node_is_judged(some: Node, wanted: tuple[int, int] | None, kubernetes: str, ids: int) -> None:
    said = list(findings(some, RangeWanted(wanted, kubernetes, ids)))
    assert all(each.id in tables.KNOWN_IDS and each.message for each in said)
    assert len({each.id for each in said}) + sum(each.id == "sub-id-unreadable" for each in said) >= len(said)
