"""Which sets a node keeps after a change: the functions of the change-over themselves, on sets in a directory."""

from __future__ import annotations

import subprocess
from hashlib import sha256
from pathlib import Path

import pytest

from tasks.files import script
from tasks.rollback import PARTS
from tests.deploy.test_activation_steps import run
from userns import paths, rollback

FUNCTIONS = (
    "targets beside clear_beside clear_uncleared tidy "
    "saved_record recorded repaired forget_repaired keep_sets slight extend listed"
)
SET = """
cd {here}; tab=$(printf '\\t') units=/etc/systemd/system
state=$PWD/state; back=$state/undo committed=$state/committed uncleared=$state/uncleared
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
# All records from before the change have deployed/config. `{before}` is what it found there, `{now}` what it put there.
EDITED = """
mkdir deployed 2>/dev/null
record() {{ sum=$(sha256sum deployed/config); printf 'file\\t%s\\t%s\\n' "$PWD/deployed/config" "${{sum%% *}}"; }}
echo deployed >deployed/config
for file in previous/2 previous.2/2 undo/1; do record >"$state/$file"; done
echo {before} >"$back/2"
echo containerd before >"$back/3"
echo {now} >deployed/config
record >"$state/manifest"
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


CONFIG = "put $PWD/deployed/config 2"
GONE = "absent $PWD/deployed/config - directory $PWD/deployed -"
CONTAINERD = f"put {paths.INSTALLED['containerd']} 3"
OLD = ["previous containerd containerd of previous", "previous.2 containerd containerd of previous.2"]
SHIFTED = ["previous containerd containerd before", "previous.2 containerd containerd of previous"]


def after_an_edit(directory: Path, change: str, before: str, now: str) -> str:
    begin = SET.format(here=directory, containerd=paths.INSTALLED["containerd"], change=change, commit="swapping")
    return begin + EDITED.format(before=before, now=now)


@pytest.mark.parametrize(
    ("change", "before", "now", "sets"),
    [
        pytest.param(CONFIG, "broken", "deployed", OLD, id="an edit is put right, and no set goes"),
        pytest.param(GONE, "", "deployed", OLD, id="what was removed is there again, and no set goes"),
        pytest.param(f"{CONFIG} {CHECK}", "broken", "deployed", OLD, id="put right with a new check"),
        pytest.param(f"{CONTAINERD} {CONFIG}", "broken", "deployed", SHIFTED, id="put right with a new containerd"),
        pytest.param(f"{CONTAINERD} {GONE}", "", "deployed", SHIFTED, id="removed, and a new containerd"),
        pytest.param(
            f"{CONTAINERD} {CONFIG}",
            "deployed",
            "newer",
            [SHIFTED[0], "previous config deployed", SHIFTED[1], "previous.2 config deployed"],
            id="never edited, and replaced by another",
        ),
        pytest.param(
            f"{CONTAINERD} {CONFIG}",
            "broken",
            "newer",
            [SHIFTED[0], "previous config broken", SHIFTED[1], "previous.2 config broken"],
            id="edited and replaced by another: its text is gone",
        ),
    ],
)
def test_what_somebody_edited_is_in_no_set_that_ran_with_another(
    tmp_path: Path, change: str, before: str, now: str, sets: list[str]
) -> None:
    said = run(tmp_path, FUNCTIONS, after_an_edit(tmp_path, change, before, now) + "tidy" + LOOK)
    assert [line for line in said if " manifest " not in line and " check " not in line] == sets


def test_a_link_that_a_program_has_taken_the_place_of_comes_back(tmp_path: Path) -> None:
    link = 'echo deployed >packaged; ln -sf "$PWD/packaged" "$back/2"; tidy'
    said = run(tmp_path, FUNCTIONS, after_an_edit(tmp_path, CONFIG, "", "deployed") + link + LOOK)
    assert "previous config deployed" in said


@pytest.mark.parametrize("edited", [False, True])
def test_wherever_it_is_cut_the_next_run_ends_it_as_it_would_have_ended(tmp_path: Path, edited: bool) -> None:
    begin = SET.format(here=tmp_path, containerd=paths.INSTALLED["containerd"], change=CHECK, commit="swapping")
    if edited:
        begin = after_an_edit(tmp_path, f"{CONTAINERD} {CONFIG}", "broken", "deployed")
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
        [line for line in each.splitlines() if line.startswith("previous") and not (edited and " manifest " in line)]
        for each in rounds
        if "previous" in each
    ]
    assert len(ends) > 10
    assert all(each == (SHIFTED if edited else EXTENDED) for each in ends), ends


# --- what a set is brought back with -------------------------------------------------------------------------------

RUNC = paths.INSTALLED["runc"]


def digest(text: str) -> str:
    return sha256(text.encode()).hexdigest()


def node_with_a_set(root: Path, saved: dict[str, str], lies: dict[str, str], ran: dict[str, str]) -> None:
    """A node below `root` with one kept set: what was saved, what lies there now, what the set's record names."""
    state = root / paths.STATE.lstrip("/")
    (state / "previous").mkdir(parents=True)
    for path, text in lies.items():
        target = root / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
    kinds = {path: "program" if "/sbin/" in path else "file" for path in ran}
    fields = {"program": ("runc", "1.3.6"), "file": ()}
    rows = [(kinds[path], f"{root}{path}", *fields[kinds[path]], digest(text)) for path, text in ran.items()]
    record = "".join("\t".join(row) + "\n" for row in rows)
    (state / "manifest").write_text(record)
    entries = []
    for number, (path, text) in enumerate({**saved, paths.MANIFEST: record}.items()):
        (state / "previous" / str(number)).write_text(text)
        entries.append(f"put\t{root}{path}\t{number}\n")
    (state / "previous" / "restore").write_text("".join(entries))


@pytest.mark.parametrize("shell", [["dash"], ["busybox", "sh"]], ids=["dash", "busybox"])
@pytest.mark.parametrize(
    ("saved", "lies", "ran", "named", "edited", "now"),
    [
        ("old", "new", "old", True, False, True),
        ("cut", "new", "old", True, True, True),
        ("cut", "old", "old", False, False, False),  # what it ran with is what is there
        ("cut", "new", None, True, False, False),  # it had come from somebody else
        ("cut", "cut", "old", True, True, True),
    ],
)
@pytest.mark.parametrize("path", [RUNC, paths.CONFIG])
def test_a_set_is_read_with_what_its_record_says_of_it(
    tmp_path: Path,
    shell: list[str],
    path: str,
    saved: str,
    lies: str,
    ran: str | None,
    named: bool,
    edited: bool,
    now: bool,
) -> None:
    node_with_a_set(tmp_path, {path: saved}, {path: lies}, {path: ran} if ran else {})
    text = "".join(script(name) for name in PARTS)
    for place in ("/var/lib/", "/etc/containerd", "/usr/local/bin"):
        text = text.replace(f" {place}", f" {tmp_path}{place}").replace(f"={place}", f"={tmp_path}{place}")
    done = subprocess.run([*shell, "-c", text], capture_output=True, text=True, timeout=60, check=True)
    kept = rollback.read(done.stdout.splitlines())
    before = kept.sets["previous"]
    assert [each.name for each in before.entries if each.name == f"{tmp_path}{path}"] == (
        [f"{tmp_path}{path}"] if named else []
    )
    assert before.edited == ((f"{tmp_path}{path}",) if edited else ())
    assert kept.now.edited == ((f"{tmp_path}{path}",) if now and path == paths.CONFIG else ())


@pytest.mark.parametrize(
    ("path", "saved", "lies", "ran", "refused"),
    [
        (RUNC, "old", "new", "old", False),
        (RUNC, "cut", "new", "old", True),
        (RUNC, "", "new", "old", True),
        (RUNC, "cut", "cut", "old", False),  # nothing is brought in
        (RUNC, "theirs", "new", None, False),
        (paths.CONFIG, "edited", "new", "old", False),  # the node ran with it
    ],
)
def test_a_program_that_the_record_does_not_name_is_never_swapped_in(
    tmp_path: Path, path: str, saved: str, lies: str, ran: str | None, refused: bool
) -> None:
    node_with_a_set(tmp_path, {path: saved}, {path: lies}, {path: ran} if ran else {})
    calls = f"""
tab=$(printf '\\t') state={tmp_path}{paths.STATE} stage={tmp_path} mark={tmp_path}/none needs_no_tasks=no
sum=$(sha256sum "$state/previous/restore")
printf 'rollback\\tprevious\\t%s\\n' "${{sum%% *}}" >"$stage/actions"
sed "s/^/back$tab/" "$state/previous/restore" >>"$stage/actions"
take_lock() {{ :; }}
note_dependents() {{ :; }}
tidy() {{ :; }}
die() {{ echo "error: $*"; exit; }}
save_for_rollback() {{ echo goes on; exit; }}
roll_back
"""
    (said,) = run(tmp_path, "saved_record recorded back_lines refuse_damaged roll_back", calls)
    assert said.startswith(f"error: {tmp_path}{paths.STATE}/previous/0 is not the ") if refused else said == "goes on"
