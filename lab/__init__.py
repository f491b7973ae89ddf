"""Real nodes on one machine: Debian containers with their own systemd and sshd, reached over SSH.

    from lab import Lab

    with Lab() as lab:
        node = lab.node("worker")
        print(node.ssh("systemctl is-system-running").stdout)

The demo and the tests use it; the deploys themselves never do.
"""

from lab.errors import LabError
from lab.machine import Machine
from lab.node import LabNode
from lab.vm import LabVM
from lab.world import Lab

__all__ = ["Lab", "LabError", "LabNode", "LabVM", "Machine"]
