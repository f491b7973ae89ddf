"""OCI runtimes that are older than the upstream document asks for, under containerd 2.x."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lab import LabVM
from tests.vm import upstream
from tests.vm.cri import Cri
from tests.vm.daemons import Beside, Settings


@pytest.fixture(scope="module")
def runtime(vms: dict[str, LabVM], beside: Beside) -> Iterator[Cri]:
    """CRI of a containerd 2.x with runc 1.1 and crun 1.8 as handlers beside new ones."""
    vm = vms["6.12"]
    old, new = beside.runtimes(vm, "bookworm"), beside.runtimes(vm, "testing")
    assert old.version("runc").startswith("1.1.")
    assert old.version("crun").startswith("1.8.")
    handlers = {
        "runc": new.program("runc"),
        "crun": new.program("crun"),
        "old-runc": old.program("runc"),
        "old-crun": old.program("crun"),
    }
    with beside.daemon(vm, "testing", Settings(handlers=handlers)) as daemon, daemon.cri() as runtime:
        assert runtime.version().runtime_version.startswith("2.")
        yield runtime


def test_containerd_2_says_of_each_handler_whether_it_can(runtime: Cri) -> None:
    found = {"": True, "runc": True, "crun": True, "old-runc": False, "old-crun": False}
    assert runtime.handlers() == found


def test_runc_1_1_cannot_idmap_mounts(runtime: Cri) -> None:
    error = upstream.refused(runtime, "old-runc")
    assert error.endswith("idmap mounts not supported: missing `mountExtensions.idmap` entry in `features` command")
    assert upstream.diagnosed(error) == ["runtime-cannot-idmap"]


def test_crun_1_8_is_too_old_for_the_specification_of_containerd_2(runtime: Cri) -> None:
    error = upstream.refused(runtime, "old-crun")
    assert error.endswith("OCI runtime create failed: unknown version specified")
    assert upstream.diagnosed(error) == ["crun-too-old-for-containerd"]
