"""containerd 1.7: user namespaces by changing the owner of every file, and what overlay's metacopy makes of that.

It needs nothing of the kernel, which is proven on one that has no idmapped mounts at all.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lab import LabVM
from tests.vm import cri, upstream
from tests.vm.cri import Cri
from tests.vm.daemons import IMAGE, Beside, Daemon, Layer, metacopy


@pytest.fixture(scope="module")
def vm(vms: dict[str, LabVM]) -> LabVM:
    return vms["5.10"]


@pytest.fixture(scope="module")
def containerd(vm: LabVM, beside: Beside) -> Iterator[Daemon]:
    with beside.daemon(vm, "trixie") as daemon:
        yield daemon


@pytest.fixture(scope="module")
def runtime(containerd: Daemon) -> Iterator[Cri]:
    with containerd.cri() as runtime:
        yield runtime


def copies(containerd: Daemon) -> tuple[int, dict[int, Layer]]:
    """The size of the image in KiB, and its copies by their owner."""
    layers = {layer.owner: layer for layer in containerd.layers().values()}
    return layers.pop(0).kib, layers


def test_1_7_starts_a_pod_in_a_user_namespace_with_runc_1_1_and_without_idmapped_mounts(
    containerd: Daemon, runtime: Cri
) -> None:
    assert runtime.version().runtime_version.startswith("1.7.")
    assert containerd.runtimes.version("runc").startswith("1.1.")
    with upstream.running(runtime, "runc") as container:
        assert upstream.uid_map(container) == ["0", "65536", "65536"]
        assert "ovl-idmapped" not in upstream.root_mount(container)


def test_1_7_duplicates_the_image_for_each_pod(vm: LabVM, containerd: Daemon, runtime: Cri) -> None:
    # A kubelet gives each pod a range of its own.
    one, other = 2 * 65536, 3 * 65536
    with (
        metacopy(vm, "N"),
        upstream.running(runtime, "runc", first=one),
        upstream.running(runtime, "runc", first=other),
    ):
        image, found = copies(containerd)
    assert image > 1000
    assert image <= found[one].kib <= image + 64
    assert image <= found[other].kib <= image + 64


def test_1_7_with_metacopy_copies_inodes_only(vm: LabVM, containerd: Daemon, runtime: Cri) -> None:
    first = 4 * 65536
    with metacopy(vm, "Y"), upstream.running(runtime, "runc", first=first) as container:
        image, found = copies(containerd)
        assert upstream.uid_map(container) == ["0", str(first), "65536"]
    assert 0 < found[first].kib <= 100 < image / 10


def test_metacopy_is_for_all_containers(vm: LabVM, containerd: Daemon) -> None:
    """One without a user namespace whose owner is changed: of its data, nothing is copied."""
    sizes = {}
    for value in ("N", "Y"):
        with metacopy(vm, value):
            done = containerd.sh(f"""
                ctr run -d --cgroup {containerd.cgroup}/all {IMAGE} all /bin/sleep 1000000 </dev/null >/dev/null 2>&1
                pid=$(ctr tasks ls | awk '$1 == "all" {{ print $2 }}')
                upper=$(sed -n 's|.* / / .*upperdir=\\([^,]*\\),.*|\\1|p' /proc/$pid/mountinfo)
                chown 1:1 /proc/$pid/root/bin/sh && du -sk "$upper/bin/sh" && cat /proc/$pid/uid_map
                ctr tasks rm --force all >/dev/null; ctr containers rm all""").stdout.splitlines()
            sizes[value] = int(done[0].split()[0])
            assert done[1].split() == ["0", "0", "4294967295"]
    assert 100 < sizes["N"] < 200, "its size"
    assert sizes["Y"] <= 8


def test_a_snapshot_that_was_made_with_metacopy_is_lost_without_it(vm: LabVM, containerd: Daemon, runtime: Cri) -> None:
    first = 5 * 65536
    with metacopy(vm, "Y"), runtime.pod("runc", cri.user_namespace(first)) as pod:
        # The pod holds its copy of the image, which its containers are made of.
        image, found = copies(containerd)
        assert found[first].kib < image / 10
        with pod.container(IMAGE, upstream.SLEEP):
            pass
        with metacopy(vm, "N"), pytest.raises(cri.CriError) as caught, pod.container(IMAGE, upstream.SLEEP, name="two"):
            pass
    assert "operation not permitted" in str(caught.value)
    assert upstream.diagnosed(str(caught.value)) == ["image-files-not-permitted"]
    said = [line for line in vm.ssh("dmesg").stdout.splitlines() if "refusing to follow metacopy origin" in line]
    assert said
    assert upstream.diagnosed(said[-1]) == ["metacopy-turned-off"]


def test_1_7_refuses_the_idmapped_volumes_of_kubernetes_1_27(runtime: Cri) -> None:
    error = upstream.refused(runtime, "runc", [cri.mount("/root", "/mnt")])
    assert 'idmap mounts not yet supported, but they were requested for: "/root"' in error
    assert upstream.diagnosed(error) == ["containerd-1.7-volumes"]


def test_crun_needs_more_of_the_kernel_than_the_document_says(runtime: Cri) -> None:
    error = upstream.refused(runtime, "crun")
    assert "/shm`: Permission denied" in error
    assert upstream.diagnosed(error) == ["chowned-shm"]


def test_on_a_newer_kernel_1_7_starts_such_a_pod_with_crun_too(vms: dict[str, LabVM], beside: Beside) -> None:
    with beside.daemon(vms["6.12"], "trixie") as containerd, containerd.cri() as runtime:
        assert runtime.version().runtime_version.startswith("1.7.")
        with upstream.running(runtime, "crun") as container:
            assert upstream.uid_map(container) == ["0", "65536", "65536"]
            assert "ovl-idmapped" not in upstream.root_mount(container)
            _, found = copies(containerd)
    assert 65536 in found, "it chowns, although this kernel could idmap"
