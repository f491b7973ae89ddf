"""An inventory is known by its name, behind a link too; one that has moved is no reason to forget a drained node."""

from __future__ import annotations

from pathlib import Path

import pytest

from fleet.child import CannotRun
from fleet.history import History
from fleet.records import Record, Status
from tests.fleet.rollouts import Played


@pytest.fixture
def played(tmp_path: Path) -> Played:
    """Two releases with an inventory each, a link to the first one, and a node that a run by the link left drained."""
    for release in ("r1", "r2"):
        (tmp_path / release).mkdir()
        (tmp_path / release / "hosts.py").write_text("workers = []\n")
    (tmp_path / "current").symlink_to("r1")
    made = Played(tmp_path, inventory="current/hosts.py", becomes={"n1": Status.FAILED})
    assert made() == 1
    assert made.cordoned == {"n1"}
    made.becomes = {}
    return made


def test_a_new_release_behind_a_link_is_the_same_inventory(played: Played) -> None:
    (played.directory / "current").unlink()
    (played.directory / "current").symlink_to("r2")
    assert played.plan() == 1
    assert played.records()["n1"].drained
    assert played(resume=True) == 0
    assert played.cordoned == set()


def test_a_node_that_was_drained_by_another_name_is_told_of_until_an_apply_has_said_so(
    played: Played, capsys: pytest.CaptureFixture[str]
) -> None:
    played.inventory = "r1/hosts.py"
    line = (
        f"n1: run 1 was to let its pods back, and did not. That was over {played.directory}/current/hosts.py, of "
        "which this run knows nothing: look whether it is cordoned (fleet.py show 1 n1), or apply to it there with "
        "--drain\n"
    )
    capsys.readouterr()
    for run in (played.plan, played.plan, played):
        run()
        assert line in capsys.readouterr().err
    played.plan()
    assert "run 1" not in capsys.readouterr().err
    played.inventory = "current/hosts.py"
    played.plan()
    assert "n1: run 1 was to let its pods back" in capsys.readouterr().err


def test_two_names_of_one_file_are_one_group(played: Played) -> None:
    other = History(played.directory / "history.db")
    run = other.begin("apply", str(played.directory / "r1/hosts.py"), {})
    other.put(run, [Record(name="n9", groups=("all",), status=Status.WAITING)])
    with pytest.raises(CannotRun, match="goes on over other nodes of all"):
        played()
    other.close()
