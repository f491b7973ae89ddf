"""Failures that a kernel and a containerd are made to have: what they say of them, `diagnose` has to recognise.

Further ones are in the tests of the upstream document and of CRI. tests/texts.toml holds what all of them said.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lab import LabVM
from tests.vm import cri, upstream
from tests.vm.daemons import Beside, Daemon, Settings
from tests.vm.upstream import HANDLERS

KERNEL = "6.12"
LIMIT = "/proc/sys/user/max_user_namespaces"


@pytest.fixture(scope="module")
def vm(vms: dict[str, LabVM]) -> LabVM:
    return vms[KERNEL]


@pytest.fixture(scope="module")
def containerd(vm: LabVM, beside: Beside) -> Iterator[Daemon]:
    with beside.daemon(vm, "testing", Settings(misplaced=True)) as daemon:
        yield daemon


@pytest.fixture(scope="module")
def on_ramfs(containerd: Daemon) -> Daemon:
    """The same one with its root on a file system that no kernel idmaps, for the tests that come then."""
    containerd.restart(Settings(root_on="ramfs"))
    containerd.load()
    return containerd


def test_slow_chown_in_another_section_is_told_by_its_log(containerd: Daemon) -> None:
    [line] = [each for each in containerd.journal().splitlines() if "slow_chown" in each]
    assert upstream.diagnosed(line) == ["config-key-unknown"]


def test_the_last_ids_that_there_are_cannot_be_mapped(containerd: Daemon) -> None:
    with containerd.cri() as runtime:
        error = upstream.refused(runtime, "runc", first=2**32 - 65536)
    assert upstream.diagnosed(error) == ["kubelet-last-slot"]


def test_no_user_namespace_is_left(vm: LabVM, containerd: Daemon) -> None:
    before = vm.ssh(f"cat {LIMIT}; echo 0 >{LIMIT}").stdout.strip()
    try:
        with containerd.cri() as runtime:
            error = upstream.refused(runtime, "runc")
    finally:
        vm.ssh(f"echo {before} >{LIMIT}")
    assert upstream.diagnosed(error) == ["user-namespaces-used-up"]


def test_a_handler_that_is_not_configured(containerd: Daemon) -> None:
    with containerd.cri() as runtime:
        error = upstream.refused(runtime, "nvidia")
    assert upstream.diagnosed(error) == ["drop-in-lost-settings"]


@pytest.mark.parametrize("handler", HANDLERS)
def test_a_volume_that_is_idmapped_already(vm: LabVM, containerd: Daemon, handler: str) -> None:
    source, path = "/opt/beside/volume", "/opt/beside/idmapped"
    vm.ssh(f"mkdir {source} {path} && mount --bind -o X-mount.idmap=b:0:65536:65536 {source} {path}")
    try:
        assert "idmapped" in vm.ssh(f"grep ' {path} ' /proc/mounts").stdout
        with containerd.cri() as runtime:
            error = upstream.refused(runtime, handler, [cri.mount(path, "/volume")])
    finally:
        vm.ssh(f"umount {path} && rmdir {path} {source}")
    assert "idmap-disabled" in upstream.diagnosed(error)
    assert set(upstream.diagnosed(error)) <= {"idmap-disabled", "nested-user-namespace"}


def test_a_mount_that_containerd_left_behind(vm: LabVM) -> None:
    """As three programs show it: that is how an operator may come by it."""
    path = "/tmp/ovl-idmapped42"
    vm.ssh(f"mkdir {path} && mount --bind -o X-mount.idmap=b:0:65536:65536 /opt {path}")
    try:
        shown = vm.ssh(f"mount | grep {path}; grep {path} /proc/mounts; grep {path} /proc/self/mountinfo").stdout
    finally:
        vm.ssh(f"umount {path} && rmdir {path}")
    lines = shown.splitlines()
    assert len(lines) == 3
    for line in lines:
        assert upstream.diagnosed(line) == ["idmapped-layers-leak"]


def test_a_root_that_cannot_be_idmapped(on_ramfs: Daemon) -> None:
    with on_ramfs.cri() as runtime:
        error = upstream.refused(runtime, "runc")
    assert upstream.diagnosed(error) == ["layers-filesystem-cannot-idmap"]


def test_containerd_1_7_with_a_configuration_of_2_x(vm: LabVM, beside: Beside) -> None:
    program = beside.runtimes(vm, "trixie").program("containerd")
    assert beside.runtimes(vm, "trixie").version("containerd").startswith("1.7.")
    written = 'printf \'version = 3\\nroot = "/run/c17/root"\\nstate = "/run/c17/state"\\n\' >/run/c17/config.toml'
    try:
        done = vm.ssh(f"mkdir /run/c17 && {written} && timeout 60 {program} --config /run/c17/config.toml", check=False)
    finally:
        vm.ssh("rm -rf /run/c17")
    assert done.returncode not in (0, 124)
    assert upstream.diagnosed(done.stdout + done.stderr) == ["config-version-unsupported"]
