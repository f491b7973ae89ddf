"""A report that is made while a rollout goes on: what is in flight is no alarm, and nothing is to be done about it."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from fleet import history_commands
from fleet.history import History
from fleet.records import Status
from tests.fleet.rollouts import Killed, Played, killed


class Reports:
    """Reports on what is played, made in the middle of it or afterwards."""

    def __init__(self, played: Played) -> None:
        self._played = played
        self.made = list[tuple[dict[str, Any], str]]()

    def __call__(self) -> None:
        directory = self._played.directory
        files = {form: directory / f"report.{form}" for form in ("html", "json", "prometheus")}
        history = History(directory / "history.db")
        history_commands.report(history, str(directory / self._played.inventory), None, files, date(2026, 11, 27))
        history.close()
        self.made.append((json.loads(files["json"].read_text()), files["prometheus"].read_text()))
        self.page = files["html"].read_text()


@pytest.fixture
def played(tmp_path: Path) -> Played:
    return Played(tmp_path)


@pytest.fixture
def report(played: Played) -> Reports:
    return Reports(played)


GOES_ON = 'userns_node_fleet_run_goes_on{inventory="%s"} %d\n'


def test_nodes_in_flight_need_no_attention(played: Played, report: Reports) -> None:
    played.becomes = {"n1": report}
    assert played() == 0
    report()
    (live, metrics), (after, metrics_after) = report.made
    inventory = live["run"]["inventory"]
    assert (live["run"]["outcome"], live["totals"], live["attention"]) == ("", {"unknown": 1, "waiting": 2}, [])
    assert GOES_ON % (inventory, 1) in metrics
    assert (after["totals"], after["attention"]) == ({"changed": 3}, [])
    assert GOES_ON % (inventory, 0) in metrics_after


def test_nodes_that_are_being_drained_need_none_either(played: Played, report: Reports) -> None:
    played.hook = lambda verb, node: report() if (verb, node) == ("drain", "n1") else None
    assert played() == 0
    ((live, _),) = report.made
    assert live["nodes"]["n1"]["drained"]
    assert live["attention"] == []
    assert "Wait for run 1: it goes on." in report.page


def test_what_failed_in_a_run_that_goes_on_needs_attention_at_once(played: Played, report: Reports) -> None:
    played.becomes = {"n2": Status.FAILED, "n3": report}
    assert played(max_failures=1) == 1
    ((live, _),) = report.made
    assert [(each["status"], each["nodes"]) for each in live["attention"]] == [("failed", ["n2"])]


def test_nodes_of_a_run_whose_process_is_gone_need_attention(
    played: Played, report: Reports, monkeypatch: pytest.MonkeyPatch
) -> None:
    played.becomes = {"n1": Killed()}
    killed(played, monkeypatch, drain=False)
    report()
    ((gone, metrics),) = report.made
    assert [(each["status"], each["nodes"]) for each in gone["attention"]] == [("unknown", ["n1"])]
    assert gone["attention"][0]["fix"].startswith("Plan for it again: what had begun on it has finished")
    assert GOES_ON % (gone["run"]["inventory"], 0) in metrics
