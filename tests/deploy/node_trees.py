"""The node script against trees: a directory that it takes for a node's root, the programs on its PATH, and a shell."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path

from tasks.node import text
from userns.node import Node
from userns.reading import read

ROOT = os.geteuid() == 0
PROBE = Path(__file__).parents[2] / "tasks/scripts/probe.sh"
# What this machine's kernel has to say of a tmpfs.
TMPFS = "ok" if tuple(map(int, os.uname().release.split(".")[:2])) >= (6, 3) else "cannot mount_setattr EINVAL"
# What is on PATH in a tree, where this machine has it.
EVERYDAY = [
    *("awk", "busybox", "cat", "dpkg-query", "grep", "ls", "perl", "printf", "readlink", "sha256sum", "sleep", "stat"),
    *("systemd-detect-virt", "timeout", "tr", "uname"),
]


class Tree:
    """A directory that the script takes for the root of a node, and the programs that are on its PATH."""

    def __init__(self, root: Path, programs: Path) -> None:
        self.root, self.programs = root, programs

    def write(self, path: str, content: str | bytes = "", mode: int = 0o644) -> Path:
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content if isinstance(content, bytes) else content.encode())
        target.chmod(mode)
        return target

    def program(self, name: str, body: str) -> None:
        """A program on PATH, in place of the real one."""
        (self.programs / name).unlink(missing_ok=True)
        (self.programs / name).write_text(f"#!/bin/sh\n{body}\n")
        (self.programs / name).chmod(0o755)

    def only(self, *names: str) -> None:
        """No other programs than these on PATH."""
        for each in self.programs.iterdir():
            each.unlink()
        link(self.programs, names)

    def run(self, shell: list[str] | None = None, **options: str) -> list[str]:
        return run(
            shell or ["sh"], {"USERNS_NODE_ROOT": str(self.root), "USERNS_NODE_PATH": str(self.programs)}, **options
        )

    def read(self, shell: list[str] | None = None, **options: str) -> Node:
        return read(self.run(shell, **options))


def link(directory: Path, names: Iterable[str]) -> None:
    for name in names:
        if found := shutil.which(name):
            (directory / name).symlink_to(found)


def kubelet(tree: Tree, *flags: str, pid: int = 700, cgroup: str = "/system.slice/x.service") -> None:
    """A kubelet that runs."""
    tree.write(f"proc/{pid}/comm", "kubelet\n")
    tree.write(f"proc/{pid}/cgroup", f"1:name=systemd:{cgroup}\n0::{cgroup}\n")
    tree.write(f"proc/{pid}/cmdline", "".join(f"{word}\0" for word in ("/usr/bin/kubelet", *flags)))


def run(
    shell: list[str],
    environment: Mapping[str, str] | None = None,
    containerd_root: str = "/var/lib/containerd",
    kubelet_root: str = "/var/lib/kubelet",
    verify_digests: str = "no",
) -> list[str]:
    interpreter = shutil.which(shell[0])
    assert interpreter
    done = subprocess.run(
        [interpreter, *shell[1:], "-c", text(), "node.sh", containerd_root, kubelet_root, verify_digests],
        env={"PATH": os.environ["PATH"], **(environment or {})},
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b""), (done.returncode, done.stderr)
    output = done.stdout.decode("ascii")
    assert all(letter.isprintable() or letter in "\t\n" for letter in output)
    return output.splitlines()


def private(script: str) -> list[str]:
    """The beginning of a command that runs in a mount namespace after `script`."""
    return ["unshare", "-m", "--propagation", "private", "sh", "-c", f'{script}; exec "$@"', "sh"]


def process(tree: Tree, pid: int, name: str, *words: str, cgroup: str = "/system.slice/x.service") -> None:
    """A process of the tree's node."""
    tree.write(f"proc/{pid}/comm", f"{name}\n")
    tree.write(f"proc/{pid}/cmdline", "".join(f"{word}\0" for word in words))
    tree.write(f"proc/{pid}/cgroup", f"1:name=systemd:/\n0::{cgroup}\n")
    (tree.root / f"proc/{pid}/exe").symlink_to(words[0] if words else "/gone")


def probe(*directories: str | Path, before: Iterable[str] = ()) -> dict[str, str]:
    """probe.sh on its own: result, step and errno by name."""
    # Its text: who is in a user namespace may not come as far as this checkout.
    command = [*before, "sh", "-c", PROBE.read_text(), PROBE.name, *map(str, directories)]
    lines = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=60).stdout.splitlines()
    answers = [line.split("\t") for line in lines]
    assert all(len(fields) == 6 and fields[0] == "probe" for fields in answers)
    return {fields[1]: " ".join(fields[2:5]).strip() for fields in answers}
