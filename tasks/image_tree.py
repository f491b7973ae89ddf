"""An image's tree, looked at from the build host: what keeps it from being baked, before anything in it is touched."""

from __future__ import annotations

import fcntl
import os
import re
import stat
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from pyinfra.api.exceptions import ConnectError

from tasks.image_enter import PLACES, unescaped

# Where a deploy writes: what is mounted there from elsewhere on the build host would be written to.
_WRITTEN = ("etc", "usr/local", "var/lib/userns-node")


def refuse_epoch(epoch: str) -> None:
    """Raise ConnectError where SOURCE_DATE_EPOCH is no time for files, "" where it is not set.

    https://reproducible-builds.org/specs/source-date-epoch: ASCII digits, seconds since 1970. None that is still to
    come: times are brought down to it, and none would be.
    """
    if epoch and not (re.fullmatch("[0-9]{1,12}", epoch) and int(epoch) <= time.time()):
        raise ConnectError(
            f"SOURCE_DATE_EPOCH is {epoch!r}, expected the seconds since 1970 of a time that has passed, such as "
            f"{int(time.time())}: nothing was touched. Set it to that, or unset it"
        )


def refuse_unfit(root: str, named: str) -> None:
    """Raise ConnectError where `root`, given as `named`, cannot be baked; the message says what to do instead."""
    if sys.platform != "linux":
        raise ConnectError(f"{named}: images are baked on Linux, and this is {sys.platform}")
    if os.geteuid() != 0:
        raise ConnectError(f"{named}: images are baked by root, and this is user {os.geteuid()}: run pyinfra as root")
    if not os.path.lexists(root):
        raise ConnectError(f"{named}: there is no such directory")
    if not os.path.isdir(root):
        raise ConnectError(
            f"{named} is no directory: expected the root directory of an image (mount a disk image first)"
        )
    if os.path.samefile(root, "/"):
        raise ConnectError(f"{named} is this machine's own root: deploy to it with inventories/local.py")
    for place in ("etc", "usr", "var", *PLACES):
        if not _is_directory(os.path.join(root, place)):
            raise ConnectError(f"{named} is no root file system: it has no directory /{place}")
    flags = os.statvfs(root).f_flag
    for flag, name in ((os.ST_NOEXEC, "noexec"), (os.ST_RDONLY, "read-only")):
        if flags & flag:
            raise ConnectError(f"{named} is on a file system that is mounted {name}: remount it, or copy the tree")
    for pid, program in _users(root):
        raise ConnectError(f"{named} is in use: process {pid} ({program}) has it as its root. End it first")
    for point, elsewhere in _shared_mounts(root):
        raise ConnectError(f"{point} is mounted from {elsewhere} of this machine, and would be written to: unmount it")


def take(root: str, named: str) -> int:
    """Take the image for this run. Returns a descriptor that holds it; the kernel drops it with the process."""
    taken = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(taken, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(taken)
        raise ConnectError(f"{named} is in use: another run bakes it. Wait for that") from error
    return taken


def _is_directory(path: str) -> bool:
    try:
        return stat.S_ISDIR(os.lstat(path).st_mode)
    except OSError:
        return False


def _users(root: str) -> Iterator[tuple[str, str]]:
    """The processes whose root it is: of a chroot, and of a container."""
    wanted = os.stat(root)
    for process in Path("/proc").iterdir():
        if not process.name.isdecimal():
            continue
        try:
            has = os.stat(process / "root/")
            if (has.st_dev, has.st_ino) == (wanted.st_dev, wanted.st_ino):
                yield process.name, (process / "comm").read_text().strip()
        except OSError:  # it has ended, or is the kernel's own
            continue


def _shared_mounts(root: str) -> Iterator[tuple[str, str]]:
    """Mounts in the tree, where a deploy writes, of what is mounted elsewhere on the build host too."""
    inside: list[tuple[str, str]] = []
    outside: dict[str, str] = {}
    for line in Path("/proc/self/mountinfo").read_bytes().splitlines():
        _, _, number, _, place, *_ = line.split()
        path = os.fsdecode(unescaped(place))
        if path.startswith(f"{root}/"):
            inside.append((number.decode(), path))
        elif path != root:
            outside.setdefault(number.decode(), path)
    written = [os.path.join(root, place) for place in _WRITTEN]
    for device, point in inside:
        touches = any(f"{each}/".startswith(f"{point}/") or point.startswith(f"{each}/") for each in written)
        if touches and device in outside:
            yield point, outside[device]
