"""Single steps of the change-over that no node of the lab can show: the functions themselves, among played programs."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from tasks.operations import activation
from userns.paths import CHECK, READINESS

OK = """\
TYPE                             ID         PLATFORMS      STATUS
io.containerd.snapshotter.v1     overlayfs  linux/amd64    ok
io.containerd.snapshotter.v1     btrfs      linux/amd64    skip
io.containerd.cri.v1             runtime    linux/amd64    ok
io.containerd.grpc.v1            cri        -              ok
"""


def run(directory: Path, functions: str, calls: str, shell: Sequence[str] = ("sh",), **programs: str) -> list[str]:
    """What `calls` print with these functions of the change-over, where /boot is in `directory`."""
    found = [
        re.search(rf"^{name}\(\) {{(?: [^\n]*}}(?: #[^\n]*)?|[^\n]*\n.*?^}})$", activation(), re.M | re.S)
        for name in functions.split()
    ]
    assert all(found), functions
    texts = "\n".join(each[0] for each in found if each)
    places = directory / "bin"
    places.mkdir()
    for name, text in programs.items():
        (places / name.replace("_", "-")).write_text(f"#!/bin/sh\n{text}\n")
        (places / name.replace("_", "-")).chmod(0o755)
    text = f"newline='\n'\nsay() {{ echo \"$*\"; }}\nhas() {{ :; }}\nPATH='{places}:/usr/bin:/bin'\n{texts}\n{calls}\n"
    text = text.replace('"/boot/', f'"{directory}/boot/')
    done = subprocess.run([*shell, "-u", "-c", text], capture_output=True, text=True, timeout=60, check=True)
    assert done.stderr == ""
    return done.stdout.splitlines()


# --- the initramfs -------------------------------------------------------------------------------------------------

LISTS = "echo lib/modules/6.1/kernel/fs/overlayfs/overlay.ko"


def rebuilt(directory: Path, image: str, **programs: str) -> list[str]:
    """What is said, and then how the image was built."""
    (directory / "boot").mkdir()
    (directory / "boot" / image).touch()
    programs |= {"uname": "echo 6.1-test"}
    calls = f": >{directory}/built; rebuild_initramfs; cat {directory}/built"
    return run(directory, "rebuild_initramfs", calls, **programs)


def test_the_image_of_the_running_kernel_is_rebuilt(tmp_path: Path) -> None:
    tools = {"lsinitramfs": LISTS, "update_initramfs": f'echo "$@" >{tmp_path}/built'}
    said = rebuilt(tmp_path, "initrd.img-6.1-test", **tools)
    assert said == [f"overlay is in {tmp_path}/boot/initrd.img-6.1-test: rebuilding it", "-u -k 6.1-test"]


def test_dracut_rebuilds_the_image_that_it_made(tmp_path: Path) -> None:
    image = tmp_path / "boot" / "initramfs-6.1-test.img"
    said = rebuilt(tmp_path, image.name, lsinitrd=LISTS, dracut=f'echo "$@" >{tmp_path}/built')
    assert said == [f"overlay is in {image}: rebuilding it", f"--force {image} 6.1-test"]


def test_an_image_that_cannot_be_rebuilt_is_told(tmp_path: Path) -> None:
    said = rebuilt(tmp_path, "initrd.img-6.1-test", lsinitramfs=LISTS, update_initramfs="exit 1")
    assert said[1].startswith(f"warning: {tmp_path}/boot/initrd.img-6.1-test could not be rebuilt")


@pytest.mark.parametrize("image", ["initrd.img-6.1-test", "initrd.img-6.1-other"])
def test_an_image_without_overlay_or_of_another_kernel_is_left_alone(tmp_path: Path, image: str) -> None:
    said = rebuilt(tmp_path, image, lsinitramfs=f"case $1 in *test) ;; *) {LISTS} ;; esac", update_initramfs="false")
    assert said == []


# --- what a change leaves -------------------------------------------------------------------------------------------

LEAVES = """
state={0}/state stage={0}/state/staged/1 log= unclean="some stay"
mark=$state/activation committed=$state/committed uncleared=$state/uncleared recovery={0}/unit wanted={0}/wanted
leave; ls {0} {0}/state
"""


@pytest.mark.parametrize("stuck", [False, True])
def test_a_script_that_cannot_be_removed_keeps_the_unit_that_runs_and_removes_it(tmp_path: Path, stuck: bool) -> None:
    script = tmp_path / "state" / "activate.sh"
    (script if stuck else script.parent).mkdir(parents=True)  # what is a directory, rm -f does not remove
    for path in (tmp_path / "unit", tmp_path / "wanted", *([] if stuck else [script])):
        path.touch()
    said = run(
        tmp_path,
        "leave clear_uncleared reload_units",
        f"{{ {LEAVES.format(tmp_path)}}} 2>/dev/null",
        systemctl="echo $*",
    )
    there = ["bin", "state", "unit", "wanted"] if stuck else ["daemon-reload", "bin", "state"]
    assert [each for each in said if each and not each.endswith(":")] == [*there, *(["activate.sh"] if stuck else [])]


@pytest.mark.parametrize("fails", [False, True])
def test_what_a_commit_did_not_clear_away_is_cleared_when_it_leaves_or_by_a_boot(tmp_path: Path, fails: bool) -> None:
    (tmp_path / "state").mkdir()
    for name in ("state/activate.sh", "state/committed", "unit", "wanted"):
        (tmp_path / name).touch()
    tidy = "tidy() { false; }" if fails else 'tidy() { rm "$committed"; }'
    said = run(
        tmp_path, "leave clear_uncleared reload_units", f"{tidy}\n{LEAVES.format(tmp_path)}", systemctl="echo $*"
    )
    there = (
        ["bin", "state", "unit", "wanted", "activate.sh", "committed"] if fails else ["daemon-reload", "bin", "state"]
    )
    assert [each for each in said if each and not each.endswith(":")] == there


CLEARS = "targets beside drop_beside clear_beside clear_uncleared tidy leave reload_units refresh_manifest"


@pytest.mark.parametrize("over", ["undone", "committed", "never begun"])
def test_what_stays_beside_a_target_is_removed_by_the_next_change_or_a_boot(tmp_path: Path, over: str) -> None:
    """As where the target's file system has become one that cannot be written to."""
    state, stays = tmp_path / "state", tmp_path / "t" / ".x.userns-node-old"
    saved = state / ("undo.new" if over == "never begun" else "undo")
    for directory in (saved, stays):  # what is a directory, rm -f does not remove
        directory.mkdir(parents=True)
    (saved / "restore").write_text(f"put\t{tmp_path}/t/x\t1\n")
    for path in (state / "activate.sh", tmp_path / "unit", tmp_path / "wanted"):
        path.touch()
    if over == "committed":
        (state / "committed").write_text("swapping\n")
    calls = f"""
tab=$(printf '\\t') back={state}/undo
forget_repaired() {{ :; }}
keep_sets() {{ :; }}
{LEAVES.format(tmp_path).replace("leave;", "tidy; leave;")}
rmdir {stays}; : >{stays}
tidy; leave; ls -A {tmp_path}/t {tmp_path} {state}"""
    said = run(tmp_path, CLEARS, f"{{ {calls}\n}} 2>/dev/null", systemctl="echo $*")
    said = [each for each in said if each and not each.endswith(":") and each not in ("bin", "t", "state", "unproven")]
    first, second = said[: said.index("uncleared") + 1], said[said.index("uncleared") + 1 :]
    assert first == [
        "warning: some stay; the next change, or boot, removes them",
        "unit",
        "wanted",
        "activate.sh",
        "uncleared",
    ]
    assert second == ["daemon-reload"]


def test_a_systemd_that_does_not_answer_is_asked_once_more(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "unit").touch()
    busy = f'echo "$*" >>{tmp_path}/asked; [ "$(wc -l <{tmp_path}/asked)" -gt 1 ]'
    run(tmp_path, "leave clear_uncleared reload_units", LEAVES.format(tmp_path), systemctl=busy)
    assert (tmp_path / "asked").read_text() == "daemon-reload\n" * 2


@pytest.mark.parametrize("there", [True, False])
def test_what_the_check_found_before_does_not_outlive_a_check_that_is_gone(tmp_path: Path, there: bool) -> None:
    (tmp_path / "readiness.json").write_text("ready\n")
    systemctl = f"echo $* >{tmp_path}/asked; {f'echo anew >{tmp_path}/readiness.json' if there else 'exit 5'}"
    look = f"cat {tmp_path}/asked; cat $readiness 2>/dev/null || echo none"
    calls = f"state={tmp_path} readiness={tmp_path}/readiness.json node_check=/bin/sh; check_anew; {look}"
    said = run(tmp_path, "check_anew", calls, systemctl=systemctl)
    warning = f"warning: userns-node-check.service left no {tmp_path}/readiness.json: "
    assert [line for line in said if line.startswith(warning)] == ([] if there else said[:1])
    assert said[-2:] == ["restart userns-node-check.service", "anew" if there else "none"]
    assert f"\nreadiness={READINESS}\n" in activation()
    assert f"\nnode_check={CHECK}\n" in activation()


@pytest.mark.parametrize("check", ["/bin/sh", "/nowhere"])
@pytest.mark.parametrize("text", ["# HELP userns_node_ready Whether", "# HELP of somebody else"])
def test_a_set_without_a_check_leaves_no_metrics_of_one(tmp_path: Path, check: str, text: str) -> None:
    (tmp_path / "userns_node.prom").write_text(f"{text}\n")
    (tmp_path / "metrics").write_text(f"{tmp_path}/userns_node.prom\n")
    calls = f"readiness={tmp_path}/x state={tmp_path} node_check={check}; check_anew; check_anew; ls {tmp_path}"
    said = run(tmp_path, "forget_metrics check_anew", calls, systemctl="exit 5")
    gone = check == "/nowhere"
    assert ("metrics" in said) is not gone
    assert ("userns_node.prom" in said) is not (gone and "userns_node_ready" in text)


def test_a_rollback_whose_plan_is_old_is_not_to_be_run_again_unseen(tmp_path: Path) -> None:
    """The other run may have been a rollback, too: a second one would take it back."""
    calls = 'die() { echo "error: $*"; exit; }\ntake_lock() { die "$stale"; }\nroll_back'
    (said,) = run(tmp_path, "roll_back", calls)
    assert said.startswith("error: another run changed this node since the plan was made; look first")
    assert "--dry" in said
    assert "run again" not in said


# --- the health of containerd --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("plugins", "other", "why"),
    [
        (OK, "", ""),
        (
            OK.replace("cri        -              ok", "cri        -              error"),
            "",
            'the status of its plugin io.containerd.grpc.v1.cri is "error"',
        ),
        (
            OK.replace("overlayfs  linux/amd64    ok", "overlayfs  linux/amd64    skip"),
            "",
            'the status of its plugin io.containerd.snapshotter.v1.overlayfs is "skip"',
        ),
        (OK.replace("overlayfs", "native"), "", "it has no snapshotter overlayfs"),
        (OK.replace("overlayfs", "native"), "yes", ""),
        ("io.containerd.snapshotter.v1 overlayfs - ok\n", "", "it has no CRI plugin"),
    ],
)
def test_containerd_is_healthy_with_the_snapshotter_and_cri(tmp_path: Path, plugins: str, other: str, why: str) -> None:
    (tmp_path / "plugins").write_text(plugins)
    calls = f'service=x ctr=ctr snapshotter=overlayfs any_snapshotter={other}\nhealthy 0 && echo healthy\necho "$why"'
    said = run(tmp_path, "seconds_up healthy", calls, ctr=f"cat {tmp_path}/plugins", systemctl="exit 0")
    assert (said[0] == "healthy") is (why == "")
    assert said[-1] == why


# --- before anything is touched ------------------------------------------------------------------------------------

LOCK = 'state=$PWD; leave() { :; }; die() { echo "error: $*"; exit; }; lock 300; echo locked'


def test_in_every_shell_a_change_has_the_lock(tmp_path: Path, shell: list[str]) -> None:
    """Also in one that keeps to itself what it has opened."""
    taken = f'cd {tmp_path}; {LOCK}; flock -n "$state/lock" true || echo by this one'
    assert run(tmp_path, "lock", taken, shell) == ["locked", "by this one"]


@pytest.mark.parametrize(
    ("code", "why"),
    [(1, "another run has been changing this node for 5 minutes; try again later"), (65, "/lock cannot")],
)
def test_a_lock_that_cannot_be_had_is_no_other_run(tmp_path: Path, code: int, why: str) -> None:
    (said,) = run(tmp_path, "lock", f"cd {tmp_path}; {LOCK}", flock=f"exit {code}")
    assert said.startswith("error: ")
    assert why in said


@pytest.mark.parametrize("directory", [True, False])
def test_no_file_is_moved_into_a_directory_that_has_its_name(tmp_path: Path, directory: bool) -> None:
    target = tmp_path / "config.toml"
    if directory:
        target.mkdir()
    (tmp_path / "new").touch()
    (tmp_path / "actions").write_text(f"put\t644\t{target}\tnew\t-\t-\t-\n")
    calls = f"""
tab=$(printf '\\t') stage={tmp_path} needs_no_tasks=no
take_lock() {{ :; }}
die() {{ echo "error: $*"; exit; }}
save_all() {{ echo goes on; exit; }}
activate"""
    (said,) = run(tmp_path, "activate", calls)
    refusal = f"error: {target} is a directory, expected a file; nothing was changed"
    assert said == (refusal if directory else "goes on")


@pytest.mark.parametrize("step", ["install_packages", "bring_back_package containerd 2.1.9-1"])
def test_no_package_is_removed_for_another(tmp_path: Path, step: str) -> None:
    """As apt would remove Docker's for a containerd of the distribution."""
    (tmp_path / "actions").write_text("package\tcontainerd\n")
    (tmp_path / "containerd.version").write_text("2.1.9-1\n")
    programs = {"apt_get": f'echo "$@" >>{tmp_path}/asked', "apt_mark": "exit 0"}
    said = run(tmp_path, f"apt_get {step.split()[0]}", f"stage={tmp_path}; {step}; cat {tmp_path}/asked", **programs)
    (asked,) = (line.split() for line in said)
    assert {"install", "--no-remove", "containerd=2.1.9-1"} <= set(asked)


# --- bringing back -------------------------------------------------------------------------------------------------

BRINGS = "back=$PWD/undo; mkdir -p undo previous t; "
FAR = "echo now >t/x; ln t/x t/.x.userns-node-old; "  # as it is where the sets have a file system of their own


def brought(directory: Path, calls: str) -> list[str]:
    return run(directory, "beside label bring_back", f"cd {directory}; {BRINGS}{calls}")


def test_a_kept_set_is_brought_back_and_not_what_lies_beside_the_target(tmp_path: Path) -> None:
    assert brought(tmp_path, f"{FAR}echo then >previous/3; bring_back $PWD/t/x $PWD/previous/3; cat t/x") == ["then"]


def test_bringing_a_set_back_leaves_it_open_nothing_of_how_containerd_has_to_be(tmp_path: Path) -> None:
    """The steps share their variables: one of them once made every snapshotter do after a rollback."""
    calls = f"{FAR}any_snapshotter= snapshotter=overlayfs; echo then >previous/3; bring_back $PWD/t/x $PWD/previous/3\n"
    (tmp_path / "plugins").write_text(OK.replace("overlayfs", "native"))
    health = 'service=x ctr=ctr; healthy 0; echo "$why"'
    tools = {"ctr": f"cat {tmp_path}/plugins", "systemctl": "exit 0"}
    steps = "beside label bring_back seconds_up healthy"
    said = run(tmp_path, steps, f"cd {tmp_path}; {BRINGS}{calls}{health}", **tools)
    assert said == ["it has no snapshotter overlayfs"]


def test_the_set_before_a_change_is_brought_back_by_the_link_beside_the_target(tmp_path: Path) -> None:
    calls = f"{FAR}mv t/x t/gone; echo new >t/x; bring_back $PWD/t/x $PWD/undo/3; cat t/x"
    assert brought(tmp_path, calls) == ["now"]


def test_a_relative_link_that_was_never_swapped_is_back_already(tmp_path: Path) -> None:
    calls = "ln -s ../nowhere t/x; ln -P t/x undo/3; bring_back $PWD/t/x $PWD/undo/3 && readlink t/x"
    assert brought(tmp_path, calls) == ["../nowhere"]


@pytest.mark.parametrize(
    ("before", "started", "told"),
    [
        ("activating", ["start --no-block containerd"], "systemd goes on trying to start it"),
        ("failed", [], "When that is mended: systemctl start containerd"),
        ("inactive", [], ""),
    ],
)
def test_a_containerd_that_systemd_was_starting_again_and_again_is_so_after_a_failure(
    tmp_path: Path, before: str, started: list[str], told: str
) -> None:
    """Else what somebody then mends by hand would not bring the node up, as it had before."""
    systemctl = f"""case $* in
        "is-active --quiet"*) exit 3 ;;
        is-active*) echo {before}; exit 3 ;;
        *start*) echo start $1 $3 >>{tmp_path}/started ;;
    esac"""
    calls = f"""
cd {tmp_path}; mkdir undo; : >started
saving=undo back=undo service=containerd
save_service; try_on; echo end; cat started"""
    said = run(tmp_path, "save_service try_on", f"note() {{ :; }}; {calls}", systemctl=systemctl)
    end = said.index("end")
    assert said[end + 1 :] == started
    assert told in "".join(said[:end])
    assert bool(told) is bool(said[:end])


@pytest.mark.parametrize(
    ("before", "told"),
    [
        ("healthy", "error: the previous set is back, but containerd is not healthy with it: no CRI"),
        ("enabled", "the previous set is back; containerd is as unhealthy with it as before: no CRI"),
    ],
)
def test_a_containerd_that_was_unhealthy_before_is_not_blamed_on_the_way_back(
    tmp_path: Path, before: str, told: str
) -> None:
    (tmp_path / "restore").write_text(f"active\tcontainerd.service\t-\n{before}\tcontainerd.service\t-\n")
    (tmp_path / "mark").touch()
    calls = f"""
tab=$(printf '\\t') back={tmp_path} mark={tmp_path}/mark phase=restart clean=yes
ctr=/bin/sh undo_is="the previous set" why="no CRI"
restore() {{ :; }}
restart_containerd() {{ :; }}
healthy() {{ false; }}
start_dependents() {{ :; }}
abandon() {{ :; }}
go_back || echo unhealthy"""
    assert run(tmp_path, "was go_back", calls) == [told, "unhealthy"]


DEPENDENTS = "note_dependents is_down start_dependents tell_down"


def test_what_stopped_with_containerd_is_started_with_it(tmp_path: Path) -> None:
    systemctl = """case $* in
        show*) echo "kubelet.service idle.service" ;;
        "is-active --quiet kubelet.service") [ ! -e stopped ] ;;
        is-active*) exit 3 ;;
        --no-block*) echo "$*" ;;
    esac"""
    calls = f"cd {tmp_path}; phase=restart service=containerd.service; note_dependents; : >stopped; start_dependents"
    assert run(tmp_path, DEPENDENTS, calls, systemctl=systemctl) == ["--no-block start kubelet.service"]


@pytest.mark.parametrize(
    ("state", "told"),
    [
        ("ActiveState=failed UnitFileState=static Type=simple", True),
        ("Type=notify ActiveState=inactive UnitFileState=enabled", True),
        ("Type=notify ActiveState=inactive UnitFileState=disabled", False),
        ("Type=notify ActiveState=inactive UnitFileState=static", False),
        ("Type=oneshot ActiveState=inactive UnitFileState=enabled", False),
        ("Type=notify ActiveState=activating UnitFileState=enabled", False),
    ],
)
@pytest.mark.parametrize("containerd", ["active", "down"])
def test_what_was_down_before_is_named_with_the_command_that_starts_it(
    tmp_path: Path, state: str, told: bool, containerd: str
) -> None:
    systemctl = f"""case $* in
        *--value*) echo "kubelet.service docker.service" ;;
        show*docker*) echo "ActiveState=inactive UnitFileState=disabled" ;;
        show*) echo "{state}" ;;
        "is-active --quiet containerd.service") [ {containerd} = active ] ;;
        is-active*) exit 3 ;;
        *) echo "$*" ;;
    esac"""
    calls = "phase=restart service=containerd.service; note_dependents; start_dependents"
    said = run(tmp_path, DEPENDENTS, calls, systemctl=systemctl)
    if told and containerd == "active":
        (line,) = said
        assert line.startswith(
            "warning: these require containerd.service, were down before this change, and stay down:"
        )
        assert line.endswith(": kubelet.service. To start them: systemctl start kubelet.service")
    else:
        assert said == []


def test_nobody_is_told_of_it_where_containerd_was_left_alone(tmp_path: Path) -> None:
    systemctl = "echo ActiveState=failed"
    calls = "phase=beside service=containerd.service dependents= down=kubelet.service; start_dependents"
    assert run(tmp_path, DEPENDENTS, calls, systemctl=systemctl) == []
