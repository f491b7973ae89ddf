"""What a run that goes on with an earlier one takes from it, and what it reads again."""

from __future__ import annotations

from pathlib import Path

import pytest

from fleet.child import CannotRun
from fleet.records import Status
from tests.fleet.rollouts import Played


@pytest.fixture
def played(tmp_path: Path) -> Played:
    """Of three nodes the first is changed, and the second failed."""
    made = Played(tmp_path, becomes={"n2": Status.FAILED})
    assert made(drain=False, max_unavailable="1") == 1
    made.becomes = {}
    return made


def test_what_a_later_plan_has_refused_is_read_again(played: Played) -> None:
    played.refused = {"n1"}
    assert played.plan() == 1
    assert played(drain=False, max_unavailable="1", resume=True) == 1
    assert {name: each.status for name, each in played.records().items()} == {
        "n1": Status.REFUSED,
        "n2": Status.CHANGED,
        "n3": Status.CHANGED,
    }


def test_what_a_later_plan_has_found_well_is_not_read_again(played: Played, capsys: pytest.CaptureFixture[str]) -> None:
    assert played.plan() == 2
    assert played(drain=False, resume=True) == 0
    assert "resuming run 1: 1 nodes are done with and are not read again" in capsys.readouterr().err
    assert played.records()["n1"].status is Status.CHANGED


def test_each_of_two_runs_over_other_nodes_is_resumed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As two clusters of one inventory are rolled out side by side."""
    played, ours, theirs = Played(tmp_path, becomes={"n2": Status.FAILED}), ("n3",), ("n1", "n2")
    assert played(drain=False, exclude=ours) == 1
    played.becomes = {"n3": Status.FAILED}
    assert played(drain=False, exclude=theirs) == 1
    played.becomes = {}
    assert played.prune() == [1, 2]
    for run, exclude in ((1, ours), (2, theirs)):
        assert played(drain=False, exclude=exclude, resume=True) == 0
        assert f"resuming run {run}: {len(theirs) - run} nodes are done with" in capsys.readouterr().err
    with pytest.raises(
        CannotRun, match=r"nothing to resume: run 3, the last apply over .*hosts.py --exclude n3, is done"
    ):
        played(drain=False, exclude=ours, resume=True)


def test_a_node_that_leaves_the_inventory_while_it_is_asked_is_named(played: Played) -> None:
    """It is asked twice: for the names, and to read those that are left."""
    played.loading = lambda: setattr(played, "names", ("n1", "n2"))
    with pytest.raises(CannotRun, match="n3: the inventory named it, and no more when it was to be read"):
        played(drain=False, resume=True)


def test_a_later_run_over_some_of_its_nodes_overrules_one(tmp_path: Path) -> None:
    played = Played(tmp_path, becomes={"n2": Status.FAILED})
    assert played(drain=False, exclude=("n3",)) == 1
    assert played(drain=False, exclude=("n1",)) == 1
    assert played(drain=False, exclude=("n1", "n2"), max_failures=0) == 0
    with pytest.raises(CannotRun, match="run 2 was begun with --exclude n1, and this command has --exclude n3"):
        played(drain=False, exclude=("n3",), resume=True)
