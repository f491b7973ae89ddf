"""What a node that pulls fetches: nothing that was left, or that somebody can push (but one), stops it for good."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from string import ascii_letters

import pytest

from tests.unit.pull_place import BRANCH, MEBIBYTE, TAG, Node, Repository, make_node


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return make_node(tmp_path)


def kept(node: Node) -> int:
    """The size of all that was fetched."""
    return sum(path.stat().st_size for path in node.state.glob("*.git/**/*") if path.is_file())


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


def test_a_fetch_that_git_rejects_and_calls_well_is_none(node: Node, tmp_path: Path) -> None:
    node.repository.release()
    first = node.repository.release()
    assert node.pull().returncode == 0
    before, size = node.status["converged"], kept(node)
    node.repository.release()
    # A mirror with a part of the history: git does not take the tag from it, and ends with 0.
    mirror = tmp_path / "mirror"
    node.repository.git("clone", "--quiet", "--bare", "--depth=1", node.repository.home.as_uri(), str(mirror))
    node.repository.git("push", "--quiet", str(mirror), TAG)
    done = node.pull(PULL_REPOSITORY=mirror.as_uri())
    assert done.returncode == 3, done.stdout + done.stderr
    assert (node.status["result"], node.status["converged"]) == ("unreachable", before)
    assert before["commit"] == first
    # Nor does what it has brought pile up.
    assert kept(node) == size


def test_what_was_accepted_is_not_fetched_again(node: Node, tmp_path: Path) -> None:
    (node.repository.home / "large").write_bytes(os.urandom(2 * MEBIBYTE))
    node.repository.release()
    assert node.pull().returncode == 0
    node.repository.home.rename(tmp_path / "away")
    assert node.pull().returncode == 3
    (tmp_path / "away").rename(node.repository.home)
    for _ in range(2):
        node.repository.release()
        assert node.pull(PULL_MEBIBYTES="1").returncode == 0
        assert node.pull(PULL_MEBIBYTES="1").returncode == 0
    # One pack, whatever came: nothing piles up.
    assert len(list((node.state / "repository.git").rglob("*.pack"))) == 1


def push_a_large_file(repository: Repository, mebibytes: int) -> None:
    """By somebody who cannot sign."""
    (repository.home / "large").write_bytes(os.urandom(mebibytes * MEBIBYTE))
    repository.commit(sign=False)


@pytest.mark.parametrize("before", [False, True], ids=["on a fresh node", "on a node that has run one"])
def test_nothing_of_what_was_refused_is_kept(node: Node, before: bool) -> None:
    first = node.repository.release()
    if before:
        assert node.pull(PULL_REF=BRANCH).returncode == 0
    accepted = kept(node)
    push_a_large_file(node.repository, 2)
    assert node.pull(PULL_REF=BRANCH).returncode == 4
    assert kept(node) == accepted
    # And it finds its way back.
    node.repository.git("reset", "--quiet", "--hard", first)
    assert node.pull(PULL_REF=BRANCH).returncode == 0


def test_a_fetch_has_a_limit_and_leaves_nothing_half(node: Node) -> None:
    first = node.repository.release()
    assert node.pull(PULL_REF=BRANCH).returncode == 0
    before = kept(node)
    push_a_large_file(node.repository, 2)
    done = node.pull(PULL_REF=BRANCH, PULL_MEBIBYTES="1")
    assert (done.returncode, "File too large" in done.stderr) == (3, True), done.stderr
    assert "it brought PULL_MEBIBYTES=1 or more" in node.status["message"]
    assert kept(node) == before
    node.repository.git("reset", "--quiet", "--hard", first)
    assert node.pull(PULL_REF=BRANCH, PULL_MEBIBYTES="1").returncode == 0


def test_many_small_files_are_measured_as_one(node: Node) -> None:
    node.repository.release()
    for number in range(4):
        (node.repository.home / f"file-{number}").write_bytes(os.urandom(MEBIBYTE // 2))
    node.repository.release()
    assert node.pull(PULL_MEBIBYTES="1").returncode == 3
    assert kept(node) == 0
    assert node.pull(PULL_MEBIBYTES="3").returncode == 0


def test_half_a_pack_of_a_run_that_was_killed_goes(node: Node) -> None:
    node.repository.release()
    assert node.pull().returncode == 0
    half = node.state / "incoming.git/objects/pack/tmp_pack_AbCdEf"
    half.parent.mkdir(parents=True)
    half.touch()
    assert node.pull().returncode == 0
    assert not half.exists()


def test_a_copy_that_lacks_a_file_of_what_was_accepted_is_made_anew(node: Node) -> None:
    node.repository.release()
    assert node.pull().returncode == 0
    # The commit is there, so the other side is asked for nothing.
    (pack,) = (node.state / "repository.git").rglob("*.pack")
    text = pack.read_bytes()
    for path in pack.parent.iterdir():
        path.unlink()
    subprocess.run(["git", f"--git-dir={node.state}/repository.git", "unpack-objects", "-q"], input=text, check=True)
    file = node.repository.git("rev-parse", "HEAD:version")
    (node.state / "repository.git/objects" / file[:2] / file[2:]).unlink()
    assert node.pull().returncode == 1
    assert node.pull().returncode == 0
    assert node.ran == ["1", "1"]


@pytest.mark.parametrize("ref", [TAG, BRANCH])
def test_a_fresh_node_runs_nothing_older_than_it_is_told(node: Node, ref: str) -> None:
    first = node.repository.release()
    second = node.repository.release()
    node.repository.git("reset", "--quiet", "--hard", first)
    node.repository.tag()
    done = node.pull(PULL_REF=ref, PULL_SINCE=second)
    assert (done.returncode, node.ran) == (4, [])
    assert f"does not follow {second}, PULL_SINCE" in node.status["message"]
    node.repository.git("reset", "--quiet", "--hard", second)
    node.repository.tag()
    assert node.pull(PULL_REF=ref, PULL_SINCE=second).returncode == 0
    # From here on what ran last counts too.
    third = node.repository.release()
    assert node.pull(PULL_REF=ref, PULL_SINCE=second).returncode == 0
    node.repository.git("reset", "--quiet", "--hard", second)
    node.repository.tag()
    assert node.pull(PULL_REF=ref, PULL_SINCE=second).returncode == 4
    assert f"does not follow {third}, which ran last" in node.status["message"]


@pytest.mark.parametrize("ref", [TAG, BRANCH])
def test_what_a_node_is_told_later_holds_also_after_something_older_ran(node: Node, ref: str) -> None:
    first, second, third = (node.repository.release() for _ in range(3))
    for commit in (first, second):
        node.repository.git("reset", "--quiet", "--hard", commit)
        node.repository.tag()
        if commit == first:
            assert node.pull(PULL_REF=ref).returncode == 0
        # It is or follows what ran last, and has the hole that the third closed.
        assert node.pull(PULL_REF=ref, PULL_SINCE=third).returncode == 4
        assert f"does not follow {third}, PULL_SINCE" in node.status["message"]
    node.repository.git("reset", "--quiet", "--hard", third)
    node.repository.tag()
    assert node.pull(PULL_REF=ref, PULL_SINCE=third).returncode == 0
    assert node.ran == ["1", "3"]


def twin_of(repository: Repository, kind: str, name: str) -> str:
    """The same, but for where the lines of its signature end, which is not signed: by somebody without a key."""
    text = repository.git("cat-file", kind, name)
    head, begin, rest = text.partition("-----BEGIN SSH SIGNATURE-----\n")
    signature, end, tail = rest.partition("-----END SSH SIGNATURE-----")
    indent = signature[0].strip(ascii_letters)  # a commit's is within a header
    letters = "".join(signature.split())
    lines = "".join(f"{indent}{letters[at : at + 50]}\n" for at in range(0, len(letters), 50))
    twin = f"{head}{begin}{lines}{indent}{end}{tail}\n"
    return repository.git("hash-object", "-t", kind, "-w", "--stdin", input=twin)


def test_who_can_push_a_branch_can_wedge_nodes_and_how_they_get_out_of_it(node: Node) -> None:
    """As docs/how-to/pull.md says; what is signed is all that is run."""
    node.repository.release()
    assert node.pull(PULL_REF=BRANCH).returncode == 0
    real = node.repository.commit()
    twin = twin_of(node.repository, "commit", "HEAD")
    assert twin != real
    node.repository.git("update-ref", BRANCH, twin)
    assert node.pull(PULL_REF=BRANCH).returncode == 0
    assert node.status["converged"]["commit"] == twin
    node.repository.git("update-ref", BRANCH, real)
    assert node.pull(PULL_REF=BRANCH).returncode == 4
    assert f"does not follow {twin}, which ran last" in node.status["message"]
    (node.state / "accepted").unlink()
    assert node.pull(PULL_REF=BRANCH).returncode == 0
    assert node.status["converged"]["commit"] == real


def test_who_can_push_a_tag_cannot(node: Node) -> None:
    commit = node.repository.release()
    real = node.repository.git("rev-parse", TAG)
    twin = twin_of(node.repository, "tag", TAG)
    # Which commit it is is signed.
    for tag in (twin, real):
        node.repository.git("update-ref", TAG, tag)
        assert node.pull().returncode == 0
        assert node.status["converged"]["commit"] == commit
    assert twin != real


# --- what PULL_SINCE names --------------------------------------------------------------------------------------------


def test_the_hash_of_a_tag_is_refused_before_a_new_tag_takes_its_place(node: Node) -> None:
    """A new release leaves no trace of the tag before it, so that nothing would follow it."""
    node.repository.release()
    tag = node.repository.git("rev-parse", TAG)
    assert node.pull(PULL_SINCE=tag).returncode == 2
    assert (node.status["result"], node.ran) == ("unusable", [])
    assert f"PULL_SINCE={tag} is a tag and no commit" in node.status["message"]
    assert "git rev-parse 'production^{commit}' prints" in node.status["message"]
    node.repository.release()
    assert node.pull(PULL_SINCE=tag).returncode == 4
    assert f"does not follow {tag}, PULL_SINCE, and its history has no such commit" in node.status["message"]


def test_a_commit_that_the_repository_does_not_have_is_told(node: Node) -> None:
    commit = node.repository.release()
    assert node.pull(PULL_SINCE="a" * 40).returncode == 4
    assert node.status["message"] == (
        f"{commit} ({TAG}) does not follow {'a' * 40}, PULL_SINCE, and its history has no such commit: "
        "nothing of it was run"
    )


def test_a_git_that_cannot_tell_the_order_refuses_nothing_for_good(node: Node) -> None:
    first = node.repository.release()
    node.repository.release()
    (node.home / "bin/git").write_text(
        f'#!/bin/sh\ncase $* in *merge-base*) exit 128 ;; esac\nexec {shutil.which("git")} "$@"\n'
    )
    (node.home / "bin/git").chmod(0o755)
    assert node.pull(PULL_SINCE=first).returncode == 1
    assert node.status["message"].startswith(f"git could not tell whether {node.repository.git('rev-parse', 'HEAD')}")
    (node.home / "bin/git").unlink()
    assert node.pull(PULL_SINCE=first).returncode == 0


# --- the kind of hashes -----------------------------------------------------------------------------------------------


def test_a_git_whose_new_repositories_have_other_hashes_pulls(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """As git 3's have by default."""
    node.repository.release()
    monkeypatch.setenv("GIT_DEFAULT_HASH", "sha256")
    assert node.pull().returncode == 0
    node.repository.release()
    assert node.pull().returncode == 0


def test_a_repository_with_other_hashes_is_not_fetched(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """As docs/how-to/pull.md says."""
    shutil.rmtree(node.repository.home)
    monkeypatch.setenv("GIT_DEFAULT_HASH", "sha256")
    node.repository.create()
    node.repository.release()
    done = node.pull()
    assert (done.returncode, "mismatched algorithms" in done.stderr) == (3, True), done.stderr
