"""A history on a full disk: what of a run is written is written whole, and what was read is told all the same."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from fleet.history import History
from fleet.records import Record, Status
from tests import nodes
from tests.deploy.fleet import Fleet
from tests.fleet.runs import fleet_py

# More than sqlite-utils writes at once.
MANY = 250
RECORDS = [Record(name=f"n{number}", status=Status.READY, tier="idmapped") for number in range(MANY)]


def full(path: Path, when: str) -> None:
    """No row of a node is written any more when this is true of it."""
    with closing(sqlite3.connect(path)) as db, db:
        for what in ("insert", "update"):
            db.execute(
                f"create trigger full_{what} before {what} on nodes when {when} "
                "begin select raise(abort, 'database or disk is full'); end"
            )


@pytest.fixture
def history(tmp_path: Path) -> Iterator[History]:
    made = History(tmp_path / "userns-node/history.db")
    yield made
    made.close()


def bodies(history: History) -> int:
    with closing(sqlite3.connect(history.path)) as db:
        (count,) = db.execute("select count(*) from bodies").fetchone()
    return int(count)


def test_a_run_has_all_of_its_nodes_or_none(history: History) -> None:
    full(history.path, f"new.position = {MANY - 1}")
    run = history.begin("plan", "prod", {})
    with pytest.raises(sqlite3.Error, match="disk is full"):
        history.put(run, RECORDS)
    assert history.records(run) == []
    assert not history.run(run).knows_its_nodes
    assert bodies(history) == 0
    history.finish(run, "did not begin: full", 1)  # no transaction is left open


def test_what_became_of_a_node_is_written_with_its_body_or_not_at_all(history: History) -> None:
    run = history.begin("apply", "prod", {})
    history.put(run, RECORDS[:1])
    full(history.path, "new.status = 'changed'")
    with pytest.raises(sqlite3.Error, match="disk is full"):
        history.settle(run, Record(name="n0", status=Status.CHANGED, tier="chown"), 1)
    assert history.records(run) == RECORDS[:1]
    assert bodies(history) == 1


def test_a_plan_that_cannot_be_written_down_is_told_and_ends_with_1(tmp_path: Path, history: History) -> None:
    fleet = Fleet(tmp_path)
    fleet.add("n1", nodes.converged())
    full(history.path, "1")
    run = fleet_py("plan", fleet.inventory, "--json", home=tmp_path)
    assert (run.code, run.json["totals"]) == (1, {"ready": 1})
    assert run.stderr == f"fleet: the history {history.path}: database or disk is full\n"
    (run_,) = json.loads(fleet_py("history", "--json", home=tmp_path).stdout)
    assert (run_["outcome"], run_["totals"]) == ("broken off", {})
