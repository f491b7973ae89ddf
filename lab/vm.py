"""A virtual machine of the lab: the same Debian as the nodes', on a kernel of its own.

    from lab import Lab
    from lab.kernels import KERNELS                 # "5.10", "6.1", "6.12" and "newest"

    with Lab() as lab:
        vm = lab.vm("old", kernel="5.10")           # wait=False, and vm.wait() later: several boot at once
        print(vm.release, vm.ssh("uname -r").stdout)
        vm.put("/etc/some.conf", b"text", 0o644)    # and vm.get(path)
        vm.reboot(); vm.cut_power(); vm.start(); vm.wait()

It is reached like a node and from there: `lab.ssh_data(vm)`, `lab.serve(mirror)`. It is emulated by QEMU without the
help of the processor, which takes 20 seconds of a processor for a boot and slows everything down some 15 times, but
needs nothing of the machine. Its disk is a layer over one that all share; reboots and power cuts keep the layer.
With `disk=PATH`, an image of `lab.disk.of_tree` under the build directory, it is a layer over that one; `options` are
the kernel's, beside the lab's own.
"""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

from lab import disk, kernels, network
from lab.errors import LabError
from lab.machine import Machine
from lab.processes import tool

if TYPE_CHECKING:
    from lab.world import Lab

TUN = Path("/dev/net/tun")

# As process 1 of its cgroup from the first instruction on, so that nothing of it escapes the keeper.
_IN_CGROUP = 'echo $$ > "$1/cgroup.procs"; shift; exec "$@"'

# Nehalem has what Debian's userland needs, and emulating what later processors have costs more than it gives.
# One processor: QEMU 7.2 emulates several in threads, and a kernel that patches itself for them then oopses at times.
# -icount makes the guest's clock count instructions while it works and run with the machine's only while it waits: on
# a slow machine nothing in the guest runs into a time limit, because its own time is as slow.
# tb-size is for translated code, in MiB: a deploy fills 128 of them, and then all is thrown away and translated again.
_PROCESSOR = ("-accel", "tcg,tb-size=512", "-icount", "shift=1", "-m", "768")
# By the architecture of the kernel: the emulator, the machine with its processor, and the console of kernels there.
_EMULATED = {
    "amd64": ("qemu-system-x86_64", ("-M", "pc", "-cpu", "Nehalem"), "ttyS0"),
    "arm64": ("qemu-system-aarch64", ("-M", "virt", "-cpu", "cortex-a57"), "ttyAMA0"),
}


class LabVM(Machine):
    """One virtual machine. `kernel` is the name of its kernel, `release` is what `uname -r` says there."""

    # 20 s on a quiet machine with a processor to itself; several at once share it, and a machine may be slow.
    patience = 1500
    pause = 1

    def __init__(
        self, lab: Lab, name: str, kernel: str, number: int, shared: Path | None = None, options: str = ""
    ) -> None:
        super().__init__(lab, name, number)
        self.kernel = kernel
        self._shared, self._options = shared, options
        self.disk = self.home / "disk.qcow2"
        self._image = self.home / "vmlinuz"
        self._seed = self.home / "seed.tar"
        self._port = f"port{number}"

    @property
    def release(self) -> str:
        """The kernel's release."""
        return kernels.fetched(self.kernel).release

    def create(self) -> None:
        """Make its layer of the disk and what makes it itself, and plug it into the lab's network."""
        if not TUN.exists():
            raise LabError(f"this machine has no {TUN}, which joins a virtual machine to the lab's network")
        self.home.mkdir(parents=True)
        # Links, because whoever builds a new disk or kernel meanwhile removes the old one from the cache.
        self._image.hardlink_to(kernels.fetched(self.kernel).image)
        shared = self.home / "shared.img"
        shared.hardlink_to(self._shared or disk.image())
        layer = ["create", "-q", "-f", "qcow2", "-F", "raw", "-b", shared.name, str(self.disk)]
        self.lab.run([tool("qemu-img"), *layer], cwd=self.home)
        self._make_host_key(self.home / "ssh_host_ed25519_key")
        self._seed.write_bytes(self._own_tar())
        self.lab.run(["sh", "-euc", network.plug_in_tap(self._port)])

    def _own_tar(self) -> bytes:
        files = {path: (text.encode(), 0o644) for path, text in self._own_files().items()}
        for name, mode in (("ssh_host_ed25519_key", 0o600), ("ssh_host_ed25519_key.pub", 0o644)):
            files[f"etc/ssh/{name}"] = ((self.home / name).read_bytes(), mode)
        files[disk.ADDRESS.lstrip("/")] = (f"{self.address}/{network.PREFIX}\n".encode(), 0o644)
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as tar:
            for path, (content, mode) in files.items():
                entry = tarfile.TarInfo(path)
                entry.size, entry.mode = len(content), mode
                tar.addfile(entry, io.BytesIO(content))
        return packed.getvalue()

    def start(self) -> None:
        """Boot (again, after `cut_power`), and do not wait for it."""
        self.cgroup.mkdir()
        group_inside = Path("/sys/fs/cgroup", self.lab.cgroup.name, self.name)
        mac = "52:54:00:" + ":".join(f"{int(part):02x}" for part in self.address.split(".")[1:])
        # What the guest has flushed is in the machine's page cache, which a killed QEMU does not take along: "unsafe"
        # is as safe as a disk here, and spares the machine's disk. But write-cache=off: QEMU's nvme ignores that a
        # write has to last by itself (FUA), as that of a journal's commit has to, and the layer's table would not tell
        # where such a block lies (one commit in four was lost).
        emulator, machine, console = _EMULATED[kernels.fetched(self.kernel).architecture]
        words = [tool(emulator), "-nodefaults", "-no-user-config", "-display", "none", *machine, *_PROCESSOR]
        words += ["-kernel", str(self._image), "-append", f"{disk.COMMAND_LINE} console={console} {self._options}"]
        words += ["-serial", f"file:{self.console}"]
        words += ["-drive", f"if=none,id=disk,file={self.disk},format=qcow2,cache=unsafe"]
        words += ["-device", "nvme,drive=disk,serial=disk,write-cache=off"]
        words += ["-drive", f"if=none,id=seed,file={self._seed},format=raw,cache=unsafe"]
        words += ["-device", "nvme,drive=seed,serial=seed"]
        words += ["-netdev", f"tap,id=net,ifname={self._port},script=no,downscript=no"]
        words += ["-device", f"virtio-net-pci,netdev=net,romfile=,mac={mac}", "-device", "virtio-rng-pci"]
        in_cgroup = ["env", f"TMPDIR={self.home}", "sh", "-c", _IN_CGROUP, "boot", str(group_inside)]
        self._process = self.lab.start([*in_cgroup, *words], self.console, self.home)

    def _unplug(self) -> None:
        self.lab.run(["ip", "link", "delete", self._port], check=False)
