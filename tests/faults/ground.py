"""The node that is broken again and again: what it has, what it is changed to, and what an independent look says."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from hashlib import sha256
from itertools import count
from pathlib import Path
from typing import Any

from lab import Lab, LabNode
from lab.processes import tool
from lab.serving import Served
from tests.faults.steps import Steps
from tests.node.faults import STATE, Deploying
from tests.node.releases import Releases
from tests.node.runs import Counter, Operator, Run, must, start_counter

Settings = dict[str, Any]
# The file systems of a node that is not all on one: their sizes hold what is there and one more set.
APART = {"/usr/local": "400m", "/var/lib/userns-node": "800m", "/etc/containerd": "1m"}
_names = count(1)


@dataclass(frozen=True)
class Look:
    """A node at rest: every file that a deploy may change, and what runs."""

    files: Mapping[str, str]
    """What each file is: mode, owner, and the digest of its content."""
    program: str
    """The digest of the program that containerd's main process runs."""
    socket: str
    """The debug socket that containerd listens on: which config.toml it has read."""
    health: str
    """What systemd says of containerd, containerd of its CRI plugin, and which of their units and ours have failed."""


@dataclass(frozen=True)
class Inside:
    """The short way into a node, without a login, for one who only looks."""

    node: LabNode

    def ssh(self, command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a shell command on the node as root."""
        enter = [tool("nsenter"), f"--target={self.node.leader}", "--mount", "--uts", "--ipc", "--net", "--pid"]
        shell = ["setpriv", "--pdeathsig", "KILL", "--", "/bin/sh", "-c", command]
        return subprocess.run([*enter, *shell], capture_output=True, text=True, check=check, stdin=subprocess.DEVNULL)


HEALTHY = "active enabled ok"


@dataclass
class Ground:
    """A node on which something counts, between two sets. `settings` are those of the set that it has."""

    lab: Lab
    served: Served
    releases: Releases
    operator: Operator
    apart: bool = False
    node: LabNode = field(init=False)
    inside: Inside = field(init=False)
    counter: Counter = field(init=False)
    steps: Steps = field(init=False)
    settings: Settings = field(init=False)
    known: dict[str, Mapping[str, str]] = field(init=False)
    """The files that were found to belong to settings: the same ones each time."""
    _digests: dict[tuple[int, ...], str] = field(default_factory=dict)

    def prepare(self) -> None:
        """Boot a node, deploy to it, and start what counts."""
        self.node = self.lab.node(f"ground{next(_names)}", wait=False)
        self.node.patience = 600  # others like it are broken at the same time
        self.node.wait()
        self.inside = Inside(self.node)
        # A mirror that hangs is given up by curl after half a minute; one such wait is enough.
        self.node.put("/root/.curlrc", b"retry-max-time = 1\n")
        if self.apart:
            mounts = (
                f"mkdir -p {at} && mount -t tmpfs -o mode=755,size={size} tmpfs {at}" for at, size in APART.items()
            )
            self.node.ssh(" && ".join((*mounts, "mkdir /usr/local/bin /usr/local/sbin")))
        self.steps = Steps(lambda: self.root)
        self.settings = {
            "containerd_version": self.releases.containerd,
            "runc_version": self.releases.runc,
            "containerd_config": debug_socket("a"),
        }
        must(self.deploy(**self.settings))
        self.known = {str(self.settings): self.look().files}
        self.count()

    def count(self) -> None:
        """Start what must never stop, anew where a fault ended it; and remove what a boot would."""
        control = "systemctl stop counter-control; systemctl reset-failed counter-control"
        emptied = "rm -f /run/userns-node-activate-* /run/systemd/system/userns-node-activate-*"
        self.node.ssh(f"ctr tasks rm --force counter; ctr containers rm counter; {control}; {emptied}", check=False)
        self.counter = replace(start_counter(self.node), node=self.inside)

    def end(self) -> None:
        """End the node."""
        self.node.stop()

    @property
    def root(self) -> Path:
        """Its files: on this machine where they are all on one file system, also while the node is off."""
        return Path(f"/proc/{self.node.leader}/root") if self.apart else self.node.root

    def deploy(self, **settings: object) -> Run:
        """Deploy to it and wait for the end."""
        return self.operator.deploy(self.node, **self._all(settings))

    def deploying(self, **settings: object) -> Deploying:
        """Begin a deploy."""
        return Deploying(self.lab, self.operator, self.node, self._all(settings))

    def _all(self, settings: Mapping[str, object]) -> Settings:
        return {"allow": ["no-space"], **settings} if self.apart else dict(settings)

    def changed(self, change: str) -> Settings:
        """The settings after a change: of the config, of runc, of containerd, or of all at once."""
        other = dict(self.settings)
        releases = self.releases
        if change in ("runc", "all"):
            other["runc_version"] = ({releases.runc, releases.newer_runc} - {other["runc_version"]}).pop()
        if change in ("containerd", "all"):
            other["containerd_version"] = ({releases.containerd, releases.newer} - {other["containerd_version"]}).pop()
        if change in ("config", "all"):
            other["containerd_config"] = debug_socket("b" if other["containerd_config"] == debug_socket("a") else "a")
        return other

    def look(self) -> Look:
        """What is there now."""
        files = {}
        for top in ("etc", "usr/local", f"{STATE}/manifest"):
            files.update(self._files(self.root / top))
        said = self.inside.ssh(
            """
            pid=$(systemctl show --property MainPID --value containerd)
            sha256sum "/proc/$pid/exe"
            grep -o 'debug-[a-z]*\\.sock$' /proc/net/unix || echo none
            echo $(systemctl is-active containerd; systemctl is-enabled containerd
                timeout 20 ctr plugins ls | awk '$2 == "cri" && $1 ~ /grpc/ { print $NF }'
                systemctl --failed --plain --no-legend 'containerd*' 'userns-node*')""",
            check=False,
        ).stdout
        program, socket, health = [*said.splitlines(), "", "", ""][:3]
        return Look(files, program.split(" ")[0], socket, health)

    def _files(self, top: Path) -> dict[str, str]:
        found = {}
        for path in sorted((top, *top.rglob("*"))) if top.exists() else ():
            now = path.lstat()
            about = f"{now.st_mode:o} {now.st_uid}:{now.st_gid}"
            if path.is_symlink():
                about += f" to {path.readlink()}"
            elif path.name == "manifest":
                # Without what `stat` says of a program: one that comes back has a new ctime.
                lines = path.read_bytes().split(b"\n")
                about += f" {[line.split(bytes([9]))[:5] for line in lines]}"
            elif path.is_file():
                key = (now.st_dev, now.st_ino, now.st_size, now.st_mtime_ns, now.st_ctime_ns)
                if key not in self._digests:
                    self._digests[key] = sha256(path.read_bytes()).hexdigest()
                about += f" {self._digests[key]}"
            if not path.name.startswith("userns-node-recover"):  # no part of a set; the verdict looks for it elsewhere
                found[str(path.relative_to(self.root))] = about
        return found


def debug_socket(name: str) -> Settings:
    """A config that the running containerd can be asked for: it listens there as long as it is the one that it read."""
    return {"debug": {"address": f"/run/containerd/debug-{name}.sock"}}
