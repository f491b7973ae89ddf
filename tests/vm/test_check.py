"""The check that stays on the node, on real kernels: it says what the deploy said, at any time and after a boot."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lab.kernels import KERNELS
from tests import nodes
from tests.vm.rollout import Rollout
from userns import paths, readiness_table

# What the check says of a kernel where the deploy was accepted.
SAID = {
    "5.10": (2, "not-ready", "unsupported"),
    "6.1": (0, "ready", "rootfs-only"),
    "6.12": (0, "ready", "idmapped"),
    "newest": (0, "ready", "idmapped"),
}
REBOOTED = "6.1"

each_kernel = pytest.mark.parametrize("kernel", KERNELS)


def check(rollout: Rollout, kernel: str, before: str = ":", after: str = ":") -> tuple[int, dict[str, Any]]:
    """Run it after something was done to the virtual machine, which is undone again."""
    run = f"{before}; {paths.CHECK}; code=$?; {after}; echo; echo $code"
    told, code = rollout.vms[kernel].ssh(f"({run}) 2>/dev/null").stdout.rstrip().rsplit("\n", 1)
    return int(code), json.loads(told)


@each_kernel
def test_it_says_what_the_deploy_said(rollout: Rollout, kernel: str) -> None:
    code, told = check(rollout, kernel)
    assert (code, told["verdict"], told["tier"]) == SAID[kernel]
    vm = rollout.vms[kernel]
    assert [line for line in rollout.again.said(vm) if line.startswith(f"tier {told['tier']}: ")]
    assert (told["kernel"], told["container"], told["metacopy"]) == (vm.release, "none", "Y")
    table = readiness_table.of_policy(nodes.policy(allow=rollout.allowed(kernel)))
    asked = {id for id, _ in table.findings}
    planned = {(id, severity) for id, severity in rollout.again.findings(vm).items() if id in asked}
    assert {(each["id"], each["severity"]) for each in told["findings"]} == planned


@each_kernel
def test_the_probe_leaves_nothing_loaded_or_mounted(rollout: Rollout, kernel: str) -> None:
    vm = rollout.vms[kernel]
    look = "cut -d' ' -f1 /proc/modules | sort; cut -d' ' -f2- /proc/mounts | sort; ls -A /run /tmp /var/lib/containerd"
    before = vm.ssh(look).stdout
    check(rollout, kernel)
    assert vm.ssh(look).stdout == before


def test_the_kernels_own_values_are_watched(rollout: Rollout) -> None:
    """What a reboot without its persistence, or somebody with sysctl, would do."""
    metacopy, limit = "/sys/module/overlay/parameters/metacopy", "/proc/sys/user/max_user_namespaces"
    code, told = check(rollout, "newest", f"echo N >{metacopy}", f"echo Y >{metacopy}")
    assert (code, [each["id"] for each in told["findings"]]) == (1, ["metacopy-not-set"])
    code, told = check(rollout, "newest", f"read was <{limit}; echo 0 >{limit}", f"echo $was >{limit}")
    assert (code, told["tier"]) == (2, "idmapped")
    ids = {each["id"]: each["severity"] for each in told["findings"]}
    assert ids["max-user-namespaces-exhausted"] == ids["max-user-namespaces-too-low"] == "blocker"


def test_after_a_reboot_it_has_run_by_itself(rollout: Rollout) -> None:
    vm = rollout.vms[REBOOTED]
    vm.reboot()
    vm.ssh("systemctl start userns-node-check")  # waits for the one of the boot, or runs it again
    told = json.loads(vm.ssh(f"cat {paths.READINESS}").stdout)
    assert (told["verdict"], told["tier"], told["metacopy"]) == ("ready", "rootfs-only", "Y")
    times = "systemctl show --value --property {} {}"
    booted = times.format("ActiveEnterTimestampMonotonic", "multi-user.target")
    began = times.format("InactiveExitTimestampMonotonic", "userns-node-check")
    reached, started = map(int, vm.ssh(f"{booted}; {began}").stdout.split())
    assert 0 < reached <= started
    ran = "journalctl --quiet --boot --unit userns-node-check --output cat --grep '^userns-node: '"
    assert vm.ssh(ran).stdout.startswith("userns-node: ready, tier rootfs-only")
