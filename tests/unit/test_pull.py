"""Nodes that pull: only what a pinned key has signed is run, never something older, and a cut at any command heals."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import time
from pathlib import Path

import pytest

from tests.unit.pull_place import BRANCH, SCRIPT, TAG, Node, Repository, make_key


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    home = tmp_path_factory.mktemp("keys")
    return {name: make_key(home / name) for name in ("release", "stranger")}


@pytest.fixture
def repository(tmp_path: Path, keys: dict[str, Path]) -> Repository:
    made = Repository(tmp_path / "repository", keys["release"])
    made.create()
    return made


@pytest.fixture
def node(tmp_path: Path, repository: Repository) -> Node:
    made = Node(tmp_path / "node", repository)
    made.create()
    return made


def refused(node: Node, done: subprocess.CompletedProcess[str], why: str) -> None:
    """Nothing of it was run, and the status says why."""
    assert done.returncode == 4, done.stdout + done.stderr
    assert (node.status["result"], node.status["exit"]) == ("refused", 4)
    assert why in node.status["message"]
    assert not (node.state / "tree").exists() or node.ran


# --- what is run ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ref", [TAG, BRANCH])
def test_a_signed_commit_is_run(node: Node, repository: Repository, ref: str) -> None:
    commit = repository.release()
    done = node.pull(PULL_REF=ref, PULL_OPTIONS="--data a=1 --data b=2")
    assert done.returncode == 0, done.stdout + done.stderr
    assert (node.home / "ran").read_text() == "1 inventories/local.py deploy.py -y --data a=1 --data b=2\n"
    status = node.status
    assert (status["result"], status["exit"], status["commit"], status["ref"]) == ("converged", 0, commit, ref)
    assert status["converged"]["commit"] == commit
    assert time.time() - 60 < status["started"] <= status["ended"] <= time.time()
    assert (node.home / "umask").read_text().strip() == "0022"


def test_everybody_may_read_the_status_and_nothing_else(node: Node, repository: Repository) -> None:
    repository.release()
    assert node.pull().returncode == 0
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in node.state.iterdir()}
    assert stat.S_IMODE(node.state.stat().st_mode) == 0o711
    assert modes["status.json"] == 0o644
    assert [name for name, mode in modes.items() if (node.state / name).is_dir() and mode & 0o077] == []


def test_it_goes_forward_and_runs_the_same_commit_again(node: Node, repository: Repository) -> None:
    repository.release()
    assert [node.pull().returncode, node.pull().returncode] == [0, 0]
    newest = repository.release()
    assert node.pull().returncode == 0
    assert node.ran == ["1", "1", "2"]
    assert (node.state / "accepted").read_text().strip() == newest


def test_a_file_that_git_bundle_made_is_a_repository_too(node: Node, repository: Repository, tmp_path: Path) -> None:
    commit = repository.release()
    bundle = tmp_path / "userns-node.bundle"
    repository.git("bundle", "create", str(bundle), TAG)
    assert node.pull(PULL_REPOSITORY=str(bundle)).returncode == 0
    assert node.status["commit"] == commit


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("before", [False, True], ids=["on a fresh node", "on a node that has run one"])
@pytest.mark.parametrize(
    ("case", "ref", "why"),
    [
        ("unsigned", BRANCH, "is not signed by a key"),
        ("stranger", BRANCH, "is not signed by a key"),
        ("stranger", TAG, "is not signed by a key"),
        ("unsigned tag", TAG, "is not signed by a key"),
        ("lightweight tag", TAG, "without a signature of its own"),
        ("another name", TAG, "is the signed tag canary under another name"),
        ("a file", TAG, "is no commit"),
        ("edited tag", TAG, "is not signed by a key"),
    ],
)
def test_what_no_pinned_key_has_signed_is_not_run(
    node: Node, repository: Repository, keys: dict[str, Path], case: str, ref: str, why: str, before: bool
) -> None:
    if before:
        repository.release()
        assert node.pull(PULL_REF=ref).returncode == 0
    ran = list(node.ran)
    match case:
        case "unsigned":
            repository.commit(sign=False)
        case "stranger":
            repository.commit(key=keys["stranger"])
            repository.tag(key=keys["stranger"])
        case "unsigned tag":
            repository.commit()
            repository.git("tag", "--force", "--annotate", "--message", "x", "production")
        case "lightweight tag":
            repository.commit()
            repository.git("tag", "--force", "--no-sign", "production")
        case "another name":
            repository.commit()
            repository.tag(name="canary")
            repository.git("update-ref", TAG, repository.git("rev-parse", "canary"))
        case "a file":
            repository.commit()
            repository.git("tag", "--force", "--sign", "--message", "x", "production", "HEAD:version")
        case "edited tag":
            first = repository.release()
            text = repository.git("cat-file", "tag", TAG)
            second = repository.commit(sign=False)
            made = repository.git("hash-object", "-t", "tag", "-w", "--stdin", input=text.replace(first, second) + "\n")
            repository.git("update-ref", TAG, made)
    refused(node, node.pull(PULL_REF=ref), why)
    assert node.ran == ran


def test_a_key_that_is_pinned_for_something_else_signs_no_commit(node: Node, repository: Repository) -> None:
    node.pin(repository.key, 'namespaces="file"')
    repository.release()
    refused(node, node.pull(), "is not signed by a key")
    node.pin(repository.key, 'namespaces="git",valid-before="20200101"')
    refused(node, node.pull(), "is not signed by a key")


def test_a_signature_of_another_kind_asks_no_keyring_of_roots(node: Node, repository: Repository) -> None:
    repository.commit(sign=False)
    text = repository.git("cat-file", "commit", "HEAD")
    signature = "gpgsig -----BEGIN PGP SIGNATURE-----\n \n aGVsbG8=\n -----END PGP SIGNATURE-----"
    head, _, rest = text.partition("\n\n")
    forged = repository.git("hash-object", "-t", "commit", "-w", "--stdin", input=f"{head}\n{signature}\n\n{rest}\n")
    repository.git("update-ref", BRANCH, forged)
    gpg = node.home / "bin/gpg"
    gpg.write_text(
        "#!/bin/sh\ncat >/dev/null\necho '[GNUPG:] NEWSIG'\necho '[GNUPG:] GOODSIG 0123456789ABCDEF Anybody'\n"
        "echo '[GNUPG:] VALIDSIG 0123456789ABCDEF0123456789ABCDEF01234567 2026-01-01 1'\n"
        "echo '[GNUPG:] TRUST_ULTIMATE 0 pgp'\n"
    )
    gpg.chmod(0o755)
    # git alone believes it.
    _, environment = node.command()
    subprocess.run(["git", "-C", str(repository.home), "verify-commit", forged], env=environment, check=True)
    refused(node, node.pull(PULL_REF=BRANCH), "is not signed by a key")


@pytest.mark.parametrize("ref", [TAG, BRANCH])
@pytest.mark.parametrize("where", ["an older commit", "a commit beside it"])
def test_what_does_not_follow_what_ran_last_is_not_run(
    node: Node, repository: Repository, ref: str, where: str
) -> None:
    first = repository.release()
    second = repository.release()
    assert node.pull(PULL_REF=ref).returncode == 0
    repository.git("reset", "--quiet", "--hard", first)
    if where == "a commit beside it":
        repository.commit()
    repository.tag()
    refused(node, node.pull(PULL_REF=ref), f"does not follow {second}, which ran last")
    assert node.ran == ["2"]
    assert node.status["converged"]["commit"] == second


def test_nor_after_its_deploy_failed_or_its_copy_of_the_repository_went(node: Node, repository: Repository) -> None:
    first = repository.release()
    repository.release()
    (node.home / "pyinfra-code").write_text("1")
    assert node.pull().returncode == 1
    repository.tag(first)
    shutil.rmtree(node.state / "repository.git")
    refused(node, node.pull(), "which ran last")


# --- what fails -------------------------------------------------------------------------------------------------------


def test_a_deploy_that_fails_is_told_and_tried_again(node: Node, repository: Repository) -> None:
    first = repository.release()
    assert node.pull().returncode == 0
    second = repository.release()
    (node.home / "pyinfra-code").write_text("1")
    assert node.pull().returncode == 1
    assert (node.status["result"], node.status["commit"]) == ("failed", second)
    assert node.status["converged"]["commit"] == first
    (node.home / "pyinfra-code").unlink()
    assert node.pull().returncode == 0
    assert node.status["converged"]["commit"] == second


@pytest.mark.parametrize("gone", ["repository", "ref"])
def test_where_nothing_can_be_fetched_nothing_is_changed(node: Node, repository: Repository, gone: str) -> None:
    commit = repository.release()
    assert node.pull().returncode == 0
    if gone == "repository":
        repository.home.rename(repository.home.with_name("away"))
    else:
        repository.git("tag", "--delete", "production")
    done = node.pull()
    assert done.returncode == 3
    assert (node.status["result"], node.status["converged"]["commit"]) == ("unreachable", commit)
    assert node.ran == ["1"]


def test_a_copy_of_the_repository_that_is_broken_is_made_anew(node: Node, repository: Repository) -> None:
    repository.release()
    assert node.pull().returncode == 0
    for path in (node.state / "repository.git/objects").rglob("*"):
        if path.is_file():
            path.chmod(0o600)
            path.write_bytes(b"")
    repository.release()
    assert node.pull().returncode == 0
    assert node.ran == ["1", "2"]


def test_the_virtual_environment_is_made_when_its_lock_file_changed(node: Node, repository: Repository) -> None:
    repository.release(packages="a")
    assert [node.pull().returncode, node.pull().returncode] == [0, 0]
    assert (node.home / "made").read_text().count("venv") == 1
    before = list(node.state.glob("venv-*"))
    repository.release(packages="b")
    (node.home / "pip-code").write_text("1")
    assert node.pull().returncode == 5
    assert node.status["result"] == "unusable"
    assert node.ran == ["1", "1"]
    # What failed does not fill a disk that may be full.
    assert list(node.state.glob("venv-*")) == before
    (node.home / "pip-code").unlink()
    assert node.pull(PULL_WHEELS="/srv/wheels of ours").returncode == 0
    assert node.ran == ["1", "1", "2"]
    last = (node.home / "pip").read_text().splitlines()[-1]
    assert "--require-hashes --no-deps --only-binary=:all: --no-index --find-links /srv/wheels of ours -r " in last
    assert len(list(node.state.glob("venv-*"))) == 1


def test_two_never_run_at_once(node: Node, repository: Repository) -> None:
    repository.release()
    assert node.pull().returncode == 0
    with (node.state / "lock").open() as lock:
        holder = subprocess.Popen(["flock", "--no-fork", str(node.state / "lock"), "sleep", "60"], stdin=lock)
        try:
            while subprocess.run(["flock", "-n", node.state / "lock", "true"], check=False).returncode == 0:
                time.sleep(0.02)
            assert node.pull().returncode == 75
        finally:
            holder.kill()
            holder.wait()
    assert node.ran == ["1"]
    assert node.status["result"] == "converged"


def test_a_lock_that_cannot_be_had_is_no_other_run(node: Node, repository: Repository) -> None:
    """Of which systemd would make a success."""
    repository.release()
    flock = node.home / "bin" / "flock"
    flock.write_text("#!/bin/sh\nexit 65\n")
    flock.chmod(0o755)
    assert node.pull().returncode == 1
    assert (node.ran, (node.state / "status.json").exists()) == ([], False)


@pytest.mark.usefixtures("signals_are_heard")
def test_one_that_is_stopped_says_so(node: Node, repository: Repository) -> None:
    repository.release()
    (node.home / "hang").touch()
    command, environment = node.command()
    running = subprocess.Popen(command, env=environment, start_new_session=True, stdout=subprocess.DEVNULL)
    while not (node.home / "hangs").exists():
        assert running.poll() is None
        time.sleep(0.02)
    assert node.status["result"] == "running"
    os.killpg(running.pid, signal.SIGTERM)
    assert running.wait(30) == 143
    assert (node.status["result"], node.status["exit"]) == ("stopped", 143)


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"PULL_REPOSITORY": ""}, "does not set PULL_REPOSITORY"),
        ({"PULL_REF": "production"}, "write it in full"),
        ({"PULL_REF": "refs/tags/a..b"}, "is no name of a ref"),
        ({"PULL_REF": "refs/tags/"}, "write it in full"),
        ({"PULL_REF": "--upload-pack=touch"}, "write it in full"),
        ({"PULL_STATE": "state"}, "absolute paths"),
        ({"PULL_SIGNERS": "/nowhere"}, "pins no key"),
        ({"PULL_SINCE": "HEAD"}, "is no commit: write it in full"),
        ({"PULL_SINCE": "abcdef0"}, "is no commit: write it in full"),
        ({"PULL_SINCE": "x" * 40}, "is no commit: write it in full"),
        ({"PULL_SINCE": "a" * 64}, "is no commit: write it in full"),
        ({"PULL_MEBIBYTES": "0"}, "no number above 0"),
        ({"PULL_MEBIBYTES": "1+1"}, "no number above 0"),
    ],
)
def test_a_configuration_that_cannot_be_used_is_refused(node: Node, settings: dict[str, str], why: str) -> None:
    done = node.pull(**settings)
    assert done.returncode == 2
    assert why in done.stderr
    assert not node.state.exists()


def test_without_a_configuration_it_says_how_it_is_called(tmp_path: Path) -> None:
    done = subprocess.run(["sh", SCRIPT, tmp_path / "none"], capture_output=True, text=True, check=False)
    assert (done.returncode, "cannot be read" in done.stderr) == (2, True)
    done = subprocess.run(["sh", SCRIPT, "a", "b"], capture_output=True, text=True, check=False)
    assert (done.returncode, "usage:" in done.stderr) == (2, True)


def test_a_name_that_json_has_to_quote(node: Node, repository: Repository) -> None:
    repository.commit()
    repository.tag(name='a"b')
    assert node.pull(PULL_REF='refs/tags/a"b').returncode == 0
    assert node.status["ref"] == 'refs/tags/a"b'


# --- what is cut ------------------------------------------------------------------------------------------------------

NEVER = 1_000_000
COMMANDS = "git touch mkdir chmod mv sync tar rm cat date sed tr cut sha256sum flock ssh-keygen"
# Counts each command that the script starts, and ends the whole of it before the one that is to be the last. Those of a
# pipeline start at once.
SHIM = """#!/bin/sh
echo x >>"$PLACE/count"
set -- "$0" "$@"
name=${0##*/}
shift
[ "$(/usr/bin/wc -l <"$PLACE/count")" -lt "$CUT" ] || kill -KILL 0
PATH=$REAL exec "$name" "$@"
"""


def cut(node: Node, at: int) -> int:
    """A run that is killed before its command number `at`; how many it began."""
    shims = node.home / "shims"
    if not shims.exists():
        shims.mkdir()
        for name in COMMANDS.split():
            (shims / name).write_text(SHIM)
            (shims / name).chmod(0o755)
        # The real one has a process group of its own, which a kill of this one would miss.
        (shims / "timeout").write_text('#!/bin/sh\nshift 3\nexec "$@"\n')
        (shims / "timeout").chmod(0o755)
    (node.home / "count").unlink(missing_ok=True)
    command, environment = node.command()
    real = environment["PATH"]
    environment |= {"PATH": f"{shims}:{real}", "REAL": real, "CUT": str(at or NEVER)}
    done = subprocess.run(
        command, env=environment, start_new_session=True, capture_output=True, check=False, timeout=60
    )
    assert done.returncode == (-signal.SIGKILL if at else 0), done.stderr
    return len((node.home / "count").read_text().splitlines())


@pytest.mark.parametrize("fresh", [True, False], ids=["first", "later"])
def test_a_run_that_is_cut_before_any_command_is_made_up_for_by_the_next(
    node: Node, repository: Repository, tmp_path: Path, fresh: bool
) -> None:
    first = repository.release(packages="a")
    if not fresh:
        assert node.pull().returncode == 0
    second = repository.release(packages="b")
    kept = tmp_path / "kept"
    shutil.copytree(node.home, kept, symlinks=True)
    commands = cut(node, 0)
    assert commands > 30
    for at in range(1, commands + 1, 4 if fresh else 1):
        shutil.rmtree(node.home)
        shutil.copytree(kept, node.home, symlinks=True)
        before = node.ran
        cut(node, at)
        # What lasts is whole.
        accepted = node.state / "accepted"
        known = accepted.read_text() if accepted.exists() else ""
        assert known in ({"", f"{second}\n"} if fresh else {f"{first}\n", f"{second}\n"}), at
        assert node.ran == before or known == f"{second}\n", at
        if (node.state / "status.json").exists():
            assert node.status["result"] in ("running", "converged"), at
        # And the next run does it all.
        done = node.pull()
        assert done.returncode == 0, (at, done.stdout, done.stderr)
        assert (node.ran[-1], node.status["result"], node.status["commit"]) == ("2", "converged", second), at
