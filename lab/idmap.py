"""What nodes need of this machine's kernel, which they share: asked of the kernel as a deploy asks it on a node."""

from __future__ import annotations

import os
import subprocess

from lab.paths import REPO
from lab.processes import tool

PROBE = REPO / "tasks/scripts/probe.sh"
_ASK = '. "$1"; probe "$(uname -m)" no tmpfs tmpfs -'


def lacking() -> str:
    """Why no deploy to a node can succeed on this machine, in one line; "" where it can, or nothing can be said."""
    asked = [tool("sh"), "-c", _ASK, "idmap", str(PROBE)]
    said = subprocess.run(asked, stdout=subprocess.PIPE, text=True, check=False).stdout
    fields = said.rstrip("\n").split("\t")
    # Any other step says something of a container that this machine is, and the deploy itself tells that well.
    if fields[2:4] != ["cannot", "mount_setattr"]:
        return ""
    return f"this machine's kernel {os.uname().release} has no idmapped tmpfs: 6.3 or later is needed"
