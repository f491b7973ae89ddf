"""Waves: a canary, then a share of each group, never more away than a group can do without."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.records import Status
from fleet.waves import LimitError, Rollout, Stop, Wave, limit

GOOD, BAD = Status.CHANGED, Status.FAILED


def rollout(groups: dict[str, list[str]], limits: dict[str, int], **how: object) -> Rollout:
    members: dict[str, list[str]] = {}
    for group, names in groups.items():
        for name in names:
            members.setdefault(name, []).append(group)
    return Rollout(waiting=list(members), groups=members, limits=limits, **how)  # type: ignore[arg-type]


def nodes(wave: Wave | Stop) -> tuple[str, ...]:
    assert isinstance(wave, Wave), wave
    return wave.nodes


def why(stop: Wave | Stop) -> str:
    assert isinstance(stop, Stop), stop
    return stop.reason


def all_well(one: Rollout) -> list[tuple[str, ...]]:
    found = []
    while isinstance(wave := one.next(), Wave):
        found.append(wave.nodes)
        one.settle(dict.fromkeys(wave.nodes, GOOD))
    assert wave.reason == ""
    return found


@pytest.mark.parametrize(
    ("value", "size", "expected"),
    [(1, 10, 1), ("3", 10, 3), (50, 10, 50), ("10%", 100, 10), ("10%", 19, 1), ("10%", 3, 1), ("100%", 7, 7)],
)
def test_a_limit_is_a_count_or_a_percentage_rounded_down_but_at_least_one(
    value: object, size: int, expected: int
) -> None:
    assert limit(value, size) == expected


@pytest.mark.parametrize("value", [0, "0", "0%", -1, "101%", "ten", "", "10 %", 1.5, None, True, "1e2", "%"])
def test_what_is_no_limit_is_refused(value: object) -> None:
    with pytest.raises(LimitError, match="is no number of nodes"):
        limit(value, 10)


def test_the_canary_goes_alone_and_then_each_group_in_its_own_share() -> None:
    one = rollout({"a": ["a1", "a2", "a3", "a4"], "b": ["b1", "b2"]}, {"a": 2, "b": 1}, canary="a1")
    assert all_well(one) == [("a1",), ("a2", "a3", "b1"), ("a4", "b2")]
    assert [wave.canary for wave in one.waves] == [True, False, False]


def test_a_node_of_two_groups_counts_in_both() -> None:
    one = rollout({"zone": ["n1", "n2", "n3"], "gpu": ["n2", "n3"]}, {"zone": 3, "gpu": 1})
    assert all_well(one) == [("n1", "n2"), ("n3",)]


@pytest.mark.parametrize("budget", [0, 9])
def test_a_canary_that_fails_ends_it_whatever_the_budget(budget: int) -> None:
    one = rollout({"a": ["a1", "a2"]}, {"a": 2}, canary="a1", max_failures=budget)
    one.settle(dict.fromkeys(nodes(one.next()), BAD))
    assert why(one.next()) == "the canary failed: a1"


def test_one_failure_more_than_the_budget_ends_it() -> None:
    one = rollout({"a": [f"a{n}" for n in range(9)]}, {"a": 3}, max_failures=1)
    first = nodes(one.next())
    one.settle({first[0]: BAD, first[1]: GOOD, first[2]: GOOD})
    second = nodes(one.next())
    assert len(second) == 2  # the failed one is away
    one.settle({second[0]: Status.UNKNOWN, second[1]: GOOD})
    assert why(one.next()) == f"2 nodes failed ({first[0]}, {second[0]}); --max-failures allows 1"
    assert len(one.waiting) == 4


def test_nodes_that_are_away_already_are_counted() -> None:
    one = rollout({"a": ["a1", "a2"], "b": ["b1"]}, {"a": 1, "b": 1}, unavailable={"gone"})
    one.groups = {**one.groups, "gone": ["a"]}
    assert nodes(one.next()) == ("b1",)
    one.settle({"b1": GOOD})
    assert why(one.next()).startswith("no other node may go: a has 1 unavailable (gone) and may have 1")


@given(st.data())
def test_no_group_ever_has_more_away_than_its_limit_and_everybody_goes_once(data: st.DataObject) -> None:
    names = [f"n{number}" for number in range(data.draw(st.integers(1, 30)))]
    groups = {name: sorted(data.draw(st.sets(st.sampled_from("abc"), min_size=1))) for name in names}
    limits = {group: data.draw(st.integers(1, 6)) for group in "abc"}
    one = Rollout(names, groups, limits, max_failures=data.draw(st.integers(0, 5)), canary=names[0])
    gone: list[str] = []
    while isinstance(wave := one.next(), Wave):
        away = Counter(group for name in {*wave.nodes, *one.unavailable} for group in groups[name])
        assert all(away[group] <= limits[group] for group in away)
        gone += wave.nodes
        one.settle({name: data.draw(st.sampled_from([GOOD, GOOD, GOOD, BAD])) for name in wave.nodes})
    assert len(gone) == len(set(gone))
    assert sorted(gone + one.waiting) == sorted(names)
    assert wave.reason or not one.waiting
