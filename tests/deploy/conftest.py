"""What the tests of the node script ask for: each shell that has to run it, root, and a tree to read."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.conftest import unavailable
from tests.deploy.node_trees import EVERYDAY, ROOT, Tree

SHELLS = {"sh": ["sh"], "dash": ["dash"], "busybox": ["busybox", "sh"], "bash": ["bash", "--posix"]}


@pytest.fixture(params=sorted(SHELLS))
def shell(request: pytest.FixtureRequest) -> list[str]:
    command = SHELLS[request.param]
    if shutil.which(command[0]) is None:
        unavailable(f"{command[0]} is not installed")
    return command


@pytest.fixture
def as_root() -> None:
    if not ROOT:
        unavailable("only root can make mounts and give files away")


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    (tmp_path / "root").mkdir()
    (tmp_path / "programs").mkdir()
    made = Tree(tmp_path / "root", tmp_path / "programs")
    made.only(*EVERYDAY)
    made.program("systemd-detect-virt", "echo none; exit 1")
    made.program("perl", "exit 1")  # what the kernel says is no matter of a tree
    return made
