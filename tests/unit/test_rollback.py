"""A rollback decides from what is kept alone: what comes back, what stays, and why a node is left as it is."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from userns import paths, rollback
from userns.node import Unit
from userns.reading.records import ReadingError
from userns.rollback import PREVIOUS, PREVIOUS_2, UNDO, Entry, Kept, KeptSet

CONTAINERD, RUNC = paths.INSTALLED["containerd"], paths.INSTALLED["runc"]


def put(path: str, number: int, **changed: Any) -> Entry:
    fields: dict[str, Any] = {"state": "no", "far": False, "size": 40_000_000} | changed
    return Entry(kind="put", name=path, detail=str(number), **fields)


def line(kind: str, name: str, detail: str = "-", state: str = "no") -> Entry:
    return Entry.model_validate({"kind": kind, "name": name, "detail": detail, "state": state, "far": False, "size": 0})


def kept(*entries: Entry, then: str = "2.1.9", runs: str = "2.1.10", **changed: Any) -> Kept:
    """A node that went from one containerd to the next; `entries` beside its program."""
    before = KeptSet(
        digest="d" * 64,
        entries=(put(CONTAINERD, 1), *entries),
        programs={CONTAINERD: ("containerd", then), RUNC: ("runc", "1.3.6")},
        snapshotter="native",
    )
    fields: dict[str, Any] = {
        "manifest": "m" * 64,
        "sets": {PREVIOUS: before},
        "now": KeptSet(programs={CONTAINERD: ("containerd", runs)}, versions={CONTAINERD: runs}, starts=CONTAINERD),
        "unit": Unit(load="loaded", active="active"),
        "shims": {},
        "space": {"/var/lib/userns-node": 10**7},
    }
    return Kept(**fields | changed)


def blockers(some: Kept, wanted: str = PREVIOUS) -> set[str]:
    return {each.id for each in rollback.make(some, wanted).findings if each.severity == "blocker"}


def actions(some: Kept, wanted: str = PREVIOUS) -> list[tuple[str, ...]]:
    return list(rollback.make(some, wanted).actions)


def test_what_differs_comes_back_and_is_told_with_its_versions() -> None:
    made = rollback.make(kept(put(RUNC, 2), put(paths.CONFIG, 3), put(paths.CHECK, 4, state="yes")), PREVIOUS)
    assert made.changes == (
        f"bring back containerd 2.1.9 (now 2.1.10): {CONTAINERD}",
        f"bring back runc 1.3.6 (not there now): {RUNC}",
        f"bring back {paths.CONFIG}",
        "restart containerd.service and check its health",
    )
    assert made.actions[:2] == (("expect", "m" * 64), ("rollback", PREVIOUS, "d" * 64))
    assert ("back", "put", RUNC, "2") in made.actions
    assert not made.refused


def test_the_health_check_asks_for_the_snapshotter_that_comes_back() -> None:
    assert ("health", "/usr/local/bin/ctr", "native") in actions(kept(put(paths.CONFIG, 3)))
    assert ("health", "/usr/local/bin/ctr", "overlayfs") in actions(kept())


@pytest.mark.parametrize(
    "path", [paths.SUBUID, paths.SUBGID, paths.SYSCTL, paths.MODPROBE, paths.PRE_START, paths.UNIT_DROP_IN]
)
@pytest.mark.parametrize("kind", ["put", "absent"])
def test_what_pods_depend_on_stays(path: str, kind: str) -> None:
    done = actions(kept(line(kind, path, "7"), metacopy=True))
    assert ("stays", path) in done
    assert not any(path in fields for fields in done if fields[0] == "back")


def test_metacopy_files_come_back_where_it_was_turned_off_since() -> None:
    assert ("back", "put", paths.MODPROBE, "7") in actions(kept(put(paths.MODPROBE, 7)))


def test_a_hook_that_may_turn_metacopy_off_does_not_come_back_while_it_is_on() -> None:
    """As by the kernel's own default, for which no deploy has written anything."""
    hook = put(paths.PRE_START, 7)
    assert ("stays", paths.PRE_START) in actions(kept(hook, metacopy_live=True))
    assert ("stays", paths.PRE_START) not in actions(kept(hook))
    done = actions(kept(hook, put(paths.MODPROBE, 8), metacopy_live=True))
    assert ("stays", paths.PRE_START) not in done
    assert ("back", "put", paths.MODPROBE, "8") in done


def test_a_runtime_that_shims_call_stays_and_no_package_is_removed() -> None:
    done = actions(kept(line("absent", RUNC), line("package", "runc"), line("package", "containerd", "2.1.9-1")))
    assert ("stays", RUNC) in done
    assert ("back", "package", "containerd", "2.1.9-1") in done
    assert not any(fields[:3] == ("back", "package", "runc") for fields in done)


def test_containerd_is_never_disabled() -> None:
    done = actions(kept(line("disabled", "containerd.service"), line("disabled", "userns-node-check.service")))
    assert [fields for fields in done if "disabled" in fields] == [
        ("back", "disabled", "userns-node-check.service", "-")
    ]


def test_over_the_border_to_1_7_only_without_tasks() -> None:
    over: dict[str, Any] = {"then": "1.7.24", "runs": "2.1.9"}
    assert blockers(kept(**over, shims={"k8s.io": 1})) == {"containerd-downgrade-with-tasks"}
    assert blockers(kept(**over, shims=None)) == {"containerd-downgrade-with-tasks"}
    assert ("no-tasks",) in actions(kept(**over))
    assert ("no-tasks",) not in actions(kept(shims={"k8s.io": 1}))
    assert blockers(kept(then="2.1.9", runs="1.7.24", shims={"k8s.io": 1})) == set()


def test_to_a_containerd_of_unknown_version_only_without_tasks() -> None:
    """One that was put there by hand, kept where nothing can be run: no record has it, and it did not say it."""
    before = KeptSet(digest="d" * 64, entries=(put(CONTAINERD, 1),), versions={CONTAINERD: ""})

    def some(**changed: Any) -> Kept:
        return kept(sets={PREVIOUS: before}, **changed)

    assert blockers(some(shims={"k8s.io": 1})) == {"containerd-downgrade-with-tasks"}
    assert blockers(some(shims=None)) == {"containerd-downgrade-with-tasks"}
    assert blockers(some()) == set()
    assert ("no-tasks",) in actions(some())
    [told] = [each.message for each in rollback.make(some(shims={"k8s.io": 2}), PREVIOUS).findings]
    assert told.startswith(f"the version of the {CONTAINERD} that is to come back cannot be told: ")
    assert "2 tasks (shims in the namespace k8s.io) run here" in told
    # The shims of 1.x are nobody's trouble.
    assert blockers(some(runs="1.7.24", shims={"k8s.io": 1})) == set()
    assert ("no-tasks",) not in actions(some(runs="1.7.24"))


def test_a_kept_containerd_that_is_the_one_that_is_there_has_its_version() -> None:
    before = KeptSet(digest="d" * 64, entries=(put(CONTAINERD, 1, state="yes"), put(RUNC, 2)))
    some = kept(sets={PREVIOUS: before}, shims={"k8s.io": 1})
    assert blockers(some) == set()
    assert ("no-tasks",) not in actions(some)


def test_what_runs_counts_and_not_the_file_of_its_name() -> None:
    """A change from 1.7 that was cut before the restart: 1.7 runs, and its tasks are its own."""
    now = KeptSet(versions={CONTAINERD: "2.1.9", "running": "1.7.24"}, starts=CONTAINERD)
    some = kept(then="1.7.24", shims={"k8s.io": 1})
    cut = some.model_copy(update={"now": now, "unfinished": "swapping", "sets": {UNDO: some.sets[PREVIOUS]}})
    assert blockers(cut) == set()


def test_an_unfinished_change_goes_first() -> None:
    some = kept()
    cut = some.model_copy(update={"unfinished": "swapping", "sets": some.sets | {UNDO: some.sets[PREVIOUS]}})
    assert ("rollback", UNDO, "d" * 64) in actions(cut)
    assert not any(fields[0] == "back" for fields in actions(cut))
    both = {PREVIOUS: some.sets[PREVIOUS], PREVIOUS_2: some.sets[PREVIOUS]}
    further = some.model_copy(update={"unfinished": f"rollback {PREVIOUS_2}", "sets": both})
    assert ("rollback", PREVIOUS_2, "d" * 64) in actions(further, PREVIOUS)


def test_a_set_that_is_what_is_there_needs_nothing() -> None:
    same = KeptSet(digest="d" * 64, entries=(put(CONTAINERD, 1, state="yes"),))
    made = rollback.make(kept(sets={PREVIOUS: same}), PREVIOUS)
    assert (made.changes, made.actions, made.refused) == ((), (), False)


def test_why_a_node_is_left_as_it_is() -> None:
    assert blockers(kept(sets={})) == {"rollback-nothing-kept"}
    assert blockers(kept(), PREVIOUS_2) == {"rollback-nothing-kept"}
    assert blockers(kept(put(RUNC, 2, state="missing"))) == {"rollback-set-damaged"}
    assert blockers(kept(root=False)) == {"not-root"}
    assert blockers(kept(systemd=False)) == {"no-systemd"}
    assert blockers(kept(unit=Unit(load="masked"))) == {"containerd-masked"}
    assert blockers(kept(put(paths.UNIT, 5), unit=Unit(load="masked"))) == {"rollback-without-containerd"}
    bare = KeptSet(entries=(line("absent", CONTAINERD), line("absent", paths.UNIT)))
    assert blockers(kept(sets={PREVIOUS: bare})) == {"rollback-without-containerd"}


BRINGS, LEAVES, DAMAGED = "rollback-brings-edited", "rollback-leaves-edited", "rollback-set-damaged"


@pytest.mark.parametrize(
    ("entries", "edited", "now", "told"),
    [
        pytest.param((put(RUNC, 2),), (RUNC,), (), {DAMAGED: f"{paths.STATE}/previous/2 is not the {RUNC}"}, id="cut"),
        pytest.param((put(RUNC, 2),), (), (), {}, id="whole"),
        pytest.param((put(RUNC, 2, state="yes"),), (RUNC,), (), {}, id="the same as now: nothing is brought back"),
        pytest.param(
            (line("absent", paths.INSTALLED["ctr"]),),
            (paths.INSTALLED["ctr"],),
            (),
            {DAMAGED: f"it has no copy of {paths.INSTALLED['ctr']}"},
            id="a program that it ran with, and that was gone when it was saved",
        ),
        pytest.param(
            (line("absent", paths.CONFIG),),
            (paths.CONFIG,),
            (),
            {"rollback-stays": f"{paths.CONFIG} stays as it is"},
            id="a text that was gone when it was saved",
        ),
        pytest.param((put(paths.CONFIG, 3),), (paths.CONFIG,), (), {BRINGS: f"an edited {paths.CONFIG}"}, id="edited"),
        pytest.param((put(paths.SUBUID, 3, state="yes"),), (paths.SUBUID,), (), {}, id="edited, and stays"),
        pytest.param((), (), (paths.CONFIG,), {LEAVES: f"{paths.CONFIG} was edited or removed"}, id="edited since"),
        pytest.param((put(paths.CONFIG, 3),), (), (paths.CONFIG,), {}, id="edited since, and another one comes back"),
        pytest.param(
            (put(paths.CONFIG, 3, state="yes"),),
            (paths.CONFIG,),
            (paths.CONFIG,),
            {LEAVES: f"{paths.CONFIG} was edited"},
            id="edited as it was before",
        ),
    ],
)
def test_what_is_not_as_the_records_have_it_is_told_and_no_other_program_comes_back(
    entries: tuple[Entry, ...], edited: tuple[str, ...], now: tuple[str, ...], told: dict[str, str]
) -> None:
    programs = {CONTAINERD: ("containerd", "2.1.9"), RUNC: ("runc", "1.3.6"), paths.INSTALLED["ctr"]: ("ctr", "2.1.9")}
    some = kept(*entries)
    before = some.sets[PREVIOUS].model_copy(update={"programs": programs, "edited": edited})
    some = some.model_copy(update={"sets": {PREVIOUS: before}, "now": some.now.model_copy(update={"edited": now})})
    made = rollback.make(some, PREVIOUS)
    assert {each.id for each in made.findings} == set(told)
    assert made.refused is (DAMAGED in told)
    for each in made.findings:
        assert told[each.id] in each.message
    # In the middle of a change nothing has to be as the record has it.
    cut = some.model_copy(update={"unfinished": f"rollback {PREVIOUS}"})
    assert {each.id for each in rollback.make(cut, PREVIOUS).findings} == set(told) - {BRINGS, LEAVES}


OPT = "/opt/containerd/bin/containerd"


@pytest.mark.parametrize(
    ("unit", "command"),
    [
        (
            put(paths.UNIT, 5),
            f"cp -a --remove-destination {paths.STATE}/previous/5 {paths.UNIT}",
        ),
        (
            line("absent", paths.UNIT),  # the unit that starts it is below /usr/lib
            f"rm -f {paths.UNIT}",
        ),
    ],
)
def test_a_containerd_elsewhere_is_brought_back_by_hand_with_these_commands(unit: Entry, command: str) -> None:
    before = KeptSet(digest="d" * 64, entries=(line("absent", CONTAINERD), unit, put(paths.CONFIG, 6)), starts=OPT)
    (refusal,) = rollback.make(kept(sets={PREVIOUS: before}), PREVIOUS).findings
    assert refusal.id == "rollback-without-containerd"
    assert f"containerd.service starts {OPT}" in refusal.message
    assert refusal.lines == (
        f"{OPT} --version",
        command,
        f"cp -a --remove-destination {paths.STATE}/previous/6 {paths.CONFIG}",
        "systemctl daemon-reload",
        "systemctl restart containerd",
    )
    # Of a change that was cut off the mark would stay.
    (refusal,) = rollback.make(kept(sets={UNDO: before}, unfinished="swapping"), PREVIOUS).findings
    assert "Reboot the node" in refusal.message
    assert refusal.lines == ()


def test_space_is_needed_where_programs_have_a_file_system_of_their_own() -> None:
    little = {"/usr/local/bin": 20_000, "/var/lib/userns-node": 10**7}
    assert blockers(kept(put(RUNC, 2), space=little)) == set()
    assert blockers(kept(put(RUNC, 2, far=True), space=little)) == {"no-space"}


def test_from_a_release_back_to_the_packages_containerd() -> None:
    packaged = paths.PACKAGED["containerd"]
    before = KeptSet(
        digest="d" * 64,
        entries=(line("absent", CONTAINERD), line("absent", paths.UNIT), line("absent", RUNC)),
        starts=packaged,
    )
    now = KeptSet(versions={CONTAINERD: "2.3.4", packaged: "2.1.9"}, starts=CONTAINERD)
    made = rollback.make(kept(sets={PREVIOUS: before}, now=now), PREVIOUS)
    assert not made.refused
    assert ("health", "/usr/bin/ctr", "overlayfs") in made.actions
    gone = now.model_copy(update={"versions": {CONTAINERD: "2.3.4"}})
    assert blockers(kept(sets={PREVIOUS: before}, now=gone)) == {"rollback-without-containerd"}


@given(st.lists(st.text("\tabcdefghijklmnopqrstuvwxyz-0123456789./ ", max_size=60), max_size=12))
def test_no_answer_is_more_than_unreadable(lines: list[str]) -> None:
    words = ["entry\tprevious\tput\t/a\t1\tno\tno\tx", "set\tprevious\td"]
    for answer in (lines, ["userns-node-begin\t1", *words[1:], *lines, "userns-node-end"], [*words, *lines]):
        with suppress(ReadingError):
            rollback.make(rollback.read(answer), PREVIOUS)
