"""The proof on real kernels: how far it goes with what a node has, why not further, and that nothing is left of it."""

from __future__ import annotations

import pytest

from lab import LabVM
from tests.node.runs import Run
from tests.vm import pods
from tests.vm.proofs import KERNELS, Proofs


def levels(run: Run, vm: LabVM) -> list[str]:
    """What a run says of how far it went on a machine."""
    mark = "note proof-level: "
    return [line.removeprefix(mark) for line in run.said(vm) if line.startswith(mark)]


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
    before, after, _ = proofs.looks
    assert proofs.killed.code == 1
    assert "the proof was cut off" in proofs.killed.text
    assert "/var/lib/kubelet" in proofs.remains
    assert pods.changes(before, {"6.1": proofs.remains}) != []
    assert pods.changes(before, {"6.1": after["6.1"]}) == []
    # And it proves as much as if nothing had been there.
    told = levels(proofs.whole, proofs.vms["6.1"])
    assert len(told) == 2
    assert all("up to pod: " in level for level in told)


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
    assert level.startswith(f"runc, crun: up to container: a container, through ctr, and not more: {why} (")
    assert proofs.less.code == 0, proofs.less.text
