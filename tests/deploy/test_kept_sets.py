"""Which sets a node keeps after a change: the functions of the change-over themselves, on sets in a directory."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.deploy.test_activation_steps import run
from userns import paths

FUNCTIONS = "targets beside tidy keep_sets slight extend listed"
SET = """
cd {here}; tab=$(printf '\\t') units=/etc/systemd/system
state=$PWD/state; back=$state/undo committed=$state/committed
drop_beside() {{ :; }}
rm -rf "$state"
for set in previous previous.2; do
    mkdir -p "$state/$set"
    echo "containerd of $set" >"$state/$set/1"
    echo "record of $set" >"$state/$set/2"
    printf 'put\\t%s\\t%s\\n' {containerd} 1 "$state/manifest" 2 >"$state/$set/restore"
done
mkdir "$back"
echo "record before" >"$back/1"
echo "before" >"$back/2"
printf '%s\\t%s\\t%s\\n' active containerd.service - healthy containerd.service - \\
    put "$state/manifest" 1 {change} >"$back/restore"
echo {commit} >"$committed"
"""
LOOK = """
for set in "$state"/*; do
    [ ! -d "$set" ] || while IFS="$tab" read -r kind name detail; do
        [ "$kind" != put ] || echo "${set##*/} ${name##*/} $(cat "$set/$detail")"
        [ "$kind" != absent ] || echo "${set##*/} ${name##*/} none"
    done <"$set/restore"
done
"""
# Ends the shell at the step of this number, as a power cut does.
CUT = """
step() { count=$(($(cat count) + 1)); echo $count >count; [ $count != "$at" ] || exit 1; }
rm() { step; command rm "$@"; }
mv() { step; command mv "$@"; }
cp() { step; command cp "$@"; }
ln() { step; command ln "$@"; }
grep() { step; command grep "$@"; }
sync() { step; }
"""
CHECK = f"put {paths.CHECK} 2"
EXTENDED = [
    f"{each} {what}"
    for each in ("previous", "previous.2")
    for what in (f"containerd containerd of {each}", f"manifest record of {each}", "check before")
]


def kept(directory: Path, change: str, calls: str = "tidy", commit: str = "swapping") -> list[str]:
    """What of which set lies there after a commit of this change."""
    begin = SET.format(here=directory, containerd=paths.INSTALLED["containerd"], change=change, commit=commit)
    return run(directory, FUNCTIONS, begin + calls + LOOK)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (CHECK, "check before"),
        (f"absent {paths.CHECK} - directory {paths.LIBEXEC} -", "check none"),
        (f"put {paths.CHECK_UNIT} 2", f"{Path(paths.CHECK_UNIT).name} before"),
        (f"user kubelet - put {paths.SUBUID} 2 put {paths.SUBGID} 2", "subgid before"),
        (f"absent {paths.SYSCTL} -", f"{Path(paths.SYSCTL).name} none"),
    ],
)
def test_a_change_of_the_check_alone_makes_no_set_go(tmp_path: Path, change: str, told: str) -> None:
    sets = kept(tmp_path, change)
    for name in ("previous", "previous.2"):
        assert f"{name} containerd containerd of {name}" in sets
        assert f"{name} manifest record of {name}" in sets
        assert f"{name} {told}" in sets


@pytest.mark.parametrize(
    ("change", "commit"),
    [
        (f"{CHECK} put {paths.CONFIG} 2", "swapping"),
        (f"{CHECK} disabled userns-node-check.service -", "swapping"),
        (f"{CHECK} package containerd 2.1.9-1", "swapping"),
        (f"{CHECK} unhold containerd -", "swapping"),
        (f"{CHECK} keep {paths.MODPROBE} -", "swapping"),
        (CHECK, "rollback previous.2"),
    ],
)
def test_any_other_change_takes_the_first_place(tmp_path: Path, change: str, commit: str) -> None:
    sets = kept(tmp_path, change, commit=commit)
    assert "previous manifest record before" in sets
    assert "previous.2 containerd containerd of previous" in sets
    assert "previous.2 check before" in sets


def test_without_another_set_that_of_the_check_is_kept(tmp_path: Path) -> None:
    sets = kept(tmp_path, CHECK, 'rm -r "$state/previous" "$state/previous.2"; tidy')
    assert sets == ["previous manifest record before", "previous check before"]


def test_a_set_that_cannot_learn_of_it_makes_room_for_what_was_saved(tmp_path: Path) -> None:
    """As where no space is left: half of it would come back as a mixture."""
    calls = 'cp() { case $2 in "$state/previous/"*) return 1 ;; esac; command cp "$@"; }; tidy'
    sets = kept(tmp_path, CHECK, calls)
    assert sets == ["previous manifest record before", "previous check before", *EXTENDED[3:]]


def test_wherever_it_is_cut_the_next_run_ends_it_as_it_would_have_ended(tmp_path: Path) -> None:
    begin = SET.format(here=tmp_path, containerd=paths.INSTALLED["containerd"], change=CHECK, commit="swapping")
    loop = f"""
at=1
while :; do
    {begin}
    echo 0 >count
    if ({CUT} tidy); then break; fi
    tidy
    {LOOK}
    echo "cut at $at"
    at=$((at + 1))
done
echo whole
"""
    said = run(tmp_path, FUNCTIONS, loop)
    assert said[-1] == "whole"
    rounds = "\n".join(said[:-1]).split("cut at ")
    ends = [
        [line for line in each.splitlines() if line.startswith("previous")] for each in rounds if "previous" in each
    ]
    assert len(ends) > 20
    assert all(each == EXTENDED for each in ends), ends
