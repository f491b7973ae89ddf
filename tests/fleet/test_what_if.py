"""A run with a setting from the command line says what would be: it is never taken for the state of the fleet."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from fleet.history import History, NoSuchRun
from fleet.label import last_found
from fleet.records import Record, Status
from fleet.report_run import before, reported
from tests.fleet.runs import fleet_py

READY = Record(name="n1", status=Status.READY, tier="idmapped")
REFUSED = Record(name="n1", status=Status.REFUSED, tier="unsupported", reasons=("too old",))
OTHER = {"kubernetes_version": "1.36"}


class Past:
    """A history, and runs in it as commands write them down."""

    def __init__(self, directory: Path) -> None:
        self.history = History(directory / "userns-node/history.db")

    def ran(
        self,
        *records: Record,
        kind: str = "plan",
        wave: bool = False,
        limit: str = "",
        data: Mapping[str, str] | None = None,
    ) -> int:
        options = {"data": sorted(data or ()), "limit": [limit] if limit else []}
        run = self.history.begin(kind, "prod", options, data)
        self.history.put(run, records)
        for each in records if wave else ():
            self.history.settle(run, each, 1)
        self.history.finish(run, "done", 0)
        return run

    def found(self, **data: str) -> dict[str, Status]:
        """What label goes by."""
        return {name: each.status for name, each in last_found(self.history, "prod", data).items()}

    def reported(self) -> list[int]:
        """The run that a report is on, and the newer one that it tells of."""
        return [each.id for each in reported(self.history.runs("prod")) if each]


@pytest.fixture
def past(tmp_path: Path) -> Iterator[Past]:
    made = Past(tmp_path)
    yield made
    made.history.close()


def test_a_plan_with_a_setting_of_its_own_is_no_state_of_the_fleet(past: Past, tmp_path: Path) -> None:
    first, what_if = past.ran(READY), past.ran(REFUSED, data=OTHER)
    assert past.found() == {"n1": Status.READY}
    assert past.reported() == [first, what_if]
    assert [*before(past.history.run(what_if), past.history.runs("prod"))] == []
    report = fleet_py("report", "prod", "--json", "-", home=tmp_path)
    assert report.json["totals"] == {"ready": 1}
    assert "run 2 is newer, but had --data kubernetes_version: --run 2 reports it" in report.stderr
    assert fleet_py("history", home=tmp_path).stdout.splitlines()[1].split()[4:6] == ["--data", "kubernetes_version"]


def test_label_with_the_same_setting_goes_by_it(past: Past) -> None:
    past.ran(READY)
    past.ran(REFUSED, data=OTHER)
    assert past.found(**OTHER) == {"n1": Status.REFUSED}
    for data in ({"kubernetes_version": "1.35"}, {"max_pods": "60"}):
        with pytest.raises(NoSuchRun, match="there is no run over prod with the same --data: plan one"):
            past.found(**data)


def test_what_an_apply_with_a_setting_of_its_own_has_changed_was_found(past: Past) -> None:
    past.ran(READY, READY.model_copy(update={"name": "n2"}))
    failed = READY.model_copy(update={"name": "n2", "status": Status.FAILED, "reasons": ("error: full",)})
    past.ran(failed, kind="apply", wave=True, limit="n2", data=OTHER)
    past.ran(REFUSED, kind="apply", data=OTHER)
    assert past.found() == {"n1": Status.READY, "n2": Status.FAILED}


def test_how_a_node_is_reached_is_no_what_if(past: Past) -> None:
    past.ran(READY)
    last = past.ran(REFUSED, data={"ssh_password": "hunter2", "_sudo": "True"})
    assert past.found() == {"n1": Status.REFUSED}
    assert past.reported() == [last]


def test_who_always_gives_a_setting_has_the_last_run_over_all_nodes_reported(past: Past) -> None:
    past.ran(READY, data=OTHER)
    whole, part = past.ran(READY, data=OTHER), past.ran(READY, limit="n1", data=OTHER)
    assert past.reported() == [whole, part]
