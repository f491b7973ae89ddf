"""A node of the lab: a systemd-nspawn container that boots Debian and is reached over SSH."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from lab import base, cgroups, network
from lab.errors import LabError
from lab.holder import WHOLE
from lab.machine import Machine

if TYPE_CHECKING:
    from lab.world import Lab

# nspawn exits with 133 where the container asked for a reboot (because of --keep-unit): start it again. Each boot gets
# a cgroup of its own, as one that has handed its controllers down to children takes no process any more. From systemd
# 257 on, nspawn has a mount for each container, and boots none whose mount is there: where its power was cut, it is.
_BOOT = """
node=$1; shift
boot=1
while mkdir "$node/boot$boot"; do
    umount "/run/systemd/nspawn/unix-export/${node##*/}" 2>/dev/null
    sh -c 'echo $$ > "$1/cgroup.procs"; shift; exec "$@"' sh "$node/boot$boot" systemd-nspawn "$@"
    status=$?
    [ $status = 133 ] || exit $status
    boot=$((boot + 1))
done
"""

# /proc/sys and /sys read-only but for the network's own part: a node's root is the machine's root, and this is what
# keeps it from writing the machine's sysctls (systemd alone would raise fs.file-max at every boot). runc and crun
# start containers in user namespaces all the same.
_ENVIRONMENT = "SYSTEMD_NSPAWN_API_VFS_WRITABLE=network"

# A user namespace in a node may mount its own /proc and /sys only where whole ones can be seen, and nspawn covers parts
# of them. That of Debian 12 leaves the machine's under the node's root, out of sight; later ones leave nothing there.
_WHOLE = [f"--bind={WHOLE}/{name}:/lab/{name}:norbind" for name in ("proc", "sys")]


class LabNode(Machine):
    """One node. `root` is its file system as the machine sees it; a reboot keeps it, `stop` removes it."""

    def __init__(self, lab: Lab, name: str, suite: str, number: int) -> None:
        super().__init__(lab, name, number)
        self.suite = suite
        self.root = self.home / "root"

    def create(self) -> None:
        """Unpack the tree, make it this node's own, and plug it into the lab's network."""
        tar = base.tar(self.suite)
        # On the real file system and not on an overlay: containerd makes overlays of its own on it.
        self.root.mkdir(parents=True)
        # Inside the lab, as all that writes here: so it can't go on while the keeper removes the tree.
        self.lab.run([*base.UNPACK, tar, "--directory", self.root])
        (self.root / "root/.ssh").mkdir(mode=0o700, exist_ok=True)
        for path, text in self._own_files().items():
            (self.root / path).write_text(text)
        limits = base.sshd_limits(self.root / "usr/sbin/sshd")
        (self.root / "etc/ssh/sshd_config.d/lab.conf").write_text(limits)
        self._make_host_key(self.root / "etc/ssh/ssh_host_ed25519_key")
        self.lab.run(["sh", "-euc", network.plug_in(self.name, self._number)])

    def start(self) -> None:
        """Boot (again, after `cut_power`), and do not wait for it."""
        cgroups.create(self.cgroup)
        group_inside = Path("/sys/fs/cgroup", self.lab.cgroup.name, self.name)
        flags = ["--quiet", "--boot", f"--directory={self.root}", f"--machine={self.name}", "--console=pipe"]
        flags += ["--register=no", "--keep-unit", f"--network-namespace-path=/run/netns/{self.name}"]
        flags += ["--capability=all", "--system-call-filter=@known", "--bind-ro=/sys/module", *_WHOLE]
        flags += ["--resolv-conf=off", "--timezone=off", "--link-journal=no"]
        self._process = self.lab.start(
            ["env", _ENVIRONMENT, "sh", "-c", _BOOT, "boot", group_inside, *flags], self.console, Path("/")
        )

    @property
    def leader(self) -> int:
        """The node's process 1, by the machine's number: /proc/<leader>/root is the node as it sees itself."""
        for init in self.cgroup.glob("boot*/payload/init.scope"):
            if running := cgroups.processes(init):
                return running[0]
        raise LabError(f"node {self.name} is not running")

    @contextmanager
    def unplugged(self) -> Iterator[None]:
        """While inside, the node's network cable is out: packets get lost, connections know nothing of it."""
        self.lab.run(["ip", "link", "set", f"port{self._number}", "down"])
        try:
            yield
        finally:
            self.lab.run(["ip", "link", "set", f"port{self._number}", "up"])

    def answer_at_more(self, count: int) -> list[str]:
        """Give the node `count` addresses more, until its next boot, and return them: a fleet for benchmarks.

        Whoever connects to each of them pays for a connection each, while only one system has to run.
        """
        more = [network.address(number) for number in range(self._number * 250, self._number * 250 + count)]
        lines = "".join(f"address add {one}/{network.PREFIX} dev eth0\n" for one in more)
        self.ssh("ip -batch -", input=lines)
        host_key = (self.root / "etc/ssh/ssh_host_ed25519_key.pub").read_text()
        with self.lab.known_hosts.open("a") as known:
            known.writelines(f"{one} {host_key}" for one in more)
        return more

    def _unplug(self) -> None:
        self.lab.run(["ip", "netns", "delete", self.name], check=False)
