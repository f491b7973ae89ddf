"""The holder: process 1 of the lab's PID namespace. It sets the lab's view of the machine up and then only reaps.

It runs in new mount, network and PID namespaces, so nothing that it does reaches the machine.

Run by lab.keeper as: python -m lab.holder ID (for whoever reads the process list)
"""

from __future__ import annotations

import os
import signal
import subprocess

from lab.network import BRIDGE, CONTROLLER, PREFIX

# Where the lab has a /proc and a /sys of which nothing is covered.
WHOLE = "/run/lab"


def run(*command: str) -> None:
    """Run a command that has to work."""
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def set_up() -> None:
    """Mounts and network."""
    # Network namespaces and nspawn's own state are files under /run: the machine's must not get any.
    run("mount", "-t", "tmpfs", "-o", "mode=755", "lab", "/run")
    os.makedirs("/run/netns")
    # Mounted anew: on a machine that is a container itself, parts of its own are covered. lab.node says what for.
    for name, type in (("proc", "proc"), ("sys", "sysfs")):
        os.makedirs(f"{WHOLE}/{name}")
        run("mount", "-t", type, type, f"{WHOLE}/{name}")
    # A machine without systemd may show version 1 or a mixture; systemd in the nodes wants version 2 alone.
    if not os.path.exists("/sys/fs/cgroup/cgroup.procs"):
        run("umount", "-l", "/sys/fs/cgroup")
        run("mount", "-t", "cgroup2", "cgroup2", "/sys/fs/cgroup")
    run("ip", "link", "set", "lo", "up")
    run("ip", "link", "add", BRIDGE, "type", "bridge")
    run("ip", "address", "add", f"{CONTROLLER}/{PREFIX}", "dev", BRIDGE)
    run("ip", "link", "set", BRIDGE, "up")


def main() -> None:
    """Set up, say so, and reap for ever: the keeper ends this process with a SIGKILL."""
    os.environ["PATH"] = "/usr/sbin:/usr/bin:/sbin:/bin"
    set_up()
    for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(name, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    print("ready", flush=True)
    while True:
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            signal.sigtimedwait({signal.SIGCHLD}, 1)


if __name__ == "__main__":
    main()
