"""The record of a change, and the list of what is saved, where a program cannot start: nothing of them gets lost.

As on a node that has no processes left (tests/faults: no-processes), where any step may be the one that fails.
"""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import pytest

from tests.conftest import program
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


# A shell that writes here-documents into files, on a disk that is full.
FULL = "trap '' XFSZ && BASH_COMPAT=5.0 && ulimit -f 0"


@pytest.mark.parametrize("shell", [["bash", "--posix"], ["sh"]])
def test_what_lies_beside_the_targets_is_removed_on_a_full_disk(tmp_path: Path, shell: list[str]) -> None:
    program(shell[0])
    (tmp_path / "restore").write_text(f"put\t{tmp_path}/a b\t1\nabsent\t{tmp_path}/c*\t-\nput\t{tmp_path}/d\t2\n")
    for name in ("a b", "c*", "d"):
        for age in ("old", "new"):
            (tmp_path / f".{name}.userns-node-{age}").touch()
    kept = tmp_path / ".c1.userns-node-old"
    kept.touch()
    calls = f"{FULL}\ndrop_beside {tmp_path}/restore old new && flush_targets {tmp_path}/restore && echo whole"
    functions = "drop_beside targets beside flush_targets sync"
    assert run(tmp_path, functions, f'whose_sync=""\n{calls}', shell=shell) == ["whole"]
    assert sorted(tmp_path.glob(".*")) == [kept]


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


# A node where no awk starts, at first. What else a change does here is said only.
UNREAD = """
clear_uncleared() {{ :; }}; clear_beside() {{ :; }}; forget_repaired() {{ :; }}; keep_sets() {{ echo kept; }}
save_service() {{ echo begun; }}
state={here} back={here}/undo committed={here}/committed mark={here}/mark
PATH={here}/no-processes:/usr/bin:/bin
{call}
PATH=/usr/bin:/bin
{call}
"""


@pytest.mark.parametrize(
    ("function", "told"), [("tidy", ["later", "kept"]), ("open_undo", ["later", "kept", "begun"])], ids=str
)
def test_a_set_is_kept_for_a_rollback_once_its_list_can_be_read_and_no_change_begins_before(
    tmp_path: Path, function: str, told: list[str]
) -> None:
    for directory in ("undo", "no-processes"):
        (tmp_path / directory).mkdir()
    (tmp_path / "undo" / "restore").write_text(f"put\t{tmp_path}/config.toml\t1\nput\t{tmp_path}/manifest\t2\n")
    (tmp_path / "committed").write_text("swapping\n")
    (tmp_path / "no-processes" / "awk").write_text(f"#!/bin/sh\n{FAILS}\n")
    (tmp_path / "no-processes" / "awk").chmod(0o755)
    calls = UNREAD.format(here=tmp_path, call=f"{function} || echo later")
    assert run(tmp_path, "open_undo tidy targets", calls) == told


@pytest.mark.parametrize("program", ["awk", "sync"])
def test_a_swap_is_not_called_durable_where_a_directory_was_not_synced(tmp_path: Path, program: str) -> None:
    (tmp_path / "restore").write_text(f"put\t{tmp_path}/one\t1\nabsent\t{tmp_path}/two\nactive\tcontainerd.service\n")
    calls = f'whose_sync=""\nflush_targets {tmp_path}/restore && echo durable'
    functions = "flush_targets targets sync"
    assert run(tmp_path, functions, f"{calls} || :", **{program: FAILS}) == []


def test_each_directory_of_a_swap_is_synced_once(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    targets = [tmp_path / "a" / "1", tmp_path / "2", tmp_path / "a" / "3", tmp_path / "was-never" / "4"]
    (tmp_path / "restore").write_text("".join(f"put\t{target}\t1\n" for target in targets))
    calls = f'sync() {{ echo "$@"; }}\nflush_targets {tmp_path}/restore && echo durable'
    assert run(tmp_path, "flush_targets targets", calls) == [f"{tmp_path}/a", f"{tmp_path}", "durable"]
