"""Virtual machines for the tests below, one for each kernel and shared: what a test changes, it puts back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import Lab, LabVM
from lab.kernels import KERNELS
from lab.mirror import Mirror
from tests.node.runs import Operator
from tests.vm import boots
from tests.vm import proofs as proving
from tests.vm import rollout as rollouts
from tests.vm.boots import Boots
from tests.vm.daemons import Beside
from tests.vm.proofs import Proofs
from tests.vm.rollout import Rollout

# The runtimes, which the deploy brings; Python, which nothing may need; failed units; overlay, which nobody has loaded.
UNEXPECTED = """
command -v containerd runc crun python3
systemctl --failed --plain --no-legend
ls /sys/module/overlay 2>/dev/null; :"""

# A deploy takes a minute on a quiet machine.
SECONDS = 3600.0


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Every test in this directory is marked `vm`."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker("vm")


@pytest.fixture(scope="session")
def _booted(vm_lab: Lab) -> Iterator[dict[str, LabVM]]:
    booting = {kernel: vm_lab.vm(f"linux-{kernel}", kernel, wait=False) for kernel in KERNELS}
    for vm in booting.values():
        vm.wait()
    yield booting
    for vm in booting.values():
        vm.stop()


@pytest.fixture(scope="session")
def untouched(_booted: dict[str, LabVM]) -> dict[str, str]:
    """What a virtual machine of each kernel has, right after its first boot, of what it should not have."""
    return {kernel: vm.ssh(UNEXPECTED).stdout for kernel, vm in _booted.items()}


@pytest.fixture(scope="session")
def vms(_booted: dict[str, LabVM], untouched: object) -> dict[str, LabVM]:
    """One virtual machine for each kernel, by its name; nothing was done to them but what `rollout` does."""
    return _booted


@pytest.fixture(scope="session")
def vm_operator(
    vm_lab: Lab, mirror_with_newest: Mirror, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Operator]:
    """Somebody who deploys the newest containerd and both runtimes, with every other setting at its default."""
    mirror, home = mirror_with_newest, tmp_path_factory.mktemp("vms")
    served = vm_lab.serve(mirror)
    crun = mirror.versions("crun")[0]
    operator = Operator(vm_lab, home, release_url=served.url, artifact_lock=str(mirror.lock), crun_version=crun)
    operator.timeout = SECONDS
    yield operator
    served.stop()


@pytest.fixture(scope="session")
def rollout(vm_operator: Operator, vms: dict[str, LabVM]) -> Rollout:
    """The real deploy on every kernel: first as it is, then with `allow` where it was refused, then once more.

    After it, containerd runs on every virtual machine.
    """
    return rollouts.run(vm_operator, vms)


@pytest.fixture(scope="session")
def booted(rollout: Rollout) -> Boots:
    """Every kernel after a boot, with something taken away before it that test_reboot's `reboots` puts back."""
    return boots.run(rollout)


@pytest.fixture(scope="session")
def proofs(rollout: Rollout, booted: Boots) -> Proofs:
    """What the proof shows after that boot, before anything is put back."""
    return proving.run(rollout)


@pytest.fixture(scope="session")
def beside(vm_lab: Lab) -> Beside:
    """Containerds of other versions and settings, beside the deployed one."""
    return Beside(vm_lab)
