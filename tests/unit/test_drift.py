"""Drift where a node could not be read in the run before: compared with what an earlier run has last read of it."""

from __future__ import annotations

from collections.abc import Iterator

from fleet.drift import between, last_read
from fleet.records import Record, Status


def read(name: str, kernel: str, status: Status = Status.READY) -> Record:
    return Record(name=name, status=status, tier="idmapped", kernel=kernel, changes=("write x",))


def unread(name: str) -> Record:
    return Record(name=name, status=Status.UNREACHABLE, reasons=("gone",))


def test_one_that_was_not_read_has_what_the_latest_earlier_run_read_and_its_own_status() -> None:
    earlier = [[unread("a")], [read("a", "6.2"), read("b", "5.0")], [read("a", "6.1")]]
    known, other = last_read([unread("a"), read("b", "6.9")], [read("a", "6.3"), read("b", "6.9")], earlier)
    assert (known.kernel, known.status, known.reasons) == ("6.2", Status.UNREACHABLE, ("gone",))
    assert other == read("b", "6.9")
    (drift,) = between([known, other], [read("a", "6.3"), read("b", "6.9")])
    assert drift.what == ("unreachable -> ready", "kernel 6.2 -> 6.3")


def test_of_one_that_was_changed_nothing_is_still_to_do() -> None:
    (known,) = last_read([unread("a")], [read("a", "6.3")], [[read("a", "6.2", Status.CHANGED)]])
    assert known.changes == ()
    (known,) = last_read([unread("a")], [read("a", "6.3")], [[read("a", "6.2", Status.CHANGES)]])
    assert known.changes == ("write x",)


def test_earlier_runs_are_read_no_further_than_it_takes() -> None:
    def runs(count: int) -> Iterator[list[Record]]:
        for _ in range(count):
            yield [read("a", "6.2")]
        raise AssertionError("one run too many was read")

    assert [each.kernel for each in last_read([unread("a")], [read("a", "6.3")], runs(1))] == ["6.2"]
    assert last_read([read("a", "6.2")], [read("a", "6.3")], runs(0)) == [read("a", "6.2")]
    # It is not read now either, so that nothing would be compared.
    assert last_read([unread("a")], [unread("a")], runs(0)) == [unread("a")]


def test_one_that_no_run_has_read_stays_as_it_is() -> None:
    assert last_read([unread("a")], [read("a", "6.3")], [[unread("a")], []]) == [unread("a")]
