"""A node that is a container in a user namespace: it can only give pods IDs that it has itself."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import nodes
from userns.findings import Finding
from userns.kubelet.idrange import inside, overlap
from userns.kubelet.own_ids import findings, missing

ALL = ((0, 4294967295),)
LXC = ((0, 65536),)  # its default
ID = "kubelet-id-range-not-mapped"
DEFAULT, SET = None, (65536, 65536 * 110)


def found(uid: Any, gid: Any = ALL, kubernetes: str = "1.36", **changed: Any) -> Finding | None:
    """What is said of a container with these IDs."""
    wanted = {name: changed.pop(name) for name in ("kubelet_id_range", "max_pods") if name in changed}
    node = nodes.bare(container="lxc", own_ids={"uid": uid, "gid": gid}, **changed)
    told = nodes.plan(node, kubernetes_version=kubernetes, **wanted)
    said = next((each for each in told.findings if each.id == ID), None)
    assert told.refused is (said is not None)
    return said


@pytest.mark.parametrize("kubernetes", ["1.29", "1.30", "1.36"])
@pytest.mark.parametrize(
    ("parts", "range", "refused"),
    [
        (ALL, DEFAULT, False),
        (ALL, SET, False),
        (((0, 1000000), (1000000, 4293967295)), DEFAULT, False),
        (LXC, DEFAULT, True),
        (LXC, SET, True),
        (((0, 131072),), SET, True),  # enough for the probe, and for one pod
        (((0, 65536 * 111),), SET, False),
        (((65536, 65536 * 110), (0, 65536)), SET, False),
        (((0, 65536), (65536, 65536 * 109)), SET, True),
        (((0, 65536 * 111),), DEFAULT, True),  # the kubelet picks at random
    ],
)
def test_a_range_that_the_node_does_not_have_itself_is_refused(
    parts: Any, range: Any, refused: bool, kubernetes: str
) -> None:
    if range and kubernetes == "1.29":  # it takes its default range, whatever is set
        refused = parts[0][1] != ALL[0][1]
    assert (found(parts, kubernetes=kubernetes, kubelet_id_range=range) is not None) is refused
    assert (found(ALL, parts, kubernetes=kubernetes, kubelet_id_range=range) is not None) is refused


def test_ids_in_two_parts_are_a_range_as_one_part_is() -> None:
    assert found(((0, 1), (1, 65536 * 111)), kubelet_id_range=SET) is None
    assert found(((1, 65536 * 111),), kubelet_id_range=(65536, 65536 * 110)) is None


def test_the_refusal_says_what_is_there_what_is_needed_and_what_to_do() -> None:
    said = found(LXC)
    assert said
    for part in ("65536 to 4294967295", "has 0 to 65535 only (/proc/self/uid_map)", "lxc.idmap", "a virtual machine"):
        assert part in said.message
    assert "Set kubelet_id_range" not in said.message


def test_where_the_node_has_enough_a_range_that_fits_is_suggested() -> None:
    said = found(((0, 65536), (1000000, 65536 * 112)))
    assert said
    assert "Set kubelet_id_range to one that it has, such as (1048576, 7208960), or give" in said.message


def test_the_range_of_somebody_elses_making_counts() -> None:
    printed = ("0: kubelet 65536 7208960",)
    there: dict[str, Any] = {"kubelet_user": "997", "getsubids": {"subuid": printed, "subgid": printed}}
    assert found(((0, 65536 * 111),), **there) is None
    assert found(((0, 65536 * 110),), **there)


def test_nothing_is_said_of_what_was_not_read() -> None:
    assert nodes.bare().own_ids == {}
    assert ID not in {each.id for each in nodes.plan(nodes.bare(container="lxc")).findings}


parts = st.lists(st.tuples(st.integers(0, 40), st.integers(1, 20)), max_size=5)


@given(parts, st.tuples(st.integers(0, 40), st.integers(1, 20)))
def test_what_is_missing_is_the_first_id_that_no_part_has(own: list[tuple[int, int]], wanted: tuple[int, int]) -> None:
    absent = [id for id in range(wanted[0], sum(wanted)) if not any(inside((id, 1), part) for part in own)]
    assert missing(wanted, own) == (absent[0] if absent else None)


@given(parts, st.integers(1, 5))
def test_what_is_suggested_the_node_has(own: list[tuple[int, int]], pods: int) -> None:
    blocks = tuple((start * 65536, count * 65536) for start, count in own)
    theirs = (3 * 65536 + 5, 7)
    for each in findings({"uid": blocks}, (41 * 65536, 65536 * 100), [theirs], ids_per_pod=65536, max_pods=pods):
        before, _, after = each.message.partition("such as (")
        if after:
            start, count = map(int, after.partition(")")[0].split(", "))
            assert count == pods * 65536
            assert missing((start, count), blocks) is None
            assert not overlap((start, count), theirs)
        else:
            assert "Give this container" in before
