"""What a rollout is to go by is looked at before any node is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fleet.child import CannotRun
from fleet.records import Status
from tests.fleet.rollouts import Played

SLIPS: tuple[tuple[dict[str, Any], str], ...] = (
    ({"max_unavailable": "10 %"}, "max_unavailable of all: '10 %' is no number of nodes"),
    ({"canary": "n9"}, "--canary n9: no node of this run has this name or is in a group of this name"),
)


@pytest.fixture
def played(tmp_path: Path) -> Played:
    (tmp_path / "hosts.py").write_text("nodes = []\n")
    return Played(tmp_path)


@pytest.mark.parametrize(("given", "said"), SLIPS)
def test_a_slip_in_the_command_line_is_told_before_any_node_is_read(
    played: Played, given: dict[str, Any], said: str
) -> None:
    played.reading = AssertionError("they were read")
    with pytest.raises(CannotRun, match=said):
        played(**given)
    assert played.records() == {}


@pytest.mark.parametrize(("given", "said"), SLIPS)
def test_also_by_who_goes_on(played: Played, given: dict[str, Any], said: str) -> None:
    played.becomes = {"n1": Status.FAILED}
    assert played() == 1
    played.reading = AssertionError("they were read")
    with pytest.raises(CannotRun, match=said):
        played(resume=True, **given)


def test_a_canary_is_a_node_or_a_group_of_the_run(played: Played) -> None:
    assert played(canary="all") == 0
    assert played.plan() == 0
    with pytest.raises(CannotRun, match="--canary n1: no node of this run"):
        played(exclude=("n1",), canary="n1")
