"""The probes of the node script, on this machine's kernel: with perl, without it, and that they leave nothing."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tasks.node import text
from tests.deploy.node_trees import PROBE, TMPFS, Tree, link, private, probe, run
from userns.reading import read

QUOTED_PROBE = shlex.quote(str(PROBE))
PERL = text().partition("probe_perl='")[2].partition("\n'\n")[0]
OVERLAY = ["overlay", "overlay", "/var/lib"]


# --- what the kernel says ----------------------------------------------------------------------------------------


@pytest.mark.usefixtures("no_trace")
def test_a_file_system_on_disk_and_a_tmpfs_can_be_idmapped() -> None:
    assert probe("/var/lib") == {"/var/lib": "ok", "/var/lib overlay": "ok", "tmpfs": TMPFS}


@pytest.mark.usefixtures("no_trace")
def test_proc_and_ramfs_cannot_be_idmapped(tmp_path: Path) -> None:
    answers = probe("/proc", tmp_path, before=private(f'mount -t ramfs none "{tmp_path}"'))
    assert answers["/proc"] == answers[str(tmp_path)] == "cannot mount_setattr EINVAL"
    assert answers[f"{tmp_path} overlay"] == "cannot mount_setattr EINVAL"
    assert answers["/proc overlay"] == "unknown mkdir ENOENT"


@pytest.mark.usefixtures("no_trace")
def test_an_overlay_on_an_overlay_cannot_be(tmp_path: Path) -> None:
    layers = "mkdir l u w m; mount -t overlay x -o lowerdir=l,upperdir=u,workdir=w m"
    answers = probe(tmp_path / "m", before=private(f'mount -t tmpfs none "{tmp_path}"; cd "{tmp_path}"; {layers}'))
    assert answers[str(tmp_path / "m")] == "cannot mount_setattr EINVAL"


@pytest.mark.usefixtures("no_trace")
def test_a_read_only_file_system_does_not_answer_for_an_overlay(tmp_path: Path) -> None:
    answers = probe(tmp_path, before=private(f'mount -t tmpfs -o ro none "{tmp_path}"'))
    assert answers == {str(tmp_path): TMPFS, f"{tmp_path} overlay": "unknown mkdir EROFS", "tmpfs": TMPFS}


@pytest.mark.usefixtures("no_trace")
def test_a_directory_whose_name_means_something_to_mount(tmp_path: Path) -> None:
    inside = tmp_path / "a,b:c\\d 'e"
    inside.mkdir()
    assert probe(inside) == {str(inside): "ok", f"{inside} overlay": "ok", "tmpfs": TMPFS}


@pytest.mark.usefixtures("no_trace")
def test_a_directory_of_somebody_with_a_high_id(tmp_path: Path) -> None:
    """Its owner is outside the range that is mapped: the kernel then shows nobody."""
    os.chown(tmp_path, 200_000, 1000)
    assert probe(tmp_path) == {str(tmp_path): "ok", f"{tmp_path} overlay": "ok", "tmpfs": TMPFS}


@pytest.mark.usefixtures("no_trace")
def test_where_user_namespaces_are_used_up_the_probe_says_so(tmp_path: Path) -> None:
    inside = "echo 0 >/proc/sys/user/max_user_namespaces; " + 'exec "$@"'
    answers = probe(tmp_path, before=["unshare", "-Urm", "sh", "-c", inside, "sh"])
    assert answers["tmpfs"] == "cannot unshare ENOSPC"


# --- what is left ------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("no_trace")
@pytest.mark.parametrize("group", [False, True], ids=["the probe alone", "its whole group"])
def test_a_probe_that_is_killed_leaves_nothing(tmp_path: Path, group: bool) -> None:
    """Killed as soon as its directory shows up, many times over: wherever it is then, its janitor cleans up."""
    caught = tried = 0
    while tried < 60 or (caught <= 10 and tried < 600):  # on a busy machine it often has ended when it is looked at
        tried += 1
        process = subprocess.Popen(
            ["perl", "-e", PERL, os.uname().machine, "no", *["overlay", "overlay", str(tmp_path)] * 5],
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
        while process.poll() is None:
            if os.listdir(tmp_path):
                (os.killpg if group else os.kill)(process.pid, signal.SIGKILL)
                process.wait()
                caught += process.returncode == -signal.SIGKILL
        deadline = time.monotonic() + 60
        while os.listdir(tmp_path) and time.monotonic() < deadline:
            time.sleep(0.001)
        assert os.listdir(tmp_path) == []
    assert caught > 10


@pytest.mark.usefixtures("no_trace")
@pytest.mark.parametrize(
    ("end", "signalled"),
    [(os.kill, signal.SIGKILL), (os.killpg, signal.SIGTERM), (os.killpg, signal.SIGHUP)],
    ids=["the probe alone", "its group is ended", "its connection hangs up"],
)
def test_nor_does_one_without_perl(tmp_path: Path, end: Callable[[int, int], None], signalled: signal.Signals) -> None:
    questions = " ".join(["overlay", "overlay", shlex.quote(str(tmp_path))] * 5)
    script = f'. {QUOTED_PROBE}; have() {{ [ "$1" != perl ]; }}; probe "$(uname -m)" no {questions}'
    caught = tried = 0
    while tried < 20 or (caught <= 5 and tried < 200):
        tried += 1
        # As a login has it, also where whoever runs the tests ignores a hang-up.
        words = ["env", "--default-signal=HUP,TERM", "sh", "-c", script]
        process = subprocess.Popen(words, stdout=subprocess.DEVNULL, start_new_session=True)
        while process.poll() is None:
            if os.listdir(tmp_path):
                end(process.pid, signalled)
                process.wait()
                caught += process.returncode == -signalled
        deadline = time.monotonic() + 60
        while os.listdir(tmp_path) and time.monotonic() < deadline:
            time.sleep(0.001)
        assert os.listdir(tmp_path) == []
    assert caught > 5


@pytest.mark.usefixtures("no_trace")
def test_what_even_the_janitor_could_not_remove_goes_with_the_next_probe(tmp_path: Path) -> None:
    old, fresh, foreign = (tmp_path / f".userns-node-probe.{name}" for name in ("old", "fresh", "foreign"))
    other = tmp_path / "other"
    for each in (old, fresh, foreign, other):
        (each / "work/work").mkdir(parents=True)
    os.chown(foreign, 1000, 1000)
    (old / "out").symlink_to(other)
    # ctime cannot be set: for this probe it is later.
    assert "> 600" in PERL
    probing = ["perl", "-e", PERL.replace("> 600", ">= 0"), os.uname().machine, "no", "overlay", "x", str(tmp_path)]
    os.rename(fresh, tmp_path / "kept")
    subprocess.run(probing, check=True, stdout=subprocess.DEVNULL)
    assert sorted(os.listdir(tmp_path)) == [foreign.name, "kept", "other"]
    assert (other / "work/work").is_dir()
    os.chown(foreign, 0, 0)
    subprocess.run([*probing[:2], PERL, *probing[3:]], check=True, stdout=subprocess.DEVNULL)
    assert foreign.exists()
    shutil.rmtree(foreign)


# --- containerd's own check --------------------------------------------------------------------------------------


@pytest.mark.usefixtures("no_trace")
def test_below_5_19_containerds_own_check_is_made_in_its_temporary_directory() -> None:
    old = ["setarch", os.uname().machine, "--uname-2.6", "sh"]
    assert read(run(old)).probes["containerd-check"].result == "ok"
    ramfs = private("mount -t ramfs none /tmp")
    answer = read(run([*ramfs, *old])).probes["containerd-check"]
    assert (answer.result, answer.step, answer.errno) == ("cannot", "mount_setattr", "EINVAL")
    assert "containerd-check" not in read(run(["sh"])).probes


def fake_kernel(tree: Tree, release: str) -> None:
    """A kernel of this release, whose probes tell the directory that they were to be made in."""
    tree.program("uname", f"echo {release} x86_64")
    tree.program("perl", 'while [ "$#" -gt 3 ]; do shift; done; printf "probe\\t%s\\tok\\t\\t\\t%s\\n" "$2" "$3"')


@pytest.mark.usefixtures("as_root")
@pytest.mark.parametrize(
    ("release", "made"),
    [
        ("4.18.0-553.el8", True),
        ("5.9", True),
        ("5.18.19-x", True),
        ("5.19.0", False),
        ("6.1.0-50", False),
        ("10.0", False),
    ],
)
def test_containerds_own_check_is_made_below_5_19(tree: Tree, release: str, made: bool) -> None:
    fake_kernel(tree, release)
    assert ("containerd-check" in tree.read().probes) is made


@pytest.mark.usefixtures("as_root")
@pytest.mark.parametrize(
    ("unit", "environment", "expected"),
    [
        ("MainPID=0\nEnvironment=", b"", "/tmp"),
        ("MainPID=0\nEnvironment=A=b TMPDIR=/var C=d", b"", "/var"),
        ("MainPID=0\nEnvironment=TMPDIR=/nowhere", b"", "/tmp"),
        ("MainPID=77\nEnvironment=TMPDIR=/etc", b"A=* b\0TMPDIR=/var\0", "/var"),
        ("MainPID=77\nEnvironment=", b"NOTMPDIR=/var\0", "/tmp"),
    ],
)
def test_the_temporary_directory_is_that_of_the_running_containerd(
    tree: Tree, unit: str, environment: bytes, expected: str
) -> None:
    fake_kernel(tree, "5.15.0-100-generic")
    (tree.root / "run/systemd/system").mkdir(parents=True)
    tree.program("systemctl", f"case $* in *MainPID*) echo '{unit}' ;; esac")
    tree.write("proc/77/environ", environment)
    assert tree.read().probes["containerd-check"].detail == expected


# --- the module --------------------------------------------------------------------------------------------------


def without_overlay(tmp_path: Path, loaded: bool) -> list[str]:
    """Before a command: a kernel that has overlay as a module, and a `modprobe` that writes down what it is told."""
    (tmp_path / "filesystems").write_text("nodev\ttmpfs\n")
    (tmp_path / "programs").mkdir()
    (tmp_path / "programs/modprobe").write_text(f'#!/bin/sh\necho "$@" >>{tmp_path}/told\n')
    (tmp_path / "programs/modprobe").chmod(0o755)
    state = "mkdir /sys/module/overlay; echo live >/sys/module/overlay/initstate;" if loaded else ""
    return private(
        f"mount --bind {tmp_path}/filesystems /proc/filesystems; mount -t tmpfs none /sys/module; {state}"
        f"PATH={tmp_path}/programs:$PATH"
    )


@pytest.mark.usefixtures("no_trace")
@pytest.mark.parametrize("perl", [True, False])
def test_a_module_that_the_probe_loads_is_unloaded_again(tmp_path: Path, perl: bool) -> None:
    call = f'. {QUOTED_PROBE}; probe "$(uname -m)" yes {" ".join(OVERLAY)}'
    if not perl:
        call = f"have() {{ [ $1 != perl ] && command -v $1 >/dev/null; }}; {call}".replace(
            f". {QUOTED_PROBE}", f'eval "$(grep -v "^have()" {QUOTED_PROBE})"'
        )
    subprocess.run([*without_overlay(tmp_path, loaded=True), "sh", "-c", call], check=True, stdout=subprocess.DEVNULL)
    assert (tmp_path / "told").read_text().splitlines() == ["-q overlay", "-q -r overlay"]


@pytest.mark.usefixtures("no_trace")
def test_in_a_container_no_module_is_loaded(tmp_path: Path) -> None:
    command = [*without_overlay(tmp_path, loaded=False), "perl", "-e", PERL, os.uname().machine, "no", *OVERLAY]
    said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    assert said == "probe\toverlay\tunknown\toverlay\t\toverlay is not loaded, and may not be loaded from here\n"
    assert not (tmp_path / "told").exists()


# --- the probes where there is no perl ---------------------------------------------------------------------------


def mount_version(shell: list[str]) -> tuple[int, ...]:
    """Of the mount that this shell runs: some busyboxes mount by themselves."""
    said = subprocess.run(
        [*shell, "-c", "mount --version"], stderr=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, check=False
    ).stdout
    found = re.search(r"util-linux (\d+)\.(\d+)", said)
    return tuple(map(int, found.groups())) if found else (0,)


@pytest.mark.usefixtures("no_trace")
def test_without_perl_a_mount_that_knows_idmap_is_asked_and_an_older_one_is_not_believed(
    tree: Tree, tmp_path: Path, shell: list[str]
) -> None:
    """util-linux before 2.39 makes a plain bind mount and succeeds."""
    (tree.programs / "perl").unlink()
    link(tree.programs, ["mount", "unshare", "sh", "mkdir", "chown", "rm", "find"])
    (tree.root / "var/lib/containerd").mkdir(parents=True)
    probes = tree.read(shell).probes
    results = {(each.result, each.step) for each in probes.values()}
    knows = mount_version(shell) >= (2, 39)
    assert results == ({("ok", "")} if knows else {("unknown", "mount")})
    assert os.listdir(tree.root / "var/lib/containerd") == []


@pytest.mark.usefixtures("no_trace")
def test_without_perl_ramfs_cannot_either(tree: Tree) -> None:
    (tree.programs / "perl").unlink()
    link(tree.programs, ["mount", "unshare", "sh", "mkdir", "chown", "rm", "find"])
    (tree.root / "var/lib/containerd").mkdir(parents=True)
    ramfs = private(f'mount -t ramfs none "{tree.root}/var/lib/containerd"')
    environment = {"USERNS_NODE_ROOT": str(tree.root), "USERNS_NODE_PATH": str(tree.programs)}
    probes = read(run([*ramfs, "sh"], environment)).probes
    answer = ("cannot", "mount_setattr") if mount_version(["sh"]) >= (2, 39) else ("unknown", "mount")
    assert (probes["containerd-root"].result, probes["containerd-root"].step) == answer
    assert (probes["overlay"].result, probes["overlay"].step) == answer


@pytest.mark.parametrize(
    ("end", "asks"), [("exit 2", True), ("exit 255", True), ("kill -SEGV $$", True), ("kill -KILL $$", False)]
)
def test_a_perl_that_does_not_work_is_none_and_one_that_was_killed_is_not_asked_again(
    tree: Tree, end: str, asks: bool
) -> None:
    tree.program("perl", end)
    tree.program("mount", "exit 1")
    tree.program("unshare", f"echo asked >>{tree.root}/asked")
    assert {each.result for each in tree.read().probes.values()} == {"unknown"}
    assert (tree.root / "asked").exists() is asks


@pytest.mark.usefixtures("no_trace")
def test_without_perl_and_mount_nothing_is_known(tree: Tree) -> None:
    (tree.programs / "perl").unlink()
    assert {each.result for each in tree.read().probes.values()} == {"unknown"}
