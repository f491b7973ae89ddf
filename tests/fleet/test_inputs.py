"""What an apply was decided by: where that is otherwise by now, what is done is done again, and no wave follows."""

from __future__ import annotations

from pathlib import Path

import pytest

from fleet.records import Status
from tests.fleet.rollouts import Played


@pytest.fixture
def played(tmp_path: Path) -> Played:
    """Nodes of an inventory that imports a version."""
    (tmp_path / "hosts.py").write_text("from common import VERSION\nnodes = []\n")
    (tmp_path / "common.py").write_text("VERSION = '2.3.4'\n")
    return Played(tmp_path)


def test_a_resumed_run_reads_every_node_again_where_what_its_inventory_imports_has_changed(
    played: Played, capsys: pytest.CaptureFixture[str]
) -> None:
    played.becomes = {"n2": Status.FAILED}
    assert played(max_unavailable="1") == 1
    assert played.done == {"n1"}
    (played.directory / "common.py").write_text("VERSION = '2.3.7'\n")
    played.becomes, played.done = {}, set()  # with that, each has something to change
    assert played(resume=True) == 0
    assert "run 1 was made with another inventory or other code: every node is read again" in capsys.readouterr().err
    assert played.done == {"n1", "n2", "n3"}


def test_no_wave_follows_where_it_changes_between_two(played: Played, capsys: pytest.CaptureFixture[str]) -> None:
    played.becomes = {"n1": lambda: (played.directory / "common.py").unlink()}
    assert played(max_unavailable="1") == 1
    assert played.done == {"n1"}
    assert "changed since the plan: --resume plans anew" in capsys.readouterr().out
