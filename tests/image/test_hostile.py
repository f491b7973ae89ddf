"""A hostile image cannot reach the machine that bakes it, whatever it does with its paths, devices and programs."""

from __future__ import annotations

import ctypes
import os
import stat
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tasks import image_leash
from tasks.image_connector import ENTER
from tests.image import trees
from tests.image.conftest import Copied
from tests.image.trees import Builder

Trap = Callable[[Path, Path], None]


def absolute_directory(root: Path, victim: Path) -> None:
    """/etc/containerd is the build host's."""
    (root / "etc/containerd").symlink_to(victim)


def absolute_file(root: Path, victim: Path) -> None:
    """A file that is written leads to the build host's."""
    (root / "etc/modprobe.d/overlay-metacopy.conf").symlink_to(victim / "file")
    (root / "usr/local/bin/ctr").symlink_to(victim / "file")


def dots(root: Path, victim: Path) -> None:
    """Up, out of the image, and down again."""
    (root / "usr/local/libexec").rmdir() if (root / "usr/local/libexec").is_dir() else None
    (root / "usr/local/libexec").symlink_to("../" * 40 + str(victim).lstrip("/"))


def state_elsewhere(root: Path, victim: Path) -> None:
    """The stage, the record and the lock would be the build host's."""
    (root / "var/lib/userns-node").symlink_to(victim)


def devices(root: Path, _victim: Path) -> None:
    """Reading one never ends, and another one waits for a writer."""
    (root / "etc/containerd").mkdir()
    os.mknod(root / "etc/containerd/config.toml", 0o666 | stat.S_IFCHR, os.makedev(1, 5))
    os.mkfifo(root / "usr/local/bin/ctr")
    os.mkfifo(root / "etc/sysctl.d/99-wait.conf")


TRAPS: tuple[Trap, ...] = (absolute_directory, absolute_file, dots, state_elsewhere, devices)


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """A directory of this machine with a file in it."""
    (tmp_path / "victim").mkdir()
    (tmp_path / "victim/file").write_text("the build host's\n")
    return tmp_path / "victim"


@pytest.mark.parametrize("trap", TRAPS, ids=lambda each: each.__name__)
def test_nothing_leads_out_of_the_image(builder: Builder, copied: Copied, victim: Path, trap: Trap) -> None:
    root = copied()
    trap(root, victim)
    before = {path: trees.look_at(path) for path in (victim, victim / "file")}
    run = builder.run(root, "-y")
    assert {path: trees.look_at(path) for path in (victim, *victim.iterdir())} == before
    # It was either done inside, or refused with a reason.
    assert run.code == 0 or "could not" in run.text, run.text
    if trap in (absolute_file, devices):
        assert run.code == 0, run.text
        assert (root / "etc/modprobe.d/overlay-metacopy.conf").is_file()
        assert not (root / "etc/modprobe.d/overlay-metacopy.conf").is_symlink()


# What a program of the image tries, and what has to come of it here.
ATTEMPTS = """
mknod /dev/evil b 259 0; mount -t tmpfs none /mnt; umount /proc
chmod 000 /dev/null; echo evil >/proc/sys/kernel/hostname; echo evil >/sys/evil; hostname evil
modprobe -r overlay; kill -9 -1; cat /proc/1/root/etc/shadow; ls /proc/sys /proc/modules
: >/run/evil; : >/tmp/evil; sysctl -w kernel.domainname=evil; sleep 612 &
"""


def test_a_program_of_the_image_can_do_nothing_to_this_machine(
    builder: Builder, copied: Copied, tmp_path: Path
) -> None:
    """Even one that is run as the shell itself: what it answers is a lie, and what it does stays inside."""
    root = copied()
    shell = root / "usr/bin/uname"
    shell.unlink()
    shell.write_text(f"#!/bin/sh\n{ATTEMPTS}")
    shell.chmod(0o755)
    getent = root / "usr/bin/getent"
    getent.unlink()
    getent.write_text(f"#!/bin/sh\n{ATTEMPTS}")
    getent.chmod(0o755)
    null = trees.look_at(Path("/dev/null"))[:10]
    names = (Path("/proc/sys/kernel/hostname").read_text(), Path("/proc/sys/kernel/domainname").read_text())
    builder.run(root, "-y")
    assert trees.look_at(Path("/dev/null"))[:10] == null
    assert (Path("/proc/sys/kernel/hostname").read_text(), Path("/proc/sys/kernel/domainname").read_text()) == names
    assert not any(Path(place, "evil").exists() for place in ("/run", "/tmp", "/dev", root / "run", root / "tmp"))
    sleeping = [each for each in Path("/proc").glob("[0-9]*/cmdline") if _read(each) == b"sleep\x00612\x00"]
    assert sleeping == []


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def test_python_of_the_build_host_imports_nothing_from_the_image(builder: Builder, copied: Copied) -> None:
    """Once it has entered the image, the paths where it would look are the image's."""
    import sysconfig

    root = copied()
    place = root / sysconfig.get_paths()["stdlib"].lstrip("/")
    (place / "encodings").mkdir(parents=True)
    for name in ("warnings", "shutil", "encodings/latin_1", "traceback", "subprocess"):
        (place / f"{name}.py").write_text("open('/etc/imported', 'w')\n")
    assert builder.run(root, "--dry").code == 0
    assert not (root / "etc/imported").exists()


# The numbers of open_by_handle_at and keyctl, and what name_to_handle_at has said outside.
CALLS = {"x86_64": (303, 304, 250), "aarch64": (264, 265, 219)}
BY_HANDLE = """
open my $top, "<", "/" or die; my $handle = pack "H*", $ARGV[1];
my $fd = syscall $ARGV[0], fileno $top, $handle, 0;
if ($fd < 0) { print "handle: $!\\n" } else { open my $file, "<&=", $fd; print <$file> }
my $ring = syscall $ARGV[2], 0, -4, 1; # KEYCTL_GET_KEYRING_ID of the user's keyring
print $ring < 0 ? "keys: $!\\n" : "keys: $ring\\n";
"""


@pytest.mark.parametrize(
    "caller",
    [(), ("setpriv", "--inh-caps", "+dac_read_search", "--ambient-caps", "+dac_read_search", "--")],
    ids=["a shell", "one that lets others inherit capabilities"],
)
def test_what_needs_no_path_is_out_of_reach_too(copied: Copied, caller: tuple[str, ...]) -> None:
    """A file of the same file system by its handle, and the kernel's keys."""
    root = copied()
    outside = root.parent / "outside"
    outside.write_text("the build host's\n")
    name_to_handle, open_by_handle, keyctl = CALLS[os.uname().machine]
    handle = ctypes.create_string_buffer(struct.pack("=Ii", 128, 0), 136)
    libc, mount = ctypes.CDLL(None, use_errno=True), ctypes.c_int()
    made = libc.syscall(name_to_handle, -100, os.fsencode(outside), handle, ctypes.byref(mount), 0)
    assert made == 0, os.strerror(ctypes.get_errno())
    command = [*caller, sys.executable, "-IS", ENTER, image_leash.word(), root, "perl", "-e", BY_HANDLE]
    numbers = [str(open_by_handle), handle.raw.hex(), str(keyctl)]
    run = subprocess.run([*map(str, command), *numbers], capture_output=True, text=True, check=True)
    assert run.stdout.splitlines() == ["handle: Operation not permitted", "keys: Function not implemented"]
