"""What reading a node makes it write: nothing that others have not yet written.

The end of a mount of overlay that can be written to writes out all that waits on the file system below it, and whoever
reads the node waits for that: minutes, on a node with much memory and a slow disk.
"""

from __future__ import annotations

import re

import pytest

from lab import LabVM
from lab.kernels import KERNELS
from tasks.files import script
from tasks.node import text

WAITING_KIB = 24 * 1024
WITHOUT_PERL = "mount --bind /bin/false /usr/bin/perl; trap 'umount /usr/bin/perl; tidy' EXIT"
READ = "sh /root/node.sh /var/lib/containerd /var/lib/kubelet no"
PROBE = "sh /root/probe.sh /var/lib/containerd"


def written(vm: LabVM, command: str, before: str = ":") -> tuple[int, str]:
    """The KiB that the root's file system writes while the command runs, with so much waiting; and what it says."""
    vm.put("/root/node.sh", text().encode(), 0o600)
    vm.put("/root/probe.sh", script("probe.sh").encode(), 0o600)
    said = vm.ssh(f"""
        tidy() {{
            rm -rf /root/node.sh /root/probe.sh /var/lib/containerd/waiting
            rmdir /var/lib/containerd 2>/dev/null
            echo "$every" >/proc/sys/vm/dirty_writeback_centisecs
        }}
        every=$(cat /proc/sys/vm/dirty_writeback_centisecs)
        trap tidy EXIT
        mkdir -p /var/lib/containerd
        {before}
        sync
        echo 0 >/proc/sys/vm/dirty_writeback_centisecs # else the kernel may think that it is time
        dd if=/dev/zero of=/var/lib/containerd/waiting bs=1024 count={WAITING_KIB} 2>/dev/null
        cat /sys/fs/ext4/*/session_write_kbytes
        {command}
        cat /sys/fs/ext4/*/session_write_kbytes""").stdout
    first, *answer, last = said.splitlines()
    return int(last) - int(first), "\n".join(answer)


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_read_node_writes_nothing_out(vms: dict[str, LabVM], kernel: str) -> None:
    kib, said = written(vms[kernel], READ)
    assert re.search(r"^probe\toverlay\t(ok|cannot)", said, re.MULTILINE), said
    assert kib < WAITING_KIB / 4


@pytest.mark.parametrize("kernel", ["6.12"])
def test_nor_does_one_without_perl(vms: dict[str, LabVM], kernel: str) -> None:
    kib, said = written(vms[kernel], PROBE, before=WITHOUT_PERL)
    assert "probe\t/var/lib/containerd overlay\tok" in said, said
    assert kib < WAITING_KIB / 4


def test_and_such_a_mount_does(vms: dict[str, LabVM]) -> None:
    """That what is measured above can be seen at all."""
    overlay = "cd /var/lib/containerd && mkdir l u w m && mount -t overlay -o lowerdir=l,upperdir=u,workdir=w o m"
    kib, _ = written(vms["6.12"], f"({overlay} && umount m && rm -r l u w m)")
    assert kib >= WAITING_KIB
