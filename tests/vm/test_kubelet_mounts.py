"""What the tables say of a pod's volumes, against what each kernel says of the very same mounts."""

from __future__ import annotations

import pytest

from lab import LabVM
from lab.kernels import KERNELS
from tasks.files import script
from tasks.node import text
from userns.kubelet import mounts as kubelet_mounts
from userns.reading import read

VOLUMES = "/var/lib/kubelet/pods/tables/volumes"
# What every kernel here has without a module or a program of its own.
MOUNTS = {
    "ramfs": "none",
    "hugetlbfs": "none",
    "overlay": "-o lowerdir=/usr,upperdir=/run/tables/upper,workdir=/run/tables/work none",
}


# One connection for all of it: each costs a machine that is emulated a second.
LOOK = f"""
clean() {{
    umount {VOLUMES}/*
    rm -rf {VOLUMES} /run/tables /root/node.sh /root/probe.sh
    rmdir -p {VOLUMES.rpartition("/")[0]} 2>/dev/null
    [ "$overlay" = yes ] || rmmod overlay
}}
overlay=no
[ ! -d /sys/module/overlay ] || overlay=yes
trap clean EXIT
mkdir -p /run/tables/upper /run/tables/work {" ".join(f"{VOLUMES}/{name}" for name in MOUNTS)}
{"".join(f"mount -t {name} {source} {VOLUMES}/{name} || exit 1; " for name, source in MOUNTS.items())}
sh /root/node.sh /var/lib/containerd /var/lib/kubelet no && sh /root/probe.sh {VOLUMES}/*
"""


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_mount_is_named_where_this_kernel_cannot_idmap_it(vms: dict[str, LabVM], kernel: str) -> None:
    vm = vms[kernel]
    vm.put("/root/node.sh", text().encode(), 0o600)
    vm.put("/root/probe.sh", script("probe.sh").encode(), 0o600)
    said = vm.ssh(LOOK).stdout.splitlines()
    node = read(said)
    places = {name: f"{VOLUMES}/{name}" for name in MOUNTS}
    assert {name: mounts.paths for name, mounts in node.kubelet_mounts.items()} == {
        name: (place,) for name, place in places.items()
    }
    answers = {fields[1]: fields[2] for fields in (line.split("\t") for line in said) if fields[0] == "probe"}
    cannot = {name for name, place in places.items() if answers[place] == "cannot"}
    told = {each.id: each.message for each in kubelet_mounts.findings(node)}
    if kernel == "5.10":  # it has no idmapped mounts at all, and that is told once for all
        assert (cannot, told) == (set(places), {})
    else:
        assert {name for name, place in places.items() if place in told["volumes-cannot-idmap"]} == cannot
        assert set(told) == {"volumes-cannot-idmap"}
