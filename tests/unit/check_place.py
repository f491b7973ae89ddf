"""A place that the check takes for a node, whose kernel answers what a test's node would, and nodes to be."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hypothesis import strategies as st

from tests import nodes
from tests.conftest import program
from tests.strategies import probe
from userns.node import Filesystem, Node, Probe
from userns.tables import FILESYSTEMS

SHELLS = {"sh": ["sh"], "dash": ["dash"], "busybox": ["busybox", "sh"], "bash": ["bash", "--posix"], "mksh": ["mksh"]}
KEYS = ("containerd-root", "kubelet-root", "tmpfs", "overlay", "containerd-check")

KERNELS = ["4.19.0", "5.10.0-32", "5.11", "5.12", "5.15.0-1-generic", "5.18.19", "5.19.1", "6.1.0-40-amd64", "6.2.9"]
kernels = st.sampled_from([*KERNELS, "6.3", "6.6.1", "6.8.0", "6.9", "6.10-rc3", "6.12.5", "6.18.44-x", "7.2-rc1"])
types = st.sampled_from(["", "new-fs", "fuse.sshfs", "fuseblk.x", *sorted(FILESYSTEMS)])
STEPS = ["", "unshare", "open_tree", "mount_setattr", "tmpfs", "overlay", "owner", "perl"]
STEPS += ["uid_map", "gid_map", "user_namespace"]
ERRNOS = ["", "EINVAL", "EPERM", "ENOSYS", "ENOSPC", "EUSERS", "EBUSY", "EOPNOTSUPP", "ENODEV", "EXOTIC"]
any_probe = probe | st.builds(
    Probe, result=st.just("cannot"), step=st.sampled_from(STEPS), errno=st.sampled_from(ERRNOS)
)


def place(name: str, type: str) -> Filesystem:
    return Filesystem(path=f"/var/lib/{name}", parent="/var/lib", type=type)


@st.composite
def asked(draw: st.DrawFn) -> Node:
    """A node whose kernel answers anything, on any file system."""
    return nodes.bare(
        kernel=draw(kernels),
        zfs_version=draw(st.sampled_from(["", "2.1.11", "2.2.0"])),
        probes=draw(st.dictionaries(st.sampled_from(KEYS), any_probe)),
        filesystems={name: place(name, draw(types)) for name in ("containerd-root", "kubelet-root")},
    )


class Place:
    """A directory that the check takes for a node's root, whose kernel answers what a node's would."""

    def __init__(self, home: Path) -> None:
        self.root, self.programs, self.file = home / "root", home / "programs", home / "check"
        for each in (self.root / "proc/sys/user", self.root / "var/lib/containerd", self.programs):
            each.mkdir(parents=True)
        for name in ("awk", "cat", "chmod", "date", "grep", "id", "ls", "mkdir", "mv", "rm", "sed", "sh", "tr"):
            self.link(name)
        for name in ("printf", "sha256sum", "sleep", "timeout"):
            self.link(name)
        self.program("systemctl", "echo LoadState=loaded; echo ActiveState=active; echo UnitFileState=enabled")
        (self.root / "proc/sys/user/max_user_namespaces").write_text("63000\n")

    def link(self, name: str) -> None:
        (self.programs / name).unlink(missing_ok=True)
        (self.programs / name).symlink_to(program(name))

    def program(self, name: str, body: str) -> None:
        (self.programs / name).unlink(missing_ok=True)
        (self.programs / name).write_text(f"#!/bin/sh\n{body}\n")
        (self.programs / name).chmod(0o755)

    def be(self, node: Node) -> None:
        """Answer as this node does."""
        self.program("uname", f"echo {node.kernel} x86_64")
        self.program("systemd-detect-virt", f"echo {node.container}; exit 1")
        lines = [("probe", name, *map(str, each)) for name, each in _fields(node)]
        text = "".join("\t".join(line) + "\n" for line in lines)
        (self.programs / "answers").write_text(text)
        self.program("perl", f"[ \"$1\" = -e ] && [ $# -gt 2 ] && cat '{self.programs}/answers'; exit 0")
        zfs = self.root / "sys/module/zfs"
        shutil.rmtree(zfs, ignore_errors=True)
        if node.zfs_version:
            zfs.mkdir(parents=True)
            (zfs / "version").write_text(f"{node.zfs_version}-1\n")
        # Two directories on one mount have one type: the nearest that exist are told apart here.
        for name in ("containerd", "kubelet"):
            (self.root / f"var/lib/{name}").mkdir(exist_ok=True)
        types = {name: node.filesystems[f"{name}-root"].type for name in ("containerd", "kubelet")}
        cases = " ".join(f"./var/lib/{name}) echo 'space\t1\t1\t{type}\t'$f;;" for name, type in types.items())
        self.program("stat", f"case $1 in -f) for f; do case $f in {cases} esac; done;; *) exit 1;; esac")
        self.program("awk", "exit 0")  # no mount table: statfs says the type

    @contextmanager
    def live(self, node: Node) -> Iterator[None]:
        """Have what else a kernel and systemd say of this node, and afterwards what they said before."""
        before = self.programs / "systemctl"
        kept = before.read_text()
        files = {f"proc/sys/{key.replace('.', '/')}": f"{value}\n" for key, value in node.sysctls.items()}
        state = node.overlay.state
        if state != "unknown":
            files["proc/filesystems"] = "nodev\tproc\n"
        if state == "module":
            files[f"lib/modules/{node.kernel}/kernel/fs/overlayfs/overlay.ko"] = ""
        if state == "loaded":
            files["sys/module/overlay/initstate"] = "live\n"
        if state in ("loaded", "builtin"):
            (self.root / "sys/module/overlay").mkdir(parents=True)
            if node.overlay.metacopy:
                files["sys/module/overlay/parameters/metacopy"] = f"{node.overlay.metacopy}\n"
        sysctl = self.root / "proc/sys/user/max_user_namespaces"
        sysctl.unlink()
        for name, text in files.items():
            (self.root / name).parent.mkdir(parents=True, exist_ok=True)
            (self.root / name).write_text(text)
        unit = node.units["containerd"]
        said = {"LoadState": unit.load, "ActiveState": unit.active, "UnitFileState": unit.enabled}
        self.program("systemctl", "; ".join(f"echo {name}={value}" for name, value in said.items()))
        for name, option in (("subuid", "kubelet"), ("subgid", "-g kubelet")):
            lines = "".join(f"{line}\n" for line in node.getsubids.get(name, ()))
            (self.programs / option.replace(" ", "")).write_text(lines)
        if "getsubids" in node.tools:
            self.program("getsubids", f"IFS=; cat '{self.programs}'/\"$*\"")
        try:
            yield
        finally:
            before.write_text(kept)
            (self.programs / "getsubids").unlink(missing_ok=True)
            for name in files:
                (self.root / name).unlink()
            shutil.rmtree(self.root / "sys", ignore_errors=True)
            shutil.rmtree(self.root / "lib", ignore_errors=True)
            sysctl.write_text("63000\n")

    def run(self, text: str, *arguments: str, shell: list[str] | None = None) -> subprocess.CompletedProcess[str]:
        # What no node heeds: where its root is, and where its programs are.
        assert "\nunset USERNS_NODE_ROOT USERNS_NODE_PATH" in text
        self.file.write_text(text.replace("\nunset USERNS_NODE_ROOT USERNS_NODE_PATH", "\n: "))
        environment = {"PATH": os.environ["PATH"]}
        command = [*(shell or ["sh"]), str(self.file), *arguments]
        names = {"USERNS_NODE_ROOT": str(self.root), "USERNS_NODE_PATH": str(self.programs)}
        return subprocess.run(
            command, env=environment | names, capture_output=True, text=True, timeout=120, check=False
        )


def _fields(node: Node) -> list[tuple[str, tuple[str, str, str, str]]]:
    return [(name, (each.result, each.step, each.errno, each.detail)) for name, each in node.probes.items()]
