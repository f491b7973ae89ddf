"""What virtual machines need for pods beside the deployed containerd, and what is on them before and after."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from difflib import unified_diff
from typing import TypeVar

from lab import LabVM, Machine, cni
from tests.node.runs import image

IMAGE = "lab.invalid/pod:1"
SLEEP = ("/bin/sleep", "1000000")
_ARCHIVE = "/root/pod.tar"
_SPARE = "lab.invalid/spare:1"
Result = TypeVar("Result")

# Everything in which a pod, its volumes and its image can leave a trace.
_LOOK = """
ctr -n k8s.io images ls -q | sort
for what in containers tasks snapshots; do echo $what; ctr -n k8s.io $what ls | sed 1d | sort; done
echo content; ctr -n k8s.io content ls -q | sort
echo namespaces; ctr namespaces ls -q
echo files; ls -d /var/lib/kubelet /run/userns-node* /tmp/userns-node* /var/tmp/userns-node* 2>/dev/null
state=/run/containerd/io.containerd.grpc.v1.cri
find /run/netns $state/* /var/lib/containerd/io.containerd.grpc.v1.cri/* -mindepth 1 2>/dev/null | sort
echo mounts; grep -c userns-node /proc/mounts; grep -c ovl-idmapped /proc/mounts
echo cgroups; find /sys/fs/cgroup -type d -name '*cri-containerd*' -o -type d -name '*userns-node-check*'
"""


def everywhere(do: Callable[[str], Result], kernels: Mapping[str, LabVM]) -> dict[str, Result]:
    """Do something for every kernel, on all machines at once."""
    with ThreadPoolExecutor(len(kernels)) as threads:
        return dict(zip(kernels, threads.map(do, kernels), strict=True))


def look(vm: Machine) -> list[str]:
    """What of pods is on a machine."""
    return vm.ssh(_LOOK, check=False, timeout=vm.patience).stdout.splitlines()


def changes(before: Mapping[str, list[str]], after: Mapping[str, list[str]]) -> list[str]:
    """What is there that was not, and what is not that was, on each machine of `after`."""
    return [
        f"{kernel}: {line}"
        for kernel, lines in after.items()
        for line in unified_diff(before[kernel], lines, n=0, lineterm="")
    ]


def pause_image(vm: Machine) -> str:
    """The name of the image that every pod of the deployed containerd begins with."""
    config = tomllib.loads(vm.ssh("containerd config dump", timeout=vm.patience).stdout)
    name: str = config["plugins"]["io.containerd.cri.v1.images"]["pinned_images"]["sandbox"]
    return name


def give_pause(vm: Machine) -> None:
    """Have the pause image there. It is the same as IMAGE, which sleeps."""
    # What an import leaves that no image needs goes at some later moment; with --sync, at once.
    steps = (
        f"import {_ARCHIVE}",
        f"tag --force {IMAGE} {pause_image(vm)}",
        f"tag {IMAGE} {_SPARE}",
        f"rm --sync {_SPARE}",
    )
    vm.ssh(" && ".join(f"ctr -n k8s.io images {step}" for step in steps), timeout=vm.patience)


def take_pause(vm: Machine) -> None:
    """Have no image there, as before `give_pause`."""
    every = "for name in $(ctr -n k8s.io images ls -q); do ctr -n k8s.io images rm --sync $name; done"
    vm.ssh(every, timeout=vm.patience)


@contextmanager
def ready(vms: Mapping[str, LabVM], suite: str = "testing") -> Iterator[Mapping[str, LabVM]]:
    """Have a network for pods, by `suite`'s plugins, on each machine, and their images; the images go again."""
    # All machines have the same userland, so that one image does for all.
    content = image(next(iter(vms.values())), IMAGE, *SLEEP)

    def prepare(kernel: str) -> None:
        cni.install(vms[kernel], suite)
        vms[kernel].put(_ARCHIVE, content)
        give_pause(vms[kernel])

    everywhere(prepare, vms)
    yield vms
    everywhere(lambda kernel: take_pause(vms[kernel]), vms)
