"""The proof on real kernels: how far it goes with what a node has, why not further, and that nothing is left of it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest

from lab import LabVM
from tests.node.runs import Run
from tests.vm import cri, pods
from tests.vm.rollout import Rollout

# On 5.10 no container starts at all.
KERNELS = ("6.1", "6.12", "newest")
# The script on the node, and whoever it has forked; not this shell, in which the name stands among others.
KILL = """
for process in /proc/[0-9]*; do
    ! tr '\\0' '\\n' <$process/cmdline | grep -qx verify.sh || kill -KILL ${process#/proc/}
done 2>/dev/null
:
"""


def levels(run: Run, vm: LabVM) -> list[str]:
    """What a run says of how far it went on a machine."""
    mark = "note proof-level: "
    return [line.removeprefix(mark) for line in run.said(vm) if line.startswith(mark)]


@dataclass(frozen=True)
class Proofs:
    """Runs of the proof alone, as an operator asks for it, with what was on the machines before and after.

    `whole` ran where all is there for pods, and beside them a pod that is none of its business. Then `killed` was cut
    off on 6.1 in the midst of a pod, which left what is in `remains`; on 6.12 the pause image went, and on the newest
    kernel a kubelet came; and `less` ran on them.
    """

    vms: Mapping[str, LabVM]
    whole: Run
    killed: Run
    less: Run
    looks: tuple[Mapping[str, list[str]], ...]
    strangers: tuple[list[str], ...]
    remains: list[str]


def _kill(rollout: Rollout, kernel: str) -> tuple[Run, list[str]]:
    """Cut the proof off when the container of its pod is there, and return what it said and what is left."""
    vm = rollout.vms[kernel]
    with ThreadPoolExecutor(1) as threads:
        running = threads.submit(rollout.prove, kernel)
        end = time.monotonic() + vm.patience
        while len(vm.ssh("ctr -n k8s.io tasks ls -q", timeout=vm.patience).stdout.split()) < 2:
            assert not running.done(), running.result().text
            assert time.monotonic() < end
            time.sleep(0.2)
        vm.ssh(KILL)
        return running.result(), pods.look(vm)


@pytest.fixture(scope="module")
def proofs(rollout: Rollout) -> Iterator[Proofs]:
    """All the runs: a machine each for what is different, as each run takes its time."""
    vms = {kernel: rollout.vms[kernel] for kernel in KERNELS}
    with pods.ready(vms):
        before = pods.everywhere(lambda kernel: pods.look(vms[kernel]), vms)
        with cri.connect(vms["newest"]) as runtime, runtime.pod() as stranger:
            whole = rollout.prove(*KERNELS)
            strangers = ([stranger.id], runtime.pods())
        after = pods.everywhere(lambda kernel: pods.look(vms[kernel]), vms)
        killed, remains = _kill(rollout, "6.1")
        pods.take_pause(vms["6.12"])
        vms["newest"].ssh("systemd-run --quiet --unit=kubelet sleep infinity")
        try:
            less = rollout.prove(*KERNELS)
        finally:
            vms["newest"].ssh("systemctl stop kubelet")
        at_last = pods.look(vms["6.1"])
        without = pods.look(vms["6.12"])
        pods.give_pause(vms["6.12"])
        looks = (before, after, {"6.1": at_last, "6.12": without})
        yield Proofs(vms, whole, killed, less, looks, strangers, remains)


@pytest.mark.parametrize("kernel", ["6.12", "newest"])
def test_a_pod_with_volumes_is_proven_where_the_kernel_can_all(proofs: Proofs, kernel: str) -> None:
    assert proofs.whole.code == 0, proofs.whole.text
    [level] = levels(proofs.whole, proofs.vms[kernel])
    assert level.startswith("runc, crun: up to pod-with-volumes: ")


def test_on_61_a_pod_is_proven_and_that_its_tmpfs_volume_fails_is_expected(proofs: Proofs) -> None:
    told = levels(proofs.whole, proofs.vms["6.1"])
    assert [level.split(": ")[0] for level in told] == ["runc", "crun"]
    for level, words in zip(told, ("failed to set MOUNT_ATTR_IDMAP on ", "mount_setattr `/tmpfs`"), strict=True):
        assert "up to pod: a pod over CRI with a volume in the kubelet's root. More fails, as is to be" in level
        assert words in level
        assert "invalid argument" in level.casefold()


@pytest.mark.parametrize("kernel", KERNELS)
def test_nothing_is_left_of_it(proofs: Proofs, kernel: str) -> None:
    before, after, _ = proofs.looks
    assert pods.changes(before, {kernel: after[kernel]}) == []


def test_another_pod_on_the_node_is_left_alone(proofs: Proofs) -> None:
    its_own, found = proofs.strangers
    assert found == its_own


def test_what_a_killed_run_left_the_next_one_takes_away(proofs: Proofs) -> None:
    before, _, after = proofs.looks
    assert proofs.killed.code == 1
    assert "the proof was cut off" in proofs.killed.text
    assert "/var/lib/kubelet" in proofs.remains
    assert pods.changes(before, {"6.1": proofs.remains}) != []
    assert pods.changes(before, {"6.1": after["6.1"]}) == []
    # And it proves as much as if nothing had been there.
    assert all("up to pod: " in level for level in levels(proofs.less, proofs.vms["6.1"]))


def test_without_the_pause_image_the_level_is_container_and_the_image_is_named(proofs: Proofs) -> None:
    vm = proofs.vms["6.12"]
    [level] = levels(proofs.less, vm)
    assert level.startswith("runc, crun: up to container: ")
    assert f"could not be pulled: {pods.pause_image(vm)}: " in level
    before, _, after = proofs.looks
    assert not any("pause" in line for line in after["6.12"])
    assert not any("userns-node" in line for line in set(after["6.12"]) - set(before["6.12"]))


def test_while_a_kubelet_runs_there_are_no_pods_and_the_level_says_why(proofs: Proofs) -> None:
    [level] = levels(proofs.less, proofs.vms["newest"])
    why = "a kubelet runs on this node, and ends every pod that it does not know"
    assert level == f"runc, crun: up to container: a container, through ctr, and not more: {why}"
    assert proofs.less.code == 0, proofs.less.text
