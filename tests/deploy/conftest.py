"""What the tests of the node script ask for: each shell that has to run it, root, and a tree to read."""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import program, unavailable
from tests.deploy.node_trees import EVERYDAY, ROOT, Tree

SHELLS = {"sh": ["sh"], "dash": ["dash"], "busybox": ["busybox", "sh"], "bash": ["bash", "--posix"], "mksh": ["mksh"]}


@pytest.fixture(params=sorted(SHELLS))
def shell(request: pytest.FixtureRequest) -> list[str]:
    command = SHELLS[request.param]
    program(command[0])
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


@pytest.fixture
def no_trace(as_root: None, tmp_path: Path) -> Iterator[None]:
    """Nothing of a probe is left: no mount, no process, no directory. Other people's probes may run meanwhile."""
    ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER: who loses his parent becomes our child

    def traces() -> set[str]:
        mounts = [
            line
            for line in Path("/proc/self/mountinfo").read_text().splitlines()
            if str(tmp_path) in line or ".userns-node-probe." in line or "idmapped" in line
        ]
        children = Path(f"/proc/self/task/{threading.get_native_id()}/children").read_text().split()
        processes = [each for each in children if b"userns-node-probe" in _read(Path("/proc", each, "cmdline"))]
        places = [*tmp_path.rglob("*"), *Path("/tmp").glob(".*"), *Path("/var/lib").glob(".*")]
        return {*mounts, *processes, *(str(each) for each in places if each.name.startswith(".userns-node-probe."))}

    before = traces()
    yield
    deadline = time.monotonic() + 10
    while traces() - before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert traces() - before == set()


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
