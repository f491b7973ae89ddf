"""A Ctrl-C that comes while something is being printed."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import termios
import time
from struct import unpack
from typing import IO

from lab.paths import REPO

# More than a pipe holds (64 KiB): it ends only where somebody reads.
PRINTS = """
from fleet.interrupt import Interrupt
from fleet.terminal import interject, tell

with Interrupt(interject) as interrupt:
    for _ in range(100):
        tell("x" * 4000)
print("asked" if interrupt.wanted else "not asked", flush=True)
"""


def waiting(pipe: IO[bytes]) -> int:
    size: int = unpack("i", fcntl.ioctl(pipe, termios.FIONREAD, b"\0" * 4))[0]
    return size


def test_it_is_told_and_nothing_breaks() -> None:
    """Of a terminal that was stopped by Ctrl-S, of a slow pipe: Python refuses a print within another one."""
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with subprocess.Popen(
        [sys.executable, "-c", PRINTS], cwd=REPO, env=buffered, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stderr
        deadline, before = time.monotonic() + 60, -1
        while time.monotonic() < deadline and (before < 60_000 or waiting(process.stderr) > before):
            before = waiting(process.stderr)
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        said, told = process.communicate(timeout=60)
    assert (process.returncode, said) == (0, b"asked\n"), told[-1000:]
    assert told.count(b"fleet: stopping: ") == 1
