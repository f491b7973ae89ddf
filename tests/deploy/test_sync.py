"""No `sync` of ours waits for all file systems of a node, whosever `sync` it is: a dead NFS server is one of them."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tasks.files import ROOT
from tasks.operations import ACTIVATION, activation

# What each one says of its version. That of busybox knows no such option.
UUTILS = "echo 'sync (uutils coreutils) 0.12.0'"
GNU = "echo 'sync (GNU coreutils) 9.7'"
BUSYBOX = "echo 'sync: unrecognized option' >&2; exit 1"
# What of a change has to be on the disk before the next step.
CALLS = """
chown() { :; }
mkdir -p "$state/set" "$units"; cd "$state"
saving=$state/undo.new list=$saving/restore.new stage=$state; mkdir "$saving"
echo old >"$saving/1"; ln -s /nowhere "$saving/2"; printf 'put\\t%s\\t1\\n' "$state/set/target" >"$list"
close_undo; echo new >activate.sh; begin; place_beside 644 "$state/set/target" activate.sh
bring_back "$state/set/target" "$back/1"; flush_targets "$back/restore"; forget_repaired; extend "$back"; commit
"""
NAMES = {
    *("1", "restore.new", "undo.new", "state", "userns-node-recover.service.new", "units", "multi-user.target.wants"),
    *("activate.sh.new", "activation.new", "manifest.new", ".target.userns-node-new", "set", "undo", "restore.new.new"),
}


def synced(directory: Path, version: str) -> list[list[str]]:
    """The arguments of each sync of a change."""
    program, told = directory / "bin" / "sync", directory / "told"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\n[ "$*" != --version ] || {{ {version}; exit; }}\necho "$@" >>{told}\n')
    program.chmod(0o755)
    text = activation().partition("\ncase $1 in\n    --recover)")[0].replace("\nPATH=", f"\nPATH={program.parent}:")
    text = text.replace("=/var/lib/userns-node\n", f"={directory}/state\n")
    text = text.replace("=/etc/systemd/system\n", f"={directory}/units\n")
    assert text.count(str(directory)) == 3
    done = subprocess.run(["sh", "-c", text + CALLS], capture_output=True, text=True, timeout=60, check=False)
    assert done.stderr == ""
    return [line.split() for line in told.read_text().splitlines()]


@pytest.mark.parametrize("version", [UUTILS, GNU, BUSYBOX], ids=["uutils", "gnu", "busybox"])
def test_a_change_waits_for_what_it_wrote_alone(tmp_path: Path, version: str) -> None:
    option = ["-f"] if version == UUTILS else []  # without it, this one waits for everything
    calls = synced(tmp_path, version)
    assert [each[: len(option)] for each in calls] == [option] * len(calls)
    names = [each[len(option) :] for each in calls]
    assert all(names)
    assert {name.rpartition("/")[2] for each in names for name in each} == NAMES


OTHERS = sorted(
    path
    for folder in ("tasks/scripts", "templates", "examples")
    for path in (ROOT / folder).rglob("*")
    if path.is_file() and path.name not in ACTIVATION
)


def test_outside_a_change_each_sync_of_a_name_has_the_option_itself() -> None:
    calls = {path.name: re.findall(r"(?<!-)\bsync (?:-\S+ )?[\"'$/{].*", path.read_text()) for path in OTHERS}
    assert {name for name, found in calls.items() if found} == {"put.sh", "first-boot.sh.j2", "userns-node-pull"}
    assert all(call.startswith("sync -f ") for found in calls.values() for call in found)


def test_in_a_change_no_program_calls_sync() -> None:
    assert not re.search(r"(-exec|xargs|timeout .*) sync\b", activation())  # it knows no function of the shell
