"""What a wave did not begin on is never said to be in flight, and has its pods back."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from fleet.child import BrokenOff, CannotRun
from fleet.history import History
from fleet.outcome import IN_FLIGHT
from fleet.records import Status
from tests.fleet.rollouts import Played


@pytest.fixture
def played(tmp_path: Path) -> Played:
    return Played(tmp_path)


def statuses(played: Played) -> dict[str, Status]:
    return {name: each.status for name, each in played.records().items()}


def test_a_node_that_left_the_inventory_meanwhile_is_not_in_flight(played: Played) -> None:
    played.becomes = {"n1": lambda: setattr(played, "names", ("n1", "n2"))}
    assert played() == 1
    assert statuses(played) == {"n1": Status.CHANGED, "n2": Status.CHANGED, "n3": Status.FAILED}
    assert played.records()["n3"].reasons == ("nothing was changed: the inventory has it no more",)
    assert played.cordoned == set()
    assert not played.records()["n3"].drained


@pytest.mark.parametrize(
    "error",
    [OSError(11, "Resource temporarily unavailable"), CannotRun("no such inventory"), BrokenOff("killed")],
    ids=lambda each: type(each).__name__,
)
def test_where_pyinfra_does_not_come_to_the_nodes_they_wait_with_their_pods(
    played: Played, capsys: pytest.CaptureFixture[str], error: Exception
) -> None:
    def fails() -> None:
        raise error

    played.becomes = {"n1": lambda: setattr(played, "loading", fails)}
    assert played() == 1
    assert statuses(played) == {"n1": Status.CHANGED, "n2": Status.WAITING, "n3": Status.WAITING}
    assert played.cordoned == set()
    told = capsys.readouterr()
    assert f"stopped: {error}" in told.out
    assert IN_FLIGHT not in told.out
    assert "go on with the same command and --resume" in told.err
    played.becomes, played.loading = {}, lambda: None
    assert played(resume=True) == 0


def test_but_what_it_came_to_is_in_flight(played: Played) -> None:
    played.becomes = {"n3": OSError("no pipe any more")}
    assert played() == 1
    assert statuses(played) == {"n1": Status.CHANGED, "n2": Status.CHANGED, "n3": Status.UNKNOWN}
    assert played.records()["n3"].reasons[:2] == (IN_FLIGHT, "no pipe any more")
    assert played.cordoned == {"n3"}


def test_a_wave_that_cannot_be_written_down_is_not_begun(
    played: Played, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(History, "in_flight", full)
    assert played() == 1
    told = capsys.readouterr().out
    assert told.endswith("stopped: database or disk is full\n3 nodes: 3 waiting\n")
    assert IN_FLIGHT not in told
    assert {*statuses(played).values()} == {Status.WAITING}
    assert played.cordoned == set()
