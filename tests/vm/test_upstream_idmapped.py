"""containerd 2.x where overlay has idmapped layers: nothing to configure, nothing copied, and what volumes need."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from lab import LabVM
from lab.kernels import KERNELS
from tests.vm import cri, upstream
from tests.vm.cri import Cri
from tests.vm.daemons import Beside, Daemon
from tests.vm.upstream import HANDLERS
from userns import versions

IDMAPPING = [kernel for kernel in KERNELS if kernel != "5.10"]
ON_EACH = pytest.mark.parametrize("kernel", IDMAPPING)


@dataclass(frozen=True)
class Pod:
    """A running pod: its IDs, its mounts as it sees them, what it wrote, and the owners of the copies of its image."""

    uid_map: list[str]
    mounts: dict[str, str]
    upper_kib: int
    owners: list[int]


@dataclass(frozen=True)
class Seen:
    """What containerd 2.x did on one kernel. `tmpfs` and `ramfs` are the errors of pods with such a volume."""

    version: str
    capabilities: dict[str, str]
    claimed: dict[str, bool]
    pods: dict[str, Pod]
    tmpfs: dict[str, str]
    ramfs: str


@pytest.fixture(scope="module")
def seen(vms: dict[str, LabVM], beside: Beside) -> dict[str, Seen]:
    """What was seen on each kernel, with nothing in the configuration that has to do with user namespaces."""

    def look(kernel: str) -> Seen:
        with beside.daemon(vms[kernel], "testing") as daemon, daemon.cri() as runtime:
            return observe(daemon, runtime, tmpfs_idmaps=kernel != "6.1")

    with ThreadPoolExecutor(2) as both_processors:
        return dict(zip(IDMAPPING, both_processors.map(look, IDMAPPING), strict=True))


def observe(daemon: Daemon, runtime: Cri, *, tmpfs_idmaps: bool) -> Seen:
    pods, errors = {}, {}
    with mounted(daemon, "tmpfs") as tmpfs:
        volume = [cri.mount(tmpfs, "/volume")]
        for handler in HANDLERS:
            if not tmpfs_idmaps:
                errors[handler] = upstream.refused(runtime, handler, volume)
            with upstream.running(runtime, handler, volume if tmpfs_idmaps else []) as container:
                lines = upstream.read(container, "/proc/self/mountinfo").splitlines()
                mounts = {line.split()[4]: line for line in lines}
                upper = mounts["/"].partition("upperdir=")[2].split(",")[0]
                kib = int(daemon.sh(f"du -sk {upper}").stdout.split()[0])
                owners = [layer.owner for layer in daemon.layers().values()]
                pods[handler] = Pod(upstream.uid_map(container), mounts, kib, owners)
    with mounted(daemon, "ramfs") as ramfs:
        ramfs_error = upstream.refused(runtime, "runc", [cri.mount(ramfs, "/volume")])
    version = runtime.version().runtime_version
    return Seen(version, capabilities(daemon), runtime.handlers(), pods, errors, ramfs_error)


@contextmanager
def mounted(daemon: Daemon, filesystem: str) -> Iterator[str]:
    """A new file system on the machine."""
    path = f"/run/beside-{filesystem}"
    daemon.machine.ssh(f"mkdir {path} && mount -t {filesystem} {filesystem} {path}")
    try:
        yield path
    finally:
        daemon.machine.ssh(f"umount {path} && rmdir {path}")


def capabilities(daemon: Daemon) -> dict[str, str]:
    """What each snapshotter says it can."""
    can: dict[str, str] = {}
    shown = daemon.sh("ctr plugins ls --detailed type==io.containerd.snapshotter.v1").stdout
    for name, _, value in (line.partition(":") for line in shown.splitlines()):
        if name == "ID":
            can[value.strip()] = ""
        elif name == "Capabilities":
            can[list(can)[-1]] = value
    return can


@ON_EACH
def test_without_special_configuration_pods_get_user_namespaces(seen: dict[str, Seen], kernel: str) -> None:
    assert seen[kernel].version.startswith("2.")
    for handler in HANDLERS:
        assert seen[kernel].claimed[handler]
        assert seen[kernel].pods[handler].uid_map == ["0", "65536", "65536"]


@ON_EACH
@pytest.mark.parametrize("handler", HANDLERS)
def test_the_rootfs_is_an_overlay_over_an_idmapped_lower_directory(
    seen: dict[str, Seen], kernel: str, handler: str
) -> None:
    """/tmp/ovl-idmapped…/0 in the document: one mount a layer then, and one for all of them since 2.1.5."""
    root = seen[kernel].pods[handler].mounts["/"]
    assert " - overlay " in root
    assert "/ovl-idmapped" in root.partition("lowerdir=")[2].split(",")[0]


@ON_EACH
def test_nothing_of_the_image_is_copied(seen: dict[str, Seen], kernel: str) -> None:
    for pod in seen[kernel].pods.values():
        assert pod.owners == [0], "there is the image, and nothing else with its files"
        assert pod.upper_kib <= 64


@ON_EACH
def test_of_containerds_snapshotters_only_overlayfs_idmaps(seen: dict[str, Seen], kernel: str) -> None:
    """Until 2.3, where erofs does too."""
    found = seen[kernel].capabilities
    assert {"overlayfs", "native"} <= found.keys()
    idmap = {name for name, can in found.items() if "remap-ids" in can}
    with_erofs = versions.parse(seen[kernel].version) >= versions.parse("2.3")
    assert {"overlayfs"} <= idmap <= {"overlayfs", *(["erofs"] if with_erofs else [])}


@pytest.mark.parametrize(
    ("handler", "words"), [("runc", "failed to set MOUNT_ATTR_IDMAP on "), ("crun", "mount_setattr `")]
)
def test_before_linux_6_3_volumes_on_tmpfs_fail(seen: dict[str, Seen], handler: str, words: str) -> None:
    """Where the kubelet keeps Secrets and service-account tokens."""
    error = seen["6.1"].tmpfs[handler]
    assert words in error
    assert "invalid argument" in error.casefold()
    assert upstream.diagnosed(error) == ["volume-cannot-idmap"]


@pytest.mark.parametrize("kernel", [kernel for kernel in IDMAPPING if kernel != "6.1"])
@pytest.mark.parametrize("handler", HANDLERS)
def test_from_linux_6_3_on_volumes_on_tmpfs_are_idmapped(seen: dict[str, Seen], kernel: str, handler: str) -> None:
    mount = seen[kernel].pods[handler].mounts["/volume"]
    assert " - tmpfs " in mount
    assert "idmapped" in mount.split()[5]


@ON_EACH
def test_every_volumes_file_system_has_to_be_idmapped(seen: dict[str, Seen], kernel: str) -> None:
    """ramfs stands for those that no kernel idmaps, such as NFS."""
    error = seen[kernel].ramfs
    assert "failed to set MOUNT_ATTR_IDMAP on /run/beside-ramfs: invalid argument" in error
    assert upstream.diagnosed(error) == ["volume-cannot-idmap"]
