"""What a node that pulls fetches: nothing that is left from before, or that somebody can push, keeps it from going on."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.pull_place import Node, Repository, make_key


@pytest.fixture
def node(tmp_path: Path) -> Node:
    repository = Repository(tmp_path / "repository", make_key(tmp_path / "release"))
    repository.create()
    made = Node(tmp_path / "node", repository)
    made.create()
    return made


@pytest.mark.parametrize("lock", ["refs/pulled/candidate.lock", "packed-refs.lock", "shallow.lock", "HEAD.lock"])
def test_a_lock_that_a_killed_git_left_stops_no_later_run(node: Node, lock: str) -> None:
    node.repository.release()
    assert node.pull().returncode == 0
    newest = node.repository.release()
    (node.state / "repository.git" / lock).touch()
    done = node.pull()
    assert done.returncode == 0, done.stdout + done.stderr
    assert node.status["converged"]["commit"] == newest
    assert list((node.state / "repository.git").rglob("*.lock")) == []
