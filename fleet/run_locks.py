"""Whether the process of a run lives: by a lock that the kernel takes away with it, or by its number.

A number says nothing across PID namespaces: a container that has its host's name would be seen as gone.
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

__all__ = ["Locks", "process"]

# struct flock, of 64 bits: type, whence, start, length, pid.
_FLOCK = "hhqqi4x"


class Locks:
    """A file beside the history, in which each run that lives has a lock on the byte of its number.

    By open file description, so that they end with it alone. Where a file system knows no locks, or the file is
    somebody else's, numbers have to do.
    """

    def __init__(self, path: Path, mode: int | None) -> None:
        """The file is made with this mode; None: it is only looked at."""
        self._file = -1
        if not hasattr(fcntl, "F_OFD_SETLK"):  # Linux has them
            return
        with suppress(OSError):
            self._file = os.open(path, os.O_RDONLY if mode is None else os.O_RDWR | os.O_CREAT, mode or 0)

    def close(self) -> None:
        """The runs that hold theirs here live no longer."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def hold(self, run: int) -> None:
        """This run lives, until the file is closed or the process has ended."""
        if self._file < 0:
            return
        with suppress(OSError):
            fcntl.fcntl(self._file, fcntl.F_OFD_SETLK, _lock(run))

    def is_alive(self, run: int, host: str, began_as: str) -> bool:
        """Of a process on another machine nothing can be said: it is taken to be alive."""
        return host != socket.gethostname() or self._is_held(run) or process(int(began_as.split()[0])) == began_as

    def _is_held(self, run: int) -> bool:
        """By another one than ourselves."""
        if self._file < 0:
            return False
        try:
            found = fcntl.fcntl(self._file, fcntl.F_OFD_GETLK, _lock(run))
        except OSError:
            return False
        return bool(struct.unpack(_FLOCK, found)[0] != fcntl.F_UNLCK)


def _lock(run: int) -> bytes:
    return struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, run, 1, 0)


def process(pid: int) -> str:
    """What tells a process from any other that ever had its number: the number, and when it began."""
    return f"{pid} {(_read(pid) if sys.platform == 'linux' else _asked(pid)) or 'gone'}"


def _read(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    return ""


def _asked(pid: int) -> str:
    """As ps has it, to the second: on macOS there is no /proc."""
    with suppress(OSError):
        ps = ["ps", "-o", "lstart=", "-p", str(pid)]
        done = subprocess.run(
            ps, env={**os.environ, "LC_ALL": "C", "TZ": "UTC"}, capture_output=True, text=True, check=False
        )
        return done.stdout.strip()
    return ""
