"""Processes that do not outlive what they were started for."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from pathlib import Path

from lab.errors import LabError


def tool(name: str) -> str:
    """The path of a program that the lab needs, or a line that says how to get it."""
    path = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if path is None:
        raise LabError(f"the lab needs the program {name}: run lab/install-packages.sh as root")
    return path


def leashed(*namespaces: str) -> list[str]:
    """Words to put before a command, so that it and all that it starts die with the caller, SIGKILL included.

    The command becomes process 1 of a new PID namespace, and the kernel ends a PID namespace with its process 1.
    """
    own = ["--pid", "--fork", "--kill-child=KILL", "--mount-proc", "--propagation", "private"]
    return [tool("setpriv"), "--pdeathsig", "KILL", tool("unshare"), "--mount", *own, *namespaces, "--"]


def child_of(pid: int) -> int:
    """The only child of a process, in this PID namespace's numbers."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = stat.read_text().rpartition(")")[2].split()[1]
        except OSError:
            continue  # it ended while we looked
        if int(parent) == pid:
            return int(stat.parent.name)
    raise LabError(f"process {pid} has no child")


def has_ended(pid: int) -> bool:
    """Whether a process is gone but for its exit code, which somebody else has yet to collect.

    An orphan's is the machine's first process to collect, at its leisure, and for that of the last one in a PID
    namespace the namespace's first process waits: of itself it has nothing by then, not even namespaces. The first
    thread of a process is a zombie already while others still run, so all of them are looked at.
    """
    with contextlib.suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            with contextlib.suppress(OSError):  # the thread ended while we looked, or is about to
                os.readlink(f"/proc/{pid}/task/{thread}/ns/net")
                return False
    return True


def wait_for_the_end(pids: list[int]) -> None:
    """Wait for processes that were killed: one with much memory is there a while after it has left its cgroup."""
    end = time.monotonic() + 120
    while not all(map(has_ended, pids)) and time.monotonic() < end:
        time.sleep(0.02)
