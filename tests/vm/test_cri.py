"""Pods as a kubelet asks for them over CRI, on nodes that the real deploy prepared: each kernel, runtime and volume."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping

import pytest

from lab import LabVM
from lab.kernels import KERNELS
from tests.vm import cri, pods, upstream
from tests.vm.cri import Container, Cri, CriError
from tests.vm.daemons import IMAGE as IMAGE_BESIDE
from tests.vm.daemons import Beside, Settings
from tests.vm.rollout import Rollout

HANDLERS = ("runc", "crun")
VOLUMES = ("plain", "ext4", "tmpfs")
# Where a kubelet has a token's tmpfs, and where the pod finds it.
POD = "pods/9587ef35-67eb-4fcb-9b57-a28fc23bd1fb"
PLACES = {
    "ext4": f"{POD}/volumes/kubernetes.io~csi/data/mount",
    "tmpfs": f"{POD}/volumes/kubernetes.io~projected/token",
}
INSIDE_AT = {"ext4": "/ext4", "tmpfs": "/var/run/secrets/kubernetes.io/serviceaccount"}
WORKS = {"5.10": (), "6.1": ("plain", "ext4"), "6.12": VOLUMES, "newest": VOLUMES}
CELLS = tuple(itertools.product(KERNELS, HANDLERS, VOLUMES))
HOME = "/var/lib/cri-test"
SOURCES = {name: f"{HOME}/{place}" for name, place in PLACES.items()}

# What the runtimes say where a pod or volume fails. On 5.10, with slow_chown: mount_setattr came with 5.12.
WORDS = {
    ("5.10", "runc"): r"failed to set MOUNT_ATTR_IDMAP on \S+: function not implemented",
    ("5.10", "crun"): r"shm.*: Permission denied",
    ("6.1", "runc"): rf"MOUNT_ATTR_IDMAP on {SOURCES['tmpfs']}: invalid argument \(maybe the file ?system used",
    ("6.1", "crun"): r"mount_setattr `/(var/)?run/secrets/\S+/serviceaccount` \(maybe .*\): Invalid argument",
}
# And what `python -m userns diagnose` makes of them.
MEANS = {
    ("5.10", "runc"): "volume-kernel-too-old",
    ("5.10", "crun"): "chowned-shm",
    ("6.1", "runc"): "tmpfs-volume-cannot-idmap",
    ("6.1", "crun"): "tmpfs-volume-cannot-idmap",
}
# Read by a shell that has no other program: its maps, its volume's mount, whose its volume is, and can it write there.
INSIDE = """
read -r map </proc/self/uid_map; echo uid_map $map
read -r map </proc/self/gid_map; echo gid_map $map
while read -r a a a a at how; do
    case $at in / | /ext4 | */serviceaccount) echo mount $at $how ;; esac
done </proc/self/mountinfo
[ ! -e $0/seed ] || { [ -O $0/seed ] && echo owner && echo hello >$0/written && echo written; }
"""

# What a container said, or why it does not run.
Outcome = str | CriError


def containers(runtime: Cri, image: str) -> Iterator[tuple[tuple[str, str], Outcome]]:
    """A pod with each handler, in it a container with each volume."""
    for handler in HANDLERS:
        try:
            with runtime.pod(handler) as pod:
                for volume in VOLUMES:
                    mounts = [] if volume == "plain" else [cri.mount(SOURCES[volume], INSIDE_AT[volume])]
                    try:
                        with pod.container(image, pods.SLEEP, mounts, name=volume) as container:
                            yield (handler, volume), said(container, volume)
                    except CriError as error:
                        yield (handler, volume), error
        except CriError as error:
            yield from (((handler, volume), error) for volume in VOLUMES)


def said(container: Container, volume: str) -> str:
    """What a container's shell says."""
    done = container.exec("/bin/sh", "-c", INSIDE, INSIDE_AT.get(volume, "/none"))
    assert done.code == 0, done
    return done.stdout


@pytest.fixture(scope="module")
def ready(rollout: Rollout) -> Iterator[Mapping[str, LabVM]]:
    """The deployed machines with all that pods need."""
    with pods.ready(rollout.vms) as vms:
        yield vms


@pytest.fixture(scope="module")
def claims(ready: Mapping[str, LabVM]) -> Mapping[str, Mapping[str, bool]]:
    """What each deployed containerd tells a kubelet of its runtime handlers."""

    def ask(kernel: str) -> Mapping[str, bool]:
        with cri.connect(ready[kernel]) as runtime:
            assert runtime.network_ready
            return runtime.handlers()

    return pods.everywhere(ask, ready)


@pytest.fixture(scope="module")
def outcomes(ready: Mapping[str, LabVM], beside: Beside) -> Mapping[tuple[str, str, str], Outcome]:
    """Every cell of the table, on all kernels at once."""

    def fill(kernel: str) -> Mapping[tuple[str, str], Outcome]:
        vm = ready[kernel]
        ext4, tmpfs = SOURCES["ext4"], SOURCES["tmpfs"]
        vm.ssh(f"mkdir -p {ext4} {tmpfs} && mount -t tmpfs tmpfs {tmpfs} && touch {ext4}/seed {tmpfs}/seed")
        try:
            if kernel == "5.10":
                # The deployed one refuses every pod (below); this one has slow_chown, which is as far as 5.10 gets.
                with beside.daemon(vm, "testing", Settings(slow_chown=True)) as daemon, daemon.cri() as runtime:
                    return dict(containers(runtime, IMAGE_BESIDE))
            with cri.connect(vm) as runtime:
                found = dict(containers(runtime, pods.IMAGE))
            # On the node they belong to root, whose IDs those of the pod are mapped to.
            written = vm.ssh(f"stat -c '%n %u:%g' {ext4}/written {tmpfs}/written", check=False).stdout.splitlines()
            assert written == [f"{SOURCES[name]}/written 0:0" for name in SOURCES if name in WORKS[kernel]]
            return found
        finally:
            vm.ssh(f"umount {tmpfs} && rm -r {HOME}")

    before = pods.everywhere(lambda kernel: pods.look(ready[kernel]), ready)
    filled = pods.everywhere(fill, ready)
    assert pods.changes(before, pods.everywhere(lambda kernel: pods.look(ready[kernel]), ready)) == []
    return {(kernel, *cell): outcome for kernel in ready for cell, outcome in filled[kernel].items()}


@pytest.mark.parametrize("kernel", KERNELS)
def test_containerd_claims_user_namespaces_whatever_the_kernel_can(
    claims: Mapping[str, Mapping[str, bool]], kernel: str
) -> None:
    assert claims[kernel] == {"": True, "runc": True, "crun": True}


@pytest.mark.parametrize(("kernel", "handler", "volume"), [cell for cell in CELLS if cell[2] in WORKS[cell[0]]])
def test_a_container_runs_with_an_idmapped_rootfs_and_an_idmapped_volume(
    outcomes: Mapping[tuple[str, str, str], Outcome], kernel: str, handler: str, volume: str
) -> None:
    outcome = outcomes[kernel, handler, volume]
    assert isinstance(outcome, str), outcome
    lines = outcome.splitlines()
    assert {"uid_map 0 65536 65536", "gid_map 0 65536 65536"} <= set(lines)
    mounts = {line.split()[1]: line for line in lines if line.startswith("mount ")}
    assert "lowerdir=/tmp/ovl-idmapped" in mounts["/"]
    if volume != "plain":
        [mount] = [line for at, line in mounts.items() if INSIDE_AT[volume] in (at, f"/var{at}")]
        assert "idmapped" in mount.split()[2].split(",")
        assert f" - {volume} " in mount
        assert lines[-2:] == ["owner", "written"]


@pytest.mark.parametrize(("kernel", "handler", "volume"), [cell for cell in CELLS if cell[2] not in WORKS[cell[0]]])
def test_a_container_fails_with_the_words_of_its_runtime_and_they_are_understood(
    outcomes: Mapping[tuple[str, str, str], Outcome], kernel: str, handler: str, volume: str
) -> None:
    outcome = outcomes[kernel, handler, volume]
    assert isinstance(outcome, CriError), outcome
    assert re.search(WORDS[kernel, handler], str(outcome)), outcome
    assert upstream.diagnosed(str(outcome)) == [MEANS[kernel, handler]]


@pytest.mark.parametrize("handler", HANDLERS)
def test_what_was_deployed_to_510_refuses_every_pod_in_containerds_own_words(
    ready: Mapping[str, LabVM], handler: str
) -> None:
    with cri.connect(ready["5.10"]) as runtime, pytest.raises(CriError) as caught, runtime.pod(handler):
        pass
    assert str(caught.value).endswith(f"failed to create containerd container: {upstream.REFUSAL}")
    assert upstream.diagnosed(str(caught.value)) == ["overlay-cannot-idmap-layers"]
