"""The disk that all virtual machines of the lab share: the nodes' own tree, and the modules of every kernel."""

from __future__ import annotations

import subprocess
from pathlib import Path

from lab import base, cache, kernels, network
from lab.errors import LabError
from lab.processes import leashed, tool

ADDRESS = "/etc/lab-address"
_INIT = "/usr/lib/lab/init"
_SIZE = "3G"
# SELinux labels a file by its path, where there is a policy (lab.selinux).
CONTEXTS = "/etc/selinux/default/contexts/files/file_contexts"

# The kernels have the disk, ext4 and the console built in, and find the root by themselves.
COMMAND_LINE = f"root=/dev/nvme0n1 rw quiet mitigations=off init={_INIT}"

# Process 1 until systemd takes its place, at every boot: what makes this virtual machine itself comes as a tar on a
# second disk, once; the network card's driver and its address are what a container gets from outside. There is no
# udev on this tree, as there is none on a node's.
_INIT_TEXT = f"""#!/bin/sh
PATH=/usr/sbin:/usr/bin:/sbin:/bin
mount -t devtmpfs devtmpfs /dev
mount -t proc proc /proc
mount -t sysfs sysfs /sys
if [ ! -e {ADDRESS} ]; then
    while [ ! -b /dev/nvme1n1 ]; do sleep 0.1; done
    mkdir -m 700 -p /root/.ssh
    tar --extract --file=/dev/nvme1n1 --directory=/ --no-same-owner && sync
    [ ! -e {CONTEXTS} ] || setfiles -F {CONTEXTS} /etc /root
fi
modprobe -a virtio_pci virtio_rng virtio_net
ip link set lo up
ip address add "$(cat {ADDRESS})" dev eth0
ip link set eth0 up
ip route add default via {network.CONTROLLER}
exec /sbin/init
"""


def image() -> Path:
    """The disk's image, built on first use. Nobody writes to it: each virtual machine has a layer of its own."""
    found = [kernels.fetched(name) for name in kernels.KERNELS]

    def build(into: Path) -> None:
        root = lay_out(into / "root", *found)
        of_tree(root, into / "disk.img")
        cache.remove_tree(root)

    recipe = cache.digest(Path(__file__).read_text(), base.tar().parent.name, *(kernel.release for kernel in found))
    return cache.once("vm-disk", recipe, build) / "disk.img"


def lay_out(root: Path, *found: kernels.Kernel) -> Path:
    """The nodes' own tree in the new directory `root`, with the modules of these kernels; not for a container."""
    root.mkdir()
    run(*base.UNPACK, str(base.tar()), "--directory", str(root))
    (root / "usr/lib/modules").mkdir(exist_ok=True)
    for kernel in found:
        run("cp", "-a", str(kernel.modules), str(root / "usr/lib/modules/"))
        run("chroot", str(root), "depmod", "-a", kernel.release)
    for unit in base.MASKED_FOR_THE_MACHINE:
        (root / "etc/systemd/system" / unit).unlink()
    return root


def of_tree(root: Path, disk: Path) -> None:
    """Make a disk of a tree with the modules of a kernel. What the lab needs to reach it is written into the tree."""
    init = root / _INIT.lstrip("/")
    init.parent.mkdir()
    init.write_text(_INIT_TEXT)
    init.chmod(0o755)
    (root / "etc/ssh/sshd_config.d/lab.conf").write_text(base.sshd_limits(root / "usr/sbin/sshd"))
    if (root / CONTEXTS.lstrip("/")).exists():
        run("chroot", str(root), "setfiles", "-F", CONTEXTS, "/")
    run(tool("mkfs.ext4"), "-q", "-F", "-m", "0", "-d", str(root), str(disk), _SIZE)


def run(*words: str) -> None:
    """Run a command of the making of a disk. Raises LabError."""
    done = subprocess.run([*leashed(), *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise LabError(f"the virtual machines' disk could not be built: {' '.join(words)}\n{done.stderr[-3000:]}")
