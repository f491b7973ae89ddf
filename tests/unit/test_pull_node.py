"""A node that pulls says what is wrong with itself, and does not blame what it fetches or tell an older answer."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.unit.pull_place import BRANCH, TAG, Node, make_node

# All that the script needs until it knows what is missing.
FEW = "sh cat chmod date flock git mkdir mv rm sed ssh-keygen sync timeout touch tr"


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return make_node(tmp_path)


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


@pytest.mark.parametrize("version", ["1.8.3.1", "2.30.2", "2.34.1.windows.2"])
def test_a_git_that_knows_no_ssh_signatures_is_named(node: Node, version: str) -> None:
    """Debian 11's: to it, nothing is signed."""
    node.repository.release()
    (node.home / "bin/git").write_text(
        f'#!/bin/sh\n[ "$*" != version ] || exec echo "git version {version}"\nexec {shutil.which("git")} "$@"\n'
    )
    (node.home / "bin/git").chmod(0o755)
    assert node.pull().returncode == 5
    assert node.status["message"] == f"git version {version} is too old here, 2.35 is needed: nothing was changed"


@pytest.mark.parametrize("version", ["2.7.18", "3.9.2", "3.10.14+"])
def test_a_python_that_the_deploy_does_not_run_on_is_named(node: Node, version: str) -> None:
    node.repository.release()
    (node.home / "python-version").write_text(version)
    assert node.pull().returncode == 5
    assert node.status["message"] == f"Python {version} is too old here, 3.11 is needed: nothing was changed"
    (node.home / "python-version").write_text("3.11.0rc1")
    assert node.pull().returncode == 0


def test_a_python_without_venv_is_named(node: Node) -> None:
    node.repository.release()
    (node.home / "venv-code").write_text("1")
    assert node.pull().returncode == 5
    assert node.status["message"].startswith("python3 has no venv (Debian: package python3-venv)")


# --- a full disk ------------------------------------------------------------------------------------------------------

# What the script writes is given its mode right after. From the file on whose number is in `full`, no block is left: as
# with a real full disk (tests/node has one), there is a new file, and nothing in it.
CHMOD = """#!/bin/sh
case $2 in *.new) ;; *) exec "$CHMOD" "$@" ;; esac
echo x >>"$PLACE/files"
[ ! -e "$PLACE/full" ] || [ "$(wc -l <"$PLACE/files")" -lt "$(cat "$PLACE/full")" ] || {
    : >"$2"
    exit 1
}
exec "$CHMOD" "$@"
"""


def fill(node: Node, at: int) -> None:
    """The disk of the next runs is full from their write number `at` on."""
    (node.home / "bin/chmod").write_text(CHMOD.replace("$CHMOD", str(shutil.which("chmod"))))
    (node.home / "bin/chmod").chmod(0o755)
    (node.home / "files").write_text("")
    (node.home / "full").write_text(f"{at}\n")


@pytest.mark.parametrize("at", [1, 2, 3], ids=["at its begin", "after the deploy", "at its end"])
def test_on_a_full_disk_no_older_answer_says_that_all_is_well(node: Node, at: int) -> None:
    commit = node.repository.release()
    assert node.pull().returncode == 0
    fill(node, at)
    done = node.pull()
    assert done.returncode == 1, done.stdout + done.stderr
    assert list(node.state.glob("status.json*")) == []
    assert "status.json could not be written, so it is removed: is the disk full?" in done.stderr
    assert len(node.ran) == (1 if at == 1 else 2)
    (node.home / "full").unlink()
    assert node.pull().returncode == 0
    assert (node.status["result"], node.status["converged"]["commit"]) == ("converged", commit)


def test_on_a_full_disk_a_refusal_is_one(node: Node) -> None:
    node.repository.commit(sign=False)
    fill(node, 2)
    assert node.pull(PULL_REF=BRANCH).returncode == 4
    assert list(node.state.glob("status.json*")) == []


def test_a_state_that_takes_no_file_is_no_wrong_configuration(node: Node) -> None:
    node.repository.release()
    assert node.pull().returncode == 0
    (node.home / "bin/touch").write_text("#!/bin/sh\necho 'No space left on device' >&2\nexit 1\n")
    (node.home / "bin/touch").chmod(0o755)
    assert node.pull().returncode == 1
    assert not (node.state / "status.json").exists()
