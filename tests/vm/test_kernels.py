"""What a node's kernel makes of the deploy: refused by name, or deployed and proven, on four real ones."""

from __future__ import annotations

import tomllib

import pytest

from lab.kernels import KERNELS
from tests.node.runs import differences, leftovers, start_counter
from tests.vm.rollout import OVERLAY_WAS_LOADED, REFUSED_FOR, Rollout
from userns.readiness import REFUSAL

TIERS = {
    "5.10": "unsupported: pods with hostUsers: false do not start here",
    "6.1": "rootfs-only: a pod's image is idmapped, at no cost; volumes on tmpfs (Secrets, service-account tokens, "
    "memory) fail, others are idmapped",
    "6.12": "idmapped: a pod's image is idmapped, at no cost; its volumes are idmapped",
    "newest": "idmapped: a pod's image is idmapped, at no cost; its volumes are idmapped",
}
REFUSED = [kernel for kernel in KERNELS if REFUSED_FOR[kernel]]
WORKING = [kernel for kernel in KERNELS if kernel != "5.10"]
HANDLERS = ("runc", "crun")
PROVES_AGAIN = "prove the last change: it was not proven yet, or its proof failed"

# Of the versions that the lab happens to have, and of settings, but not of a kernel.
NOT_THE_KERNELS = (
    "open-advisories-",
    "end-of-life-",
    "containerd-not-tested-with-kubernetes",
    "kubernetes-feature-gates",
    "kubelet-default-range",
    "proof-",
)
each_kernel = pytest.mark.parametrize("kernel", KERNELS)
each_refused = pytest.mark.parametrize("kernel", REFUSED)
each_working = pytest.mark.parametrize("kernel", WORKING)


@each_kernel
def test_the_virtual_machine_runs_the_kernel_that_it_is_named_for(rollout: Rollout, kernel: str) -> None:
    said = rollout.vms[kernel].ssh("uname -r; stat -f -c %T /sys/fs/cgroup; systemd-detect-virt --container; :").stdout
    assert said.split() == [rollout.vms[kernel].release, "cgroup2fs", "none"]
    assert kernel == "newest" or said.startswith(f"{kernel}.")


# --- refused first ---------------------------------------------------------------------------------------------------


def test_old_kernels_are_refused_and_the_run_says_so_by_its_exit_code(rollout: Rollout) -> None:
    assert rollout.refused.code == 1
    assert sorted(rollout.refused.failed) == sorted(rollout.vms[kernel].name for kernel in REFUSED)


@each_refused
def test_a_refusal_names_its_blocker_and_how_to_accept_it(rollout: Rollout, kernel: str) -> None:
    vm = rollout.vms[kernel]
    blockers = [id for id, severity in rollout.refused.findings(vm).items() if severity == "blocker"]
    assert blockers == REFUSED_FOR[kernel]
    accepted = ", ".join(f'"{id}"' for id in blockers)
    assert f"refused: this node is left as it is. What the operator may accept: allow = [{accepted}]" in (
        rollout.refused.said(vm)
    )


@each_kernel
def test_a_node_that_is_refused_or_only_looked_at_is_left_as_it_was(rollout: Rollout, kernel: str) -> None:
    before, after = rollout.before[kernel], rollout.after[kernel]
    assert differences(before.files, after.files) == []
    assert before.kernel == after.kernel
    assert ("overlay" in before.kernel) == (kernel in OVERLAY_WAS_LOADED)


# --- deployed --------------------------------------------------------------------------------------------------------


@each_kernel
def test_the_tier_is_what_the_kernel_can_do(rollout: Rollout, kernel: str) -> None:
    assert f"tier {TIERS[kernel]}" in rollout.deployed.said(rollout.vms[kernel])


@each_kernel
def test_a_kernel_makes_no_other_finding_than_the_accepted_one(rollout: Rollout, kernel: str) -> None:
    found = rollout.deployed.findings(rollout.vms[kernel])
    assert {id: severity for id, severity in found.items() if not id.startswith(NOT_THE_KERNELS)} == dict.fromkeys(
        REFUSED_FOR[kernel], "warning"
    )


@each_kernel
def test_no_kernel_here_gets_slow_chown(rollout: Rollout, kernel: str) -> None:
    dumped = tomllib.loads(rollout.vms[kernel].ssh("containerd config dump").stdout)
    assert dumped["plugins"]["io.containerd.snapshotter.v1.overlayfs"]["slow_chown"] is False
    runtimes = dumped["plugins"]["io.containerd.cri.v1.runtime"]["containerd"]["runtimes"]
    assert {name: each["options"]["SystemdCgroup"] for name, each in runtimes.items()} == dict.fromkeys(HANDLERS, True)


@each_working
@pytest.mark.parametrize("handler", HANDLERS)
def test_the_proof_shows_an_idmapped_rootfs(rollout: Rollout, kernel: str, handler: str) -> None:
    said = rollout.deployed.said(rollout.vms[kernel])
    (proven,) = [line for line in said if line.startswith(f"{handler}: proven")]
    assert "root is host uid 65536, uid_map 0 65536 65536, an idmapped rootfs" in proven
    (mount,) = [line for line in said if line.startswith(f"{handler}: its / is ")]
    assert "lowerdir=/tmp/ovl-idmapped" in mount


@each_working
def test_a_container_of_our_own_runs_on_idmapped_layers(rollout: Rollout, kernel: str) -> None:
    vm = rollout.vms[kernel]
    counter = start_counter(vm)
    try:
        assert "ovl-idmapped" in vm.ssh(f"grep ' / / ' /proc/{counter.pid}/mountinfo").stdout
        assert vm.ssh(f"stat -c %u /proc/{counter.pid}/root/bin/sh").stdout == "65536\n"
        assert "remap-ids" in vm.ssh("ctr plugins ls -d id==overlayfs").stdout
    finally:
        counter.remove()
        vm.ssh("ctr images rm --sync docker.io/lab/counter:1 && ctr namespaces rm default")


@pytest.mark.parametrize("handler", HANDLERS)
def test_on_510_the_proof_fails_in_containerds_own_words_and_fails_that_host_alone(
    rollout: Rollout, handler: str
) -> None:
    vm = rollout.vms["5.10"]
    assert f"{handler}: did not start in a user namespace: ctr: {REFUSAL}" in rollout.deployed.said(vm)
    assert (rollout.deployed.code, rollout.deployed.failed) == (1, [vm.name])


@each_working
def test_a_second_run_has_nothing_to_do(rollout: Rollout, kernel: str) -> None:
    vm = rollout.vms[kernel]
    assert rollout.again.said(vm).count("nothing to do") == 1
    assert rollout.again.done(vm) == []
    assert vm.name not in rollout.again.failed


def test_on_510_a_second_run_does_not_forget_that_the_proof_failed(rollout: Rollout) -> None:
    vm = rollout.vms["5.10"]
    assert rollout.again.will(vm) == [PROVES_AGAIN]
    assert (rollout.again.code, rollout.again.failed) == (1, [vm.name])
    assert rollout.again.done(vm) == []


@each_kernel
def test_nothing_is_left_of_the_change_and_of_the_proof(rollout: Rollout, kernel: str) -> None:
    assert leftovers(rollout.vms[kernel]) == []
    # On 5.10 the check says by its unit that the node is not ready.
    failed = "userns-node-check.service\n" if kernel == "5.10" else ""
    assert rollout.left[kernel] == f"{failed}active\n"


# --- the kernel's own values, which a node in a container never gets --------------------------------------------------


@each_kernel
def test_the_running_kernel_has_the_sysctl_and_metacopy(rollout: Rollout, kernel: str) -> None:
    vm = rollout.vms[kernel]
    will = rollout.deployed.will(vm)
    assert any(each.startswith("set user.max_user_namespaces = 16384: ") for each in will)
    assert any(each.startswith("set overlay metacopy=Y in the running kernel: ") for each in will)
    assert rollout.live[kernel] == "16384\nY\n"
