"""The check that stays on the node, on real kernels: it says what the deploy said (test_reboot: after a boot, too)."""

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

each_kernel = pytest.mark.parametrize("kernel", KERNELS)


def check(rollout: Rollout, kernel: str, before: str = ":", after: str = ":") -> tuple[int, dict[str, Any]]:
    """Run it after something was done to the virtual machine, which is undone again. Its metrics say the same."""
    run = f"{before}; {paths.CHECK} --metrics /run/lab-metrics; code=$?; {after}; echo; echo $code"
    metrics = "cat /run/lab-metrics/*; rm -r /run/lab-metrics"
    said = rollout.vms[kernel].ssh(f"(mkdir /run/lab-metrics; {run}; {metrics}) 2>/dev/null").stdout
    answer, _, values = said.partition("# HELP")
    text, code = answer.rstrip().rsplit("\n", 1)
    told: dict[str, Any] = json.loads(text)
    assert_metrics(dict(line.rsplit(" ", 1) for line in values.splitlines() if line[:6] == "userns"), int(code), told)
    return int(code), told


def assert_metrics(values: dict[str, str], code: int, told: dict[str, Any]) -> None:
    """What a node's metrics say against its exit code and its JSON."""
    assert values["userns_node_ready"] == ("0" if code == 2 else "1")
    assert values["userns_node_degraded"] == ("1" if code == 1 else "0")
    assert values[f'userns_node_tier_info{{tier="{told["tier"]}",expected="{told["expected_tier"]}"}}'] == "1"
    findings = {f'userns_node_finding{{id="{each["id"]}",severity="{each["severity"]}"}}' for each in told["findings"]}
    assert {name for name in values if name.startswith("userns_node_finding")} == findings
    components = {
        f'userns_node_component_info{{component="{name}",version="{version}"}}'
        for name, version in told["versions"].items()
    }
    assert components
    assert {name for name in values if name.startswith("userns_node_component_info")} == components


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
