"""When a process of a lab counts as ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from lab.errors import LabError
from lab.processes import child_of, has_ended
from tests.conftest import program, unavailable

# The first thread ends, and another one goes on.
THREADS = "import ctypes, threading, time; threading.Thread(target=time.sleep, args=[60]).start()"
ENDS = "ctypes.CDLL(None).pthread_exit(None)"


def soon(pid: int, seconds: float = 20) -> bool:
    """Whether the process has ended within this time."""
    end = time.monotonic() + seconds
    while not has_ended(pid):
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


@contextmanager
def started(*command: str) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(command)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def test_one_that_runs_has_not_and_a_zombie_has() -> None:
    with started("sleep", "60") as process:
        assert not has_ended(process.pid)
        process.kill()
        assert soon(process.pid)
    assert has_ended(process.pid)


def test_one_whose_first_thread_is_a_zombie_has_not() -> None:
    with started(sys.executable, "-c", f"{THREADS}; {ENDS}") as process:
        assert not soon(process.pid, 2)


def test_the_first_process_of_a_pid_namespace_has_while_an_orphans_exit_code_is_not_collected() -> None:
    if os.geteuid() != 0:
        unavailable("only root makes PID namespaces")
    with started(program("unshare"), "--pid", "--fork", "--kill-child", "sleep", "60") as outer:
        while not (first := _child(outer.pid)):
            time.sleep(0.02)
        with started(program("nsenter"), f"--target={first}", "--pid", "sleep", "60") as enters:
            while not _child(enters.pid):
                time.sleep(0.02)
            os.kill(enters.pid, signal.SIGSTOP)  # it would collect it
            os.kill(first, signal.SIGKILL)
            assert soon(first)


def _child(pid: int) -> int:
    try:
        return child_of(pid)
    except LabError:
        return 0
