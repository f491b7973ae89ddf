"""The main job on arm64: its own machine code, system calls, page tables and release assets."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from lab import Lab, LabVM, arm64, debs, kernels, mirror
from tests.node.runs import Operator, Run
from tests.vm import pods
from tests.vm.test_proof import levels
from userns import paths


@dataclass(frozen=True)
class Arm:
    """A machine of that architecture: a deploy, then its own check and a proof with pods.

    What does not hang on the architecture is tested on faster machines: this one takes minutes of a processor.
    """

    vm: LabVM
    deployed: Run
    checked: dict[str, Any]
    proven: Run


@pytest.fixture(scope="module")
def arm(vm_lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Arm]:
    vm = vm_lab.vm("arm64", kernels.ARM64, disk=arm64.image())
    release = mirror.build(debs.ARM64)
    served = vm_lab.serve(release)
    crun = release.versions("crun")[0]
    home = tmp_path_factory.mktemp("arm64")
    operator = Operator(vm_lab, home, release_url=served.url, artifact_lock=str(release.lock), crun_version=crun)
    operator.timeout = 3600
    deployed = operator.deploy(vm)
    checked = json.loads(vm.ssh(paths.CHECK).stdout)
    with pods.ready({"arm64": vm}, debs.ARM64):
        proven = operator.prove(vm)
    yield Arm(vm, deployed, checked, proven)
    vm.stop()
    served.stop()


def test_the_machine_is_one(arm: Arm) -> None:
    told = arm.vm.ssh("uname -m; dpkg --print-architecture; od -An -tx2 -j18 -N2 /usr/local/bin/containerd").stdout
    assert told.split() == ["aarch64", "arm64", "00b7"]  # EM_AARCH64


def test_it_is_set_up_and_proven_with_both_runtimes(arm: Arm) -> None:
    assert arm.deployed.code == 0, arm.deployed.text
    said = arm.deployed.said(arm.vm)
    assert "tier idmapped is proven" in said
    for handler in ("runc", "crun"):
        [told] = [line for line in said if line.startswith(f"{handler}: proven: ")]
        assert "uid_map 0 65536 65536, an idmapped rootfs" in told


def test_it_calls_itself_ready(arm: Arm) -> None:
    assert (arm.checked["verdict"], arm.checked["tier"], arm.checked["findings"]) == ("ready", "idmapped", [])


def test_pods_with_volumes_are_proven_and_nothing_of_the_plan_is_left_to_do(arm: Arm) -> None:
    assert arm.proven.code == 0, arm.proven.text
    assert not [line for line in arm.proven.said(arm.vm) if line.startswith("not as the settings say")]
    told = levels(arm.proven, arm.vm)
    assert [level.partition("pod-with-volumes: ")[:2] for level in told] == [
        ("runc, crun: up to ", "pod-with-volumes: ")
    ]
