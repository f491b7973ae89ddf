"""What a run that goes on with an earlier one takes from it, and what it reads again."""

from __future__ import annotations

from pathlib import Path

import pytest

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
