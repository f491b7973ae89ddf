"""`make demo`, as somebody who sees this project for the first time runs it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import IO

import pytest

from lab import traces
from lab.demo import INVENTORY
from lab.mirror import Mirror
from lab.paths import REPO

# Each step is bounded by itself; these are for a machine that does much else.
SECONDS = 600


def start(*arguments: str, output: IO[str]) -> subprocess.Popen[bytes]:
    """The demo in a process group of its own, as a shell has it for Ctrl-C."""
    # As a shell has it, too: a worker of pytest-xdist ignores Ctrl-C, and what it starts would inherit that.
    command = ["env", "--default-signal=INT", sys.executable, "-m", "lab.demo", *arguments]
    return subprocess.Popen(
        command, cwd=REPO, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
    )


def the_lab() -> str:
    """The id of the lab of the newest demo."""
    (host,) = json.loads(INVENTORY.read_text())["hosts"].values()
    found = re.search(r"/labs/([0-9a-f]{8})/", str(host))
    assert found
    return found[1]


@pytest.fixture(scope="module")
def shown(machine: None, mirror: Mirror, tmp_path_factory: pytest.TempPathFactory) -> str:
    """All that a whole demo printed, with what its node is built of already there."""
    path = tmp_path_factory.mktemp("demo") / "output"
    with path.open("w") as output:
        demo = start(output=output)
        try:
            code = demo.wait(SECONDS)
        finally:
            demo.terminate()
            demo.wait()
    assert code == 0, path.read_text()
    return path.read_text()


def test_the_demo_shows_the_dry_run_the_deploy_and_that_a_second_one_does_nothing(shown: str) -> None:
    steps = shown.split("\n==> ")
    dry, real, again = (next(step for step in steps if step.startswith(name)) for name in ("What", "For", "A second"))
    for text in (dry, real):
        assert "will install containerd" in text
    assert "+++ /etc/containerd/config.toml" in dry
    assert "kernel-shared" in dry
    assert "Success" in real
    assert "nothing to do" in again
    assert "will " not in again


def test_the_demo_ends_with_the_proof_and_the_tier(shown: str) -> None:
    proof = shown.split("\n==> ")[-2]
    assert "tier idmapped: " in proof
    for handler in ("runc", "crun"):
        (proven,) = re.findall(rf"{handler}: proven: (.*)", proof)
        assert "uid_map 0 65536 65536, an idmapped rootfs" in proven
        assert re.search(rf"{handler}: its / is .*lowerdir=[^,]*ovl-idmapped", proof)
    assert "tier idmapped is proven" in proof
    assert "kubectl label --overwrite node demo userns-node/tier=idmapped" in proof


def test_the_demo_leaves_the_machine_as_it_was(shown: str) -> None:
    assert "This machine is as it was" in shown.split("\n==> ")[-1]
    assert traces.left_by(the_lab()) == []


def test_ctrl_c_in_the_midst_of_the_demo_leaves_nothing(shown: str, tmp_path: Path) -> None:
    with (tmp_path / "output").open("w") as output:
        demo = start("--keep", output=output)
    try:
        end = time.monotonic() + SECONDS
        # In the real run: something is being changed on the node.
        while "==> For real" not in (said := (tmp_path / "output").read_text()) or "Starting operation" not in said:
            assert demo.poll() is None, said
            assert time.monotonic() < end, said
            time.sleep(0.1)
        lab = the_lab()
        os.killpg(demo.pid, signal.SIGINT)
        assert demo.wait(120) == 130
    finally:
        demo.terminate()
        demo.wait()
    said = (tmp_path / "output").read_text()
    assert "Traceback" not in said
    assert "This machine is as it was" in said
    assert traces.left_by(lab) == []
