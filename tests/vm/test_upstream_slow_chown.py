"""containerd 2.x where overlay has no idmapped layers: refused, unless slow_chown is on, and what that gives.

On the real Linux 5.10, which has no idmapped mounts at all, and on one of 5.12 to 5.18, which has them, but not for
overlay. No such kernel is at hand: a later one looks like it to containerd (tests/vm/daemons.py tells how).
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lab import LabVM
from tests.vm import upstream
from tests.vm.daemons import USERNS, Beside, Daemon, Settings, metacopy
from tests.vm.upstream import HANDLERS
from userns import readiness


@pytest.fixture(scope="module")
def refusing(vms: dict[str, LabVM], beside: Beside) -> Iterator[Daemon]:
    """On Linux 5.10, with slow_chown off, as it is by default. `opted_in` turns it on, for the tests that come then."""
    with metacopy(vms["5.10"], "N"), beside.daemon(vms["5.10"], "testing") as daemon:
        yield daemon


@pytest.fixture(scope="module")
def opted_in(refusing: Daemon) -> Daemon:
    refusing.restart(Settings(slow_chown=True))
    return refusing


@pytest.fixture(scope="module")
def simulated(vms: dict[str, LabVM], beside: Beside) -> Iterator[Daemon]:
    """On one of Linux 5.12 to 5.18, with slow_chown off. `simulated_opted_in` turns it on."""
    with beside.daemon(vms["6.1"], "testing", Settings(before_5_19=True)) as daemon:
        yield daemon


@pytest.fixture(scope="module")
def simulated_opted_in(simulated: Daemon) -> Daemon:
    simulated.restart(Settings(slow_chown=True, before_5_19=True))
    return simulated


def test_the_error_is_the_one_that_this_project_knows() -> None:
    assert readiness.REFUSAL == upstream.REFUSAL


@pytest.mark.parametrize("name", ["refusing", "simulated"])
def test_2_x_refuses_by_default_in_these_very_words(name: str, request: pytest.FixtureRequest) -> None:
    containerd: Daemon = request.getfixturevalue(name)
    assert containerd.capabilities("overlayfs") == {"only-remap-ids"}
    ended = containerd.run("exit 0")
    assert (ended.code, ended.stderr) == (1, f"ctr: {upstream.REFUSAL}\n")
    with containerd.cri() as runtime:
        assert runtime.version().runtime_version.startswith("2.")
        errors = [upstream.refused(runtime, handler) for handler in HANDLERS]
        claimed = runtime.handlers()
    assert all(claimed[name] for name in HANDLERS), "the features are those of the runtime, whatever the kernel can"
    for error in errors:
        assert error.endswith(f"failed to create containerd container: {upstream.REFUSAL}")
        assert upstream.diagnosed(error) == ["overlay-cannot-idmap-layers"]


def test_another_snapshotter_chowns_without_an_opt_in(refusing: Daemon) -> None:
    assert refusing.capabilities("native") == set()
    ended = refusing.run(upstream.SHOW_UID_MAP, options=f"{USERNS} --snapshotter native", name="native")
    assert (ended.code, ended.stdout) == (0, "0 65536 65536\n"), ended.stderr
    root = f"{refusing.home}/root/io.containerd.snapshotter.v1.native/snapshots"
    shown = refusing.sh(f"for each in {root}/*; do stat -c %u $each/bin/sh; du -sk $each; done").stdout.split()
    owners, sizes = shown[::3], [int(kib) for kib in shown[1::3]]
    assert sorted(owners) == ["0", "65536", "65536"]
    assert min(sizes) > 1000, "each of them is a whole copy"


def test_with_slow_chown_a_container_starts_on_linux_5_10(opted_in: Daemon) -> None:
    assert opted_in.capabilities("overlayfs") == set()
    ended = opted_in.run(upstream.SHOW_UID_MAP, name="slow")
    assert (ended.code, ended.stdout) == (0, "0 65536 65536\n"), ended.stderr
    sizes = {layer.owner: layer.kib for layer in opted_in.layers().values()}
    assert 1000 < sizes[0] <= sizes[65536] <= sizes[0] + 64, "the image is duplicated, as by containerd 1.7"


def test_with_slow_chown_and_metacopy_inodes_only_are_copied(vms: dict[str, LabVM], opted_in: Daemon) -> None:
    ids = "--remap-labels --uidmap 0:131072:65536 --gidmap 0:131072:65536"
    with metacopy(vms["5.10"], "Y"):
        ended = opted_in.run(upstream.SHOW_UID_MAP, options=ids, name="metacopy")
    assert (ended.code, ended.stdout) == (0, "0 131072 65536\n"), ended.stderr
    sizes = {layer.owner: layer.kib for layer in opted_in.layers().values()}
    assert 0 < sizes[131072] <= 100 < sizes[0] / 10


def test_but_no_pod_starts_on_linux_5_10_because_idmapped_mounts_begin_with_5_12(opted_in: Daemon) -> None:
    with opted_in.cri() as runtime:
        runc, crun = (upstream.refused(runtime, handler) for handler in HANDLERS)
    assert "failed to set MOUNT_ATTR_IDMAP on " in runc
    assert "/hostname: function not implemented" in runc
    assert upstream.diagnosed(runc) == ["volume-kernel-too-old"]
    assert "/shm`: Permission denied" in crun
    assert upstream.diagnosed(crun) == ["chowned-shm"]


@pytest.mark.parametrize("handler", HANDLERS)
def test_with_slow_chown_a_pod_starts_on_linux_5_12_to_5_18(simulated_opted_in: Daemon, handler: str) -> None:
    containerd = simulated_opted_in
    assert containerd.capabilities("overlayfs") == set()
    with containerd.cri() as runtime, upstream.running(runtime, handler) as container:
        assert upstream.uid_map(container) == ["0", "65536", "65536"]
        assert "ovl-idmapped" not in upstream.root_mount(container)
        sizes = {layer.owner: layer.kib for layer in containerd.layers().values()}
    assert set(sizes) == {0, 65536}
