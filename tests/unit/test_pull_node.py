"""A node that pulls says what is wrong with itself, and does not blame what it fetches or tell an older answer."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.unit.pull_place import BRANCH, TAG, Node, Repository, make_key

# All that the script needs until it knows what is missing.
FEW = "sh cat chmod date flock git mkdir mv rm sed ssh-keygen sync timeout tr"


@pytest.fixture
def node(tmp_path: Path) -> Node:
    repository = Repository(tmp_path / "repository", make_key(tmp_path / "release"))
    repository.create()
    made = Node(tmp_path / "node", repository)
    made.create()
    return made


# --- programs ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ref", [TAG, BRANCH])
@pytest.mark.parametrize("missing", ["git", "ssh-keygen", "timeout", "python3", "git ssh-keygen python3"])
def test_what_cloud_init_did_not_install_is_named(node: Node, missing: str, ref: str) -> None:
    node.repository.release()
    command, environment = node.command(PULL_REF=ref)
    few = node.home / "few"
    few.mkdir()
    for name in {*FEW.split(), "python3"} - set(missing.split()):
        (few / name).symlink_to(shutil.which(name, path=environment["PATH"]) or name)
    done = subprocess.run(command, env=environment | {"PATH": str(few)}, capture_output=True, text=True, check=False)
    assert done.returncode == 5, done.stdout + done.stderr
    assert node.status["result"] == "unusable"
    assert node.status["message"].startswith(f"missing here: {missing} (did cloud-init install its packages?)")
    assert node.status["message"] in done.stdout


def test_a_python_without_venv_is_named(node: Node) -> None:
    node.repository.release()
    (node.home / "venv-code").write_text("1")
    assert node.pull().returncode == 5
    assert node.status["message"].startswith("python3 has no venv (Debian: package python3-venv)")
