"""The keeper: the one process of a lab outside its namespaces. It outlives its owner just long enough to tidy up.

The owner (a test run, the demo) holds the other end of the keeper's standard input. When that closes, for whatever
reason, SIGKILL included, the keeper ends the lab: it kills the first process of the lab's PID namespace, with which
the kernel ends all others, and the mount and network namespaces vanish with the last of them. Then it removes what
is left: the nodes' trees and the lab's cgroup. After the line `detach`, only SIGTERM ends the lab.

Run by lab.world as: python -m lab.keeper ID. It inherits the lock of the lab (lab.traces.claim).
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys

from lab import cgroups, processes, traces
from lab.paths import REPO
from lab.processes import child_of, leashed


def wait_for_the_end(holder: subprocess.Popen[str], stop: int) -> None:
    """Return when the owner is gone, when SIGTERM has written to `stop`, or when the holder has died."""
    watched = [sys.stdin.fileno(), stop]
    while holder.poll() is None:
        ready = select.select(watched, [], [], 1)[0]
        if stop in ready:
            return
        if ready:
            word = os.read(sys.stdin.fileno(), 100)
            if not word:
                return
            if word.strip() == b"detach":
                watched.remove(sys.stdin.fileno())


def main(lab: str) -> int:
    """Keep the lab until it is to end, then remove its traces."""
    # The terminal's Ctrl-C and its closing are the owner's affair, and reach this process through the owner.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    stop, write = os.pipe()
    signal.signal(signal.SIGTERM, lambda *_: os.write(write, b"."))
    group = cgroups.of_lab(lab)
    holder: subprocess.Popen[str] | None = None
    inner: list[int] = []
    try:
        cgroups.create(group)
        command = [*leashed("--net"), sys.executable, "-m", "lab.holder", lab]
        holder = subprocess.Popen(command, cwd=REPO, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
        assert holder.stdout
        if holder.stdout.readline() != "ready\n":
            return 1
        inner.append(child_of(holder.pid))
        print(json.dumps({"holder": inner[0], "cgroup": str(group)}), flush=True)
        wait_for_the_end(holder, stop)
    finally:
        members = cgroups.processes(group)
        if holder:
            holder.kill()
            holder.wait()
        with traces.turn():
            traces.remove(lab)
            # The namespace's first process is in no cgroup of the lab, and ends a moment after the one that holds it.
            processes.wait_for_the_end([*members, *inner])
            traces.unload()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
