"""A boot brings back what the deploy has set, by each of the two ways alone; and what is lost, the next run finds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pytest

from lab.kernels import KERNELS
from tests.node.runs import Run
from tests.vm.boots import CUT, DROP_IN, HOOK, OTHER_PAUSE, OVERRULES, TAKEN_AWAY, Booted, Boots, Cut, Told
from tests.vm.proofs import Proofs
from tests.vm.rollout import METACOPY, NAMESPACES, Rollout
from tests.vm.test_kernels import HANDLERS, PROVES_AGAIN, TIERS, WORKING

KEPT = [kernel for kernel in KERNELS if kernel != "6.1"]


@dataclass(frozen=True)
class Reboots:
    """What each virtual machine was after its boot, and what became of it.

    `proof` is what real containers showed before anything was mended; then `run` deployed to all of them, and `again`
    to 6.1, without what overruled it.
    """

    booted: Mapping[str, Booted]
    told: Mapping[str, Told]
    cut: Cut
    proof: Run
    run: Run
    again: Run


@pytest.fixture(scope="module")
def reboots(rollout: Rollout, booted: Boots, proofs: Proofs) -> Reboots:
    """The deploy, which mends what was taken away."""
    run = rollout.deploy(*rollout.vms)
    rollout.vms["6.1"].ssh(f"rm {' '.join(OVERRULES)}")
    return Reboots(booted.booted, booted.told, booted.cut, proofs.whole, run, rollout.deploy("6.1"))


@pytest.mark.parametrize("kernel", KEPT)
def test_metacopy_is_on_after_a_boot(reboots: Reboots, kernel: str) -> None:
    assert reboots.booted[kernel].metacopy == "Y"


def test_modprobe_d_alone_turns_metacopy_on(reboots: Reboots) -> None:
    assert reboots.booted["6.12"] == Booted("Y", "16384", "enabled active running", "")


def test_the_hook_alone_turns_metacopy_on_before_containerd_mounts_anything(reboots: Reboots) -> None:
    booted = reboots.booted["newest"]
    assert booted.metacopy == "Y"
    assert booted.hook == "userns-node: overlay is there, metacopy set to Y"


def test_with_both_the_hook_finds_it_on(reboots: Reboots) -> None:
    assert reboots.booted["5.10"].hook == "userns-node: overlay is there, metacopy=Y already"


@pytest.mark.parametrize("kernel", KERNELS)
def test_containerd_is_enabled_and_runs_after_a_boot(reboots: Reboots, kernel: str) -> None:
    service, _, system = reboots.booted[kernel].service.rpartition(" ")
    assert service == "enabled active"
    # On 5.10 the check says by its unit that the node is not ready, as soon as it has run.
    assert system == "running" or kernel == "5.10"


@pytest.mark.parametrize("kernel", KEPT)
def test_the_sysctl_is_as_high_after_a_boot(reboots: Reboots, kernel: str) -> None:
    assert reboots.booted[kernel].namespaces == "16384"


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_tier_is_the_same_after_a_boot(rollout: Rollout, reboots: Reboots, kernel: str) -> None:
    assert f"tier {TIERS[kernel]}" in reboots.run.said(rollout.vms[kernel])


@pytest.mark.parametrize("kernel", WORKING)
@pytest.mark.parametrize("handler", HANDLERS)
def test_after_a_boot_containers_run_on_idmapped_layers_before_anything_is_mended(
    rollout: Rollout, reboots: Reboots, kernel: str, handler: str
) -> None:
    said = reboots.proof.said(rollout.vms[kernel])
    [proven] = [line for line in said if line.startswith(f"{handler}: proven")]
    assert "root is host uid 65536, uid_map 0 65536 65536, an idmapped rootfs" in proven


@pytest.mark.parametrize("kernel", KERNELS)
def test_after_a_boot_the_check_has_run_by_itself_and_the_boot_did_not_wait_for_it(
    rollout: Rollout, reboots: Reboots, kernel: str
) -> None:
    told, tier = reboots.told[kernel], TIERS[kernel].partition(":")[0]
    assert told.answer["tier"] == tier
    reached, began = told.times
    assert 0 < reached <= began
    [line] = told.journal
    assert line.startswith(f"userns-node: {told.answer['verdict']}, tier {tier}")
    assert rollout.vms[kernel].ssh("systemctl is-enabled userns-node-check").stdout == "enabled\n"


@pytest.mark.parametrize(
    ("kernel", "verdict", "found"),
    [
        ("5.10", "not-ready", None),
        ("6.1", "degraded", ["file-changed", "max-user-namespaces-low", "metacopy-not-set"]),
        ("6.12", "degraded", ["file-changed"]),
        ("newest", "degraded", ["file-changed"]),
    ],
)
def test_after_a_boot_the_check_says_what_was_not_kept(
    reboots: Reboots, kernel: str, verdict: str, found: list[str] | None
) -> None:
    answer = reboots.told[kernel].answer
    assert answer["verdict"] == verdict
    assert found is None or sorted(each["id"] for each in answer["findings"] if not each["known"]) == found


def test_after_a_boot_there_is_nothing_to_do_but_to_prove_what_was_not_proven(
    rollout: Rollout, reboots: Reboots
) -> None:
    vm = rollout.vms["5.10"]
    assert reboots.run.will(vm) == [PROVES_AGAIN]
    assert reboots.run.done(vm) == []


def test_what_was_overruled_at_a_boot_is_found_by_the_next_run(rollout: Rollout, reboots: Reboots) -> None:
    booted, vm = reboots.booted["6.1"], rollout.vms["6.1"]
    assert (booted.metacopy, booted.namespaces, booted.hook) == ("N", "5000", "")
    will = [each.partition(": ")[0] for each in reboots.run.will(vm)]
    assert will == [
        f"write {DROP_IN}",
        f"write {HOOK}",
        "set user.max_user_namespaces = 16384",
        "set overlay metacopy=Y in the running kernel",
    ]
    found = reboots.run.findings(vm)
    assert (found["modprobe-metacopy"], found["sysctl-overridden"]) == ("warning", "warning")
    for path in OVERRULES:
        assert path in "\n".join(reboots.run.said(vm))


def test_without_what_overruled_it_the_node_is_as_it_should_be(rollout: Rollout, reboots: Reboots) -> None:
    vm = rollout.vms["6.1"]
    assert (reboots.again.code, reboots.again.will(vm)) == (0, [])
    assert {"modprobe-metacopy", "sysctl-overridden"} & reboots.again.findings(vm).keys() == set()


@pytest.mark.parametrize("kernel", [kernel for kernel in KERNELS if TAKEN_AWAY[kernel]])
def test_the_next_run_puts_back_what_was_taken_away(rollout: Rollout, reboots: Reboots, kernel: str) -> None:
    vm = rollout.vms[kernel]
    assert vm.name not in reboots.run.failed
    assert vm.ssh(f"ls {' '.join(TAKEN_AWAY[kernel])} >/dev/null && {METACOPY} && {NAMESPACES}").stdout == "Y\n16384\n"


def test_a_power_cut_in_the_middle_of_a_change_is_undone_by_the_boot(rollout: Rollout, reboots: Reboots) -> None:
    """What a container can't show: only what has been written to the disk outlives the cut."""
    cut = reboots.cut
    (files, boot, identity), (files_then, boot_then, identity_then) = cut.before, cut.after
    assert OTHER_PAUSE in cut.half
    assert files_then == files
    assert boot_then != boot
    assert identity_then == identity
    assert cut.left == []
    assert cut.service == "active\n"
    # The next run says the same: nothing to do but to prove.
    assert reboots.run.will(rollout.vms[CUT]) == [PROVES_AGAIN]
