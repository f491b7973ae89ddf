"""Baked trees as disks, booted on real kernels: on the one that they were baked for, on a newer and on an older one."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from lab import Lab, LabVM, disk
from lab.mirror import Mirror
from lab.serving import Served
from tests.image import trees
from tests.image.trees import Builder
from tests.node.runs import Operator, Run
from userns import paths

ALLOW = ["kernel-lacks-tmpfs-idmap"]


@dataclass(frozen=True)
class Case:
    """A kernel that was baked for, the one that boots, and the tier that is found there."""

    target: str
    kernel: str
    tier: str
    rendering: str


CASES: Mapping[str, Case] = {
    "as-baked": Case("6.12", "6.12", "idmapped", "idmapped"),
    "newer": Case("5.15", "6.12", "idmapped", "idmapped"),
    "older": Case("6.12", "6.1", "rootfs-only", "idmapped"),
}


@dataclass(frozen=True)
class Booted:
    """The virtual machines of the cases, what each was right after its boot, and what a deploy then said of all."""

    vms: Mapping[str, LabVM]
    ready: Mapping[str, dict[str, object]]
    journal: Mapping[str, str]
    again: Run
    proof: Run


LOOK = f"cat {paths.READINESS}; echo; echo ====; journalctl --quiet --boot --unit userns-node-first-boot --output cat"


@pytest.fixture(scope="module")
def disks(builder: Builder, home: Path) -> Iterator[Mapping[str, Path]]:
    """One tree with the modules of every kernel that boots, baked for one kernel after the other, as a disk each."""
    kernels = sorted({case.kernel for case in CASES.values()})
    root = trees.build(home / "to-boot", "testing", *kernels)
    found = {}
    for target in sorted({case.target for case in CASES.values()}):
        builder.bake(root, target_kernel=target, allow=ALLOW)
        tree = trees.copy(root, home / f"disk-{target}")
        found[target] = home / f"{target}.img"
        disk.of_tree(tree, found[target])
        trees.remove(tree)
    trees.remove(root)
    yield found
    for image in found.values():
        image.unlink()


@pytest.fixture(scope="module")
def booted(vm_lab: Lab, disks: Mapping[str, Path], mirror: Mirror, _releases: Served, home: Path) -> Iterator[Booted]:
    """Every case booted at once, looked at, deployed to, and proven."""
    lab = vm_lab
    vms = {
        name: lab.vm(f"image-{name}", case.kernel, wait=False, disk=disks[case.target]) for name, case in CASES.items()
    }
    with ThreadPoolExecutor(len(vms)) as pool:
        list(pool.map(LabVM.wait, vms.values()))
        seen = dict(zip(vms, pool.map(lambda vm: vm.ssh(LOOK, check=False).stdout, vms.values()), strict=True))
    operator = Operator(lab, home / "operator", release_url=_releases.url, artifact_lock=str(mirror.lock))
    operator.timeout = 3600
    again = operator.deploy(*vms.values(), allow=ALLOW)
    proof = operator.prove(*vms.values(), allow=ALLOW)
    yield Booted(
        vms,
        {name: json.loads(text.partition("\n====")[0]) for name, text in seen.items()},
        {name: text.partition("====\n")[2] for name, text in seen.items()},
        again,
        proof,
    )
    for vm in vms.values():
        vm.stop()


each_case = pytest.mark.parametrize("name", CASES)


@each_case
def test_the_readiness_file_tells_what_the_running_kernel_gives(booted: Booted, name: str) -> None:
    told = booted.ready[name]
    assert (told["verdict"], told["tier"], told["metacopy"]) == ("ready", CASES[name].tier, "Y")
    assert told["kernel"] == booted.vms[name].release


@each_case
def test_the_journal_tells_what_was_baked_and_what_was_found(booted: Booted, name: str) -> None:
    case, said = CASES[name], booted.journal[name]
    assert f"this is Linux {booted.vms[name].release}, which gives the tier {case.tier}" in said
    assert ("put in place what fits" in said) is (case.target != case.kernel)


@each_case
def test_the_config_that_fits_is_in_place_and_containerd_runs_with_it(booted: Booted, name: str) -> None:
    vm = booted.vms[name]
    rendering = paths.CONFIG_FOR[CASES[name].rendering]
    assert vm.ssh(f"cmp {paths.CONFIG} {rendering} && systemctl is-active containerd").stdout == "active\n"
    assert (
        vm.ssh("systemctl is-system-running; systemctl --failed --quiet --no-legend", check=False).stdout == "running\n"
    )


@each_case
def test_a_deploy_to_the_booted_machine_finds_nothing_to_do(booted: Booted, name: str) -> None:
    vm = booted.vms[name]
    assert booted.again.code == 0, booted.again.text
    assert booted.again.will(vm) == []
    assert booted.again.done(vm) == []


@each_case
def test_containers_in_a_user_namespace_are_proven_as_on_a_node(booted: Booted, name: str) -> None:
    assert booted.proof.code == 0, booted.proof.text
    assert [line for line in booted.proof.said(booted.vms[name]) if line.startswith("runc: proven")]
