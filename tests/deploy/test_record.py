"""The record of a change, and the list of what is saved, where a program cannot start: nothing of them gets lost.

As on a node that has no processes left (tests/faults: no-processes), where any step may be the one that fails.
"""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import pytest

from tests.deploy.test_activation_steps import run

FAILS = "exit 1"


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A record of a program and of a file, and both."""
    state = tmp_path / "state"
    state.mkdir()
    (tmp_path / "program").write_text("a program")
    digest = sha256(b"a program").hexdigest()
    program = f"program\t{tmp_path}/program\trunc\t1.3.6\t{digest}\t0\t0\t0\t0\tan asset"
    (state / "manifest").write_text(f"file\t/etc/containerd/config.toml\tsum\n{program}\n")
    return state


def unstamped(record: str) -> list[list[str]]:
    """Its lines without what stat says of a program."""
    return [line.split("\t")[:5] for line in record.splitlines()]


def refresh(state: Path, **programs: str) -> str:
    """The record after it was refreshed."""
    calls = f"tab=$(printf '\\t') state={state}\nrefresh_manifest 2>/dev/null || :"
    run(state.parent, "refresh_manifest record_digested settle sync", f'whose_sync=""\n{calls}', **programs)
    return (state / "manifest").read_text()


def test_a_record_gets_what_stat_says_now(state: Path) -> None:
    before = (state / "manifest").read_text()
    after = refresh(state)
    assert unstamped(after) == unstamped(before)
    assert after.splitlines()[1].split("\t")[5:7] == ["9", str((state.parent / "program").stat().st_ino)]
    assert after.splitlines()[1].endswith("\tan asset")


@pytest.mark.parametrize("program", ["stat", "sha256sum", "tr", "sync", "mv"])
def test_a_record_stays_whole_where_a_program_does_not_start(state: Path, program: str) -> None:
    before = (state / "manifest").read_text()
    after = refresh(state, **{program: FAILS})
    assert unstamped(after) == unstamped(before)


def test_what_was_saved_before_a_cut_is_not_replaced_where_its_list_is_not_read(tmp_path: Path) -> None:
    saving = tmp_path / "undo"
    saving.mkdir()
    (saving / "1").write_text("good")
    (saving / "restore").write_text(f"put\t{tmp_path}/config.toml\t1\n")
    (tmp_path / "config.toml").write_text("bad")
    places = f"tab=$(printf '\\t') saving={saving} list={saving}/restore number=1"
    calls = f"{places}\nsave {tmp_path}/config.toml || echo given up"
    assert run(tmp_path, "save note targets", calls, awk=FAILS) == ["given up"]
    assert (saving / "restore").read_text() == f"put\t{tmp_path}/config.toml\t1\n"


def test_what_lies_beside_targets_is_not_called_removed_where_their_list_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "restore").write_text(f"put\t{tmp_path}/t\t1\n")
    calls = f"drop_beside {tmp_path}/restore old new && echo removed"
    assert run(tmp_path, "drop_beside targets beside", f"{calls} || :", awk=FAILS) == []
