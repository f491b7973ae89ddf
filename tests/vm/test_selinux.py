"""A node that enforces SELinux, with containerd in a domain of its own; and what may keep it from tracing a child."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from lab import Lab, LabVM, selinux
from tests.node.runs import Operator, Run, tree
from tests.vm import pods
from tests.vm.test_proof import levels
from userns import paths

CONFINES = {"containerd_config": {"plugins": {"io.containerd.cri.v1.runtime": {"enable_selinux": True}}}}
DOMAIN = "system_u:system_r:dockerd_t:s0"
FORBIDDEN = ["selinux-denies-containerd", "ptrace-forbidden"]
# What containerd and the kubelet make themselves gets its labels from the policy, by who makes it and where.
OURS = (
    f"{paths.CONFIG.rpartition('/')[0]} /usr/local /etc/modprobe.d /etc/sysctl.d /etc/systemd/system "
    f"{paths.MANIFEST.rpartition('/')[0]}"
)
LOOK = f"""
cat /proc/$(systemctl show --property=MainPID --value containerd)/attr/current | tr '\\0' '\\n'
containerd config dump | grep enable_selinux
restorecon -n -v -r {OURS}
dmesg | grep 'avc: *denied' | grep -Ev 'comm="systemd-'; :"""

UNITS = f"""
systemctl start userns-node-check
grep -o '"verdict": "[a-z-]*"' {paths.READINESS}
journalctl --quiet --boot --unit containerd --output cat --grep '^userns-node: '; :"""


@dataclass(frozen=True)
class Enforcing:
    """What happened, in this order.

    `refused` is a deploy while deny_ptrace is on, with the files before and after; then it was turned off, and
    `deployed` did. `proven` had all that pods need, and `look` is what there was to see of labels and denials. After a
    boot deny_ptrace is on again: what units had left by then (`by_unit`), what the check `booted` to, and what the
    proof showed (`denied`). It is turned off again: `ready`. And then nobody may trace any more, until the next boot:
    the check (`scoped`), the proof (`forbidden`) and the plan (`planned`).
    """

    vm: LabVM
    untouched: bool
    refused: Run
    deployed: Run
    proven: Run
    look: list[str]
    by_unit: list[str]
    booted: dict[str, Any]
    denied: Run
    ready: dict[str, Any]
    scoped: dict[str, Any]
    forbidden: Run
    planned: Run


@pytest.fixture(scope="module")
def enforcing(vm_lab: Lab, vm_operator: Operator) -> Iterator[Enforcing]:
    vm = vm_lab.vm("selinux", selinux.KERNEL, disk=selinux.image(), options=selinux.OPTIONS)

    def check() -> dict[str, Any]:
        told: dict[str, Any] = json.loads(vm.ssh(paths.CHECK, check=False).stdout)
        return told

    def prove() -> Run:
        return vm_operator.prove(vm, **CONFINES, allow=FORBIDDEN)

    before = tree(vm)
    refused = vm_operator.deploy(vm, **CONFINES)
    untouched = tree(vm) == before
    vm.ssh("setsebool deny_ptrace off")
    deployed = vm_operator.deploy(vm, **CONFINES)
    with pods.ready({"selinux": vm}):
        vm.ssh("restorecon -r /opt/cni /etc/cni")
        proven = prove()
        look = vm.ssh(LOOK).stdout.splitlines()
    vm.reboot()
    by_unit = vm.ssh(UNITS).stdout.splitlines()
    booted, denied = check(), prove()
    vm.ssh("setsebool deny_ptrace off")
    ready = check()
    vm.ssh("sysctl -w kernel.yama.ptrace_scope=3")
    scoped, forbidden = check(), prove()
    planned = vm_operator.dry(vm, **CONFINES)
    yield Enforcing(
        vm, untouched, refused, deployed, proven, look, by_unit, booted, denied, ready, scoped, forbidden, planned
    )
    vm.stop()


def ids(told: dict[str, Any], severity: str = "blocker") -> list[str]:
    """What the check finds of this severity."""
    return [each["id"] for each in told["findings"] if each["severity"] == severity]


def test_a_node_whose_policy_denies_containerd_what_it_needs_is_refused_untouched(enforcing: Enforcing) -> None:
    assert enforcing.refused.code == 1
    [told] = [line for line in enforcing.refused.said(enforcing.vm) if line.startswith("blocker ")]
    assert told.startswith("blocker selinux-denies-containerd: ")
    assert f"denies process ptrace to {DOMAIN}" in told
    assert "setsebool -P deny_ptrace off" in told
    assert '"(allow dockerd_t self (process (ptrace)))"' in told
    assert enforcing.untouched


def test_without_that_a_confined_pod_with_volumes_is_proven(enforcing: Enforcing) -> None:
    assert enforcing.deployed.code == 0, enforcing.deployed.text
    assert enforcing.proven.code == 0, enforcing.proven.text
    told = levels(enforcing.proven, enforcing.vm)
    assert [level.partition("pod-with-volumes: ")[:2] for level in told] == [
        ("runc, crun: up to ", "pod-with-volumes: ")
    ]


def test_containerd_runs_in_its_domain_all_labels_are_right_and_nothing_was_denied(enforcing: Enforcing) -> None:
    assert enforcing.look == [DOMAIN, "    enable_selinux = true"]


def test_after_a_boot_the_check_knows_the_boolean_and_the_proof_fails_as_told(enforcing: Enforcing) -> None:
    assert (enforcing.booted["verdict"], ids(enforcing.booted)) == ("not-ready", ["selinux-denies-containerd"])
    assert enforcing.denied.code == 1
    assert "fork/exec /proc/self/exe: permission denied" in enforcing.denied.text


def test_systemd_runs_the_hook_and_the_check_although_it_may_execute_neither(enforcing: Enforcing) -> None:
    assert enforcing.by_unit == ['"verdict": "not-ready"', "userns-node: overlay is there, metacopy=Y already"]


def test_it_is_ready_as_soon_as_the_boolean_is_off(enforcing: Enforcing) -> None:
    assert (enforcing.ready["verdict"], ids(enforcing.ready)) == ("ready", [])


def test_where_nobody_may_trace_the_check_and_the_plan_say_so_and_the_proof_fails_as_told(enforcing: Enforcing) -> None:
    assert (enforcing.scoped["verdict"], ids(enforcing.scoped)) == ("not-ready", ["ptrace-forbidden"])
    assert enforcing.forbidden.code == 1
    assert "fork/exec /proc/self/exe: operation not permitted" in enforcing.forbidden.text
    assert enforcing.planned.code == 1
    [told] = [line for line in enforcing.planned.said(enforcing.vm) if line.startswith("blocker ")]
    assert told.startswith("blocker ptrace-forbidden: kernel.yama.ptrace_scope = 3 forbids everybody to trace")
