"""A plan beside a rollout: no alarm while that goes on, and not the last word once it has ended."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from fleet import history_commands
from fleet.history import History
from fleet.label import last_found
from fleet.records import Record, Status
from tests.fleet.rollouts import Killed, Played, killed


@pytest.fixture
def played(tmp_path: Path) -> Played:
    return Played(tmp_path)


class Beside:
    """Plans once, while a node is being drained."""

    def __init__(self, played: Played, node: str, exclude: tuple[str, ...] = ()) -> None:
        self.codes = list[int]()
        self._of, self._exclude = (("drain", node), exclude)
        self._played = played
        played.hook = self

    def __call__(self, verb: str, node: str) -> None:
        if (verb, node) == self._of and not self.codes:
            self.codes.append(self._played.plan(self._exclude))


def found(played: Played) -> Mapping[str, Record]:
    history = History(played.directory / "history.db")
    try:
        return last_found(history, str(played.directory / played.inventory), {})
    finally:
        history.close()


def reported(played: Played) -> tuple[dict[str, Any], str]:
    files = {form: played.directory / f"report.{form}" for form in ("json", "prometheus")}
    history = History(played.directory / "history.db")
    history_commands.report(history, str(played.directory / played.inventory), None, files, date(2026, 11, 28))
    history.close()
    return json.loads(files["json"].read_text()), files["prometheus"].read_text()


def test_it_is_no_alarm_and_what_the_rollout_did_is_the_last_word(
    played: Played, capsys: pytest.CaptureFixture[str]
) -> None:
    beside = Beside(played, "n1")
    assert played() == 0
    assert beside.codes == [2]
    told = capsys.readouterr()
    assert "fleet: n1: run 1 of " in told.err
    assert " goes on, and has moved its pods away\n" in told.err
    assert "and did not" not in told.out + told.err
    assert "What needs attention" not in told.out
    assert {name: each.status for name, each in found(played).items()} == dict.fromkeys(
        ("n1", "n2", "n3"), Status.CHANGED
    )
    report, metrics = reported(played)
    assert (report["run"]["run"], report["totals"], report["attention"]) == (2, {"changed": 3}, [])
    assert "what run 1, which was at work beside run 2, made of its nodes since" in capsys.readouterr().err
    assert f'userns_node_fleet_drained_nodes{{inventory="{report["run"]["inventory"]}"}} 0\n' in metrics
    played.refused = {"n2"}
    assert played.plan() == 1  # and this one is the last word again
    assert reported(played)[0]["run"]["run"] == 3
    assert found(played)["n2"].status is Status.REFUSED


def test_a_node_that_it_leaves_out_is_no_alarm_either(played: Played, capsys: pytest.CaptureFixture[str]) -> None:
    beside = Beside(played, "n1", exclude=("n1",))
    assert played() == 0
    assert beside.codes == [2]
    told = capsys.readouterr().err
    assert " goes on, and has moved its pods away\n" in told
    assert "leaves it out" not in told


def test_what_it_read_after_a_nodes_turn_counts(played: Played) -> None:
    played.becomes = {"n1": lambda: played.refused.add("n1")}
    beside = Beside(played, "n2")
    assert played() == 0
    assert beside.codes == [1]
    assert {name: each.status for name, each in found(played).items()} == {
        "n1": Status.REFUSED,
        "n2": Status.CHANGED,
        "n3": Status.CHANGED,
    }
    assert reported(played)[0]["totals"] == {"changed": 2, "refused": 1}


def test_so_it_is_with_a_rollout_over_a_part(played: Played) -> None:
    beside = Beside(played, "n1")
    assert played(exclude=("n3",)) == 0
    assert beside.codes == [2]
    assert {name: each.status for name, each in found(played).items()} == {
        "n1": Status.CHANGED,
        "n2": Status.CHANGED,
        "n3": Status.CHANGES,
    }
    assert reported(played)[0]["totals"] == {"changed": 2, "changes": 1}


def test_a_rollout_that_never_came_to_its_end_is_not_the_last_word_for_ever(
    played: Played, monkeypatch: pytest.MonkeyPatch
) -> None:
    played.becomes = {"n3": Killed()}
    Beside(played, "n1")
    killed(played, monkeypatch)
    assert {name: each.status for name, each in found(played).items()} == {
        "n1": Status.CHANGED,
        "n2": Status.CHANGED,
        "n3": Status.UNKNOWN,
    }
    assert reported(played)[0]["totals"] == {"changed": 2, "unknown": 1}
    assert played.plan() == 1  # two of them are drained still
    assert reported(played)[0]["totals"] == {"changes": 1, "ready": 2}
