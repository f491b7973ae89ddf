"""Shards and their attempts: every node with one worker at a time, and told of once."""

from __future__ import annotations

from collections import deque

from hypothesis import given
from hypothesis import strategies as st

from fleet.shards import MARGIN_SECONDS, Attempt, Board, Leases, Shard, Worker, split

LEASE = 20.0
OVER = LEASE + MARGIN_SECONDS
EAST, WEST = Worker("tcp://east", "e", 1, frozenset({"east"})), Worker("tcp://west", "w", 1, frozenset({"west"}))


def board(*shards: Shard, tries: int = 3) -> Board:
    return Board(deque(shards or [Shard(("a", "b"))]), Leases(LEASE), tries)


def begun(on: Board, *workers: Worker, now: float = 0) -> Attempt:
    """The one attempt that is made now, granted at once."""
    (attempt,) = on.start(workers, now)
    on.leases.grant(attempt.id, 1, now)
    return attempt


@given(st.dictionaries(st.text(max_size=3), st.sampled_from(["", "x", "y"])), st.integers(0, 9), st.integers(1, 30))
def test_every_host_is_in_one_shard_of_its_region_and_of_no_more_than_the_most(
    regions: dict[str, str], slots: int, most: int
) -> None:
    shards = split(regions, slots, most)
    assert sorted(name for shard in shards for name in shard.names) == sorted(regions)
    assert all(regions[name] == shard.region for shard in shards for name in shard.names)
    assert all(0 < len(shard.names) <= most for shard in shards)


def test_each_slot_has_as_many_shards() -> None:
    hosts = {str(number): "" for number in range(1000)}
    assert [len(each.names) for each in split(hosts, 2, 200)] == [167] * 5 + [165]
    assert [len(each.names) for each in split(hosts, 16, 200)] == [63] * 15 + [55]


def test_few_hosts_are_not_worth_more_than_one_process() -> None:
    assert len(split({str(number): "" for number in range(8)}, 16, 200)) == 1


def test_a_worker_has_no_more_attempts_than_slots() -> None:
    on = board(Shard(("a",)), Shard(("b",)), Shard(("c",)))
    assert [each.worker for each in on.start([EAST, WEST], 0)] == [EAST, WEST]
    assert list(on.start([EAST, WEST], 0)) == []


def test_a_shard_waits_for_a_worker_of_its_region() -> None:
    on = board(Shard(("a",), "west"))
    assert list(on.start([EAST], 0)) == []
    assert begun(on, EAST, WEST).worker is WEST


def test_a_record_is_taken_once_and_from_the_attempt_that_has_the_node() -> None:
    on = board()
    first = begun(on, EAST)
    assert on.accept(first.id, "a")
    assert not on.accept(first.id, "a")
    assert not on.accept(first.id, "c")  # somebody else's
    on.end(first.id, "it broke")
    second = begun(on, WEST)
    assert second.shard.names == ("b",)
    assert not on.accept(first.id, "b")
    assert on.accept(second.id, "b")
    on.end(second.id, "")
    assert on.done


def test_a_node_is_given_to_nobody_before_the_lease_of_the_one_who_had_it_is_over() -> None:
    on = board()
    lost = begun(on, EAST)
    on.leases.grant(lost.id, 2, 7.0)
    on.withdraw(on.gone([WEST.token]), "its worker was lost")
    on.leases.grant(lost.id, 3, 9.0)  # it asks again: too late
    assert on.leases.grants() == {lost.id: -1}
    assert on.expire(7.0 + OVER - 0.1) == []
    assert list(on.start([WEST], 7.0 + OVER - 0.1)) == []
    assert on.accept(lost.id, "a")  # what it still tells of its own nodes is true
    assert on.expire(7.0 + OVER) == [lost.id]
    assert list(on.start([EAST], 7.0 + OVER)) == []  # it may still be listed, and as silent as before
    assert begun(on, EAST, WEST, now=7.0 + OVER).shard == Shard(
        ("b",), "", ("tcp://east",), ("tcp://east: its worker was lost",)
    )


def test_one_that_says_that_it_has_ended_is_not_waited_for() -> None:
    on = board()
    slow = begun(on, EAST)
    on.withdraw(on.slow(31.0, 30), "slow")
    on.end(slow.id, "it was withdrawn")
    assert begun(on, EAST, WEST).worker is WEST


def test_one_that_never_began_is_not_waited_for() -> None:
    on = board()
    (attempt,) = on.start([EAST], 0)
    assert on.idle(29, 30) == []
    on.withdraw([each.id for each in on.idle(31, 30)], "it did not begin")
    on.leases.grant(attempt.id, 1, 31)  # nor may it begin now
    assert on.expire(31) == [attempt.id]
    assert not on.leases.began(attempt.id)


def test_one_that_stopped_asking_is_over_when_its_lease_is() -> None:
    on = board()
    attempt = begun(on, EAST)
    assert on.silent(OVER - 0.1) == []
    assert on.silent(OVER) == [attempt.id]


def test_after_its_tries_a_shard_is_given_up_with_what_went_wrong() -> None:
    on = board(tries=2)
    for worker in (EAST, WEST):
        on.end(begun(on, worker).id, "it broke")
    assert on.done
    assert [shard.why for shard in on.take_given_up()] == [("tcp://east: it broke", "tcp://west: it broke")]
    assert on.take_given_up() == []


def test_the_only_worker_there_is_may_try_again() -> None:
    on = board()
    on.end(begun(on, EAST).id, "it broke")
    assert begun(on, EAST).worker is EAST
