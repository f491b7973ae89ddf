"""SELinux's files as a kernel has them, for scripts that are given a directory in the place of /."""

from __future__ import annotations

from pathlib import Path

RUNTIME = "system_u:system_r:container_runtime_t:s0"
INIT = "system_u:system_r:init_t:s0"


def enforce(root: Path, allowed: str, flags: str = "0") -> None:
    """SELinux is enforced, and allows the domain RUNTIME these permissions (hexadecimal, a bit each).

    `matchpathcon` has to print "label of" its arguments. An answer of the kernel's is read from the place in the file
    up to which the question was written: it stands behind as much as that takes.
    """
    question = f"{INIT} label of -N -n -m file /usr/local/bin/containerd 2"
    files = {
        "enforce": "1",
        "class/process/index": "2",
        "class/process/perms/ptrace": "6",
        "create": "?" * len(question) + RUNTIME,
        "access": "?" * len(f"{RUNTIME} {RUNTIME} 2") + f"{allowed} ffffffff 0 ffffffff 17 {flags}",
    }
    for name, content in files.items():
        target = root / "sys/fs/selinux" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(content)
    (root / "proc/1/attr").mkdir(parents=True, exist_ok=True)
    (root / "proc/1/attr/current").write_text(f"{INIT}\0")
