"""What a node needs to run pods, beside a runtime: CNI plugins, and a network that never leaves the node."""

from __future__ import annotations

import io
import json
import subprocess
import tarfile
from pathlib import Path

from lab import cache, debs
from lab.errors import LabError
from lab.machine import Machine
from lab.processes import tool

PLUGINS = ("loopback", "ptp", "host-local")
DIRECTORY = "/opt/cni/bin"  # containerd's default, as is the directory of the config
CONFIG = "/etc/cni/net.d/10-lab.conflist"

_SUBNET = {"type": "host-local", "ranges": [[{"subnet": "10.88.0.0/16"}]]}
_NETWORK = {"cniVersion": "1.0.0", "name": "lab", "plugins": [{"type": "ptp", "ipMasq": False, "ipam": _SUBNET}]}


def install(machine: Machine, suite: str = "testing") -> None:
    """Put the plugins of `suite` and the network's config on a node; containerd sees them at once."""
    archive = "/root/cni.tar.gz"
    machine.put(archive, _plugins(suite).read_bytes())
    machine.ssh(f"mkdir -p {DIRECTORY} && tar -xzf {archive} -C {DIRECTORY} && rm {archive}")
    machine.put(CONFIG, json.dumps(_NETWORK).encode())


def _plugins(suite: str) -> Path:
    """Debian's plugins in one archive: a slow machine pays for each of them that is not needed."""
    packages = debs.fetched(suite)

    def build(into: Path) -> None:
        (deb,) = packages.glob("containernetworking-plugins_*.deb")
        content = subprocess.run([tool("dpkg-deb"), "--fsys-tarfile", str(deb)], capture_output=True, check=True).stdout
        wanted = {f"./usr/lib/cni/{name}": name for name in PLUGINS}
        found = []
        with tarfile.open(fileobj=io.BytesIO(content)) as have, tarfile.open(into / "cni.tar.gz", "w:gz") as give:
            for member in have:
                if member.name in wanted and (program := have.extractfile(member)):
                    member.name = wanted[member.name]
                    found.append(member.name)
                    give.addfile(member, program)
        if sorted(found) != sorted(PLUGINS):
            raise LabError(f"Debian's CNI plugins are not as expected: {deb.name} has only {', '.join(found)}")

    recipe = cache.digest(Path(__file__).read_text(), packages.name)
    return cache.once(f"cni-{suite}", recipe, build) / "cni.tar.gz"
