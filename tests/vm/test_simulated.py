"""A kernel of 5.12 to 5.18, which no Debian has any more, simulated (tests/vm/daemons.py tells how): the tier `chown`.

With the config.toml that a deploy writes for such a kernel, the proof that a deploy makes there, and what can go wrong.
"""

from __future__ import annotations

import shlex
import tomllib
from collections.abc import Iterator

import pytest

from lab import LabVM
from tasks import verify
from tasks.files import script
from tests import nodes
from tests.node.runs import image
from tests.vm import cri, upstream
from tests.vm.daemons import PATIENCE, Beside, Daemon, Settings
from tests.vm.upstream import HANDLERS
from userns import changes, paths, proof
from userns.node import Probe
from userns.planning import Plan
from userns.proof import cri as requests

KERNEL = "6.1"
OWNED = "lab.invalid/owned:1"
OVERLAY = "io.containerd.snapshotter.v1.overlayfs"


def plan() -> Plan:
    """What a deploy would do with a node of Linux 5.15."""
    cannot = Probe(result="cannot", step="mount_setattr", errno="EINVAL")
    probes = nodes.bare().probes | dict.fromkeys(("tmpfs", "overlay", "containerd-check"), cannot)
    node = nodes.bare(kernel="5.15.0-100-generic", probes=probes)
    allow = ["kernel-lacks-tmpfs-idmap"]
    return nodes.plan(node, crun_version="1.17", cgroup_driver="cgroupfs", snapshotter="overlayfs", allow=allow)


@pytest.fixture(scope="module")
def planned() -> str:
    """The config.toml of that."""
    written = [each for each in plan().changes if isinstance(each, changes.WriteFile)]
    return {each.path: each.content for each in written}[paths.CONFIG]


@pytest.fixture(scope="module")
def containerd(vms: dict[str, LabVM], beside: Beside, planned: str) -> Iterator[Daemon]:
    with beside.daemon(vms[KERNEL], "testing", Settings(before_5_19=True, planned=planned)) as daemon:
        yield daemon


def test_for_such_a_kernel_a_deploy_writes_slow_chown(planned: str) -> None:
    made = plan()
    assert (made.readiness.tier, made.refused) == ("chown", False)
    assert tomllib.loads(planned)["plugins"][OVERLAY]["slow_chown"] is True


@pytest.mark.parametrize("handler", HANDLERS)
def test_with_what_a_deploy_writes_a_pod_starts_by_chown(containerd: Daemon, handler: str) -> None:
    assert containerd.capabilities("overlayfs") == set()
    with containerd.cri() as runtime, upstream.running(runtime, handler) as container:
        assert upstream.uid_map(container) == ["0", "65536", "65536"]
        assert "ovl-idmapped" not in upstream.root_mount(container)
        assert 65536 in {layer.owner for layer in containerd.layers().values()}


def test_the_proof_of_a_deploy_goes_as_far_as_a_pod_with_a_volume(containerd: Daemon) -> None:
    vm, volumes = containerd.machine, f"{containerd.home}/kubelet"
    asked = requests.requests(HANDLERS, cgroup_parent="/", directory=volumes)
    # It asks containerd for its configuration, and this one's is not where the machine's own has it.
    starts = f'exec {containerd.runtimes.program("containerd")} --config {containerd.home}/config.toml "$@"'
    vm.put("/root/its-containerd", f"#!/bin/sh\n{starts}\n".encode(), 0o755)
    vm.put("/root/verify.sh", "".join(script(name) for name in (*verify.PARTS, "verify.sh")).encode())
    words = [
        *(containerd.runtimes.program("ctr"), containerd.socket, "overlayfs", "/root/its-containerd", volumes),
        "\n".join(each.line for each in asked),
        *(f"{name}={containerd.runtimes.program(name)}" for name in HANDLERS),
    ]
    done = vm.ssh(f"sh /root/verify.sh {shlex.join(words)}; rm /root/verify.sh /root/its-containerd", timeout=PATIENCE)
    result = proof.parse(done.stdout)
    findings = proof.judge(result, "chown", HANDLERS, volumes="no-tmpfs")
    assert result.ok, done.stdout
    assert {each.rootfs for each in result.handlers.values()} == {"chowned"}
    assert [each for each in findings if each.severity != "note"] == []
    levels = [each.message for each in findings if each.id == "proof-level"]
    assert all("up to pod: a pod over CRI with a volume in the kubelet's root" in each for each in levels), levels
    assert levels


def test_an_image_with_ids_that_a_pod_does_not_have(containerd: Daemon) -> None:
    vm = containerd.machine
    vm.put("/root/owned.tar", image(vm, OWNED, "/bin/sleep", "1000000", owner=70000))
    containerd.sh("ctr images import --no-unpack /root/owned.tar && rm /root/owned.tar")
    with (
        containerd.cri() as runtime,
        runtime.pod("runc", cri.user_namespace(2 * 65536)) as pod,
        pytest.raises(cri.CriError) as caught,
        pod.container(OWNED, upstream.SLEEP),
    ):
        pass
    assert upstream.diagnosed(str(caught.value)) == ["id-outside-of-mapping"]


def test_another_snapshotter_chowns_for_pods_without_an_opt_in(containerd: Daemon) -> None:
    """The last one here: it starts this containerd anew."""
    containerd.restart(Settings(before_5_19=True, snapshotter="native"))
    with containerd.cri() as runtime, upstream.running(runtime, "runc", first=3 * 65536) as container:
        assert upstream.uid_map(container) == ["0", str(3 * 65536), "65536"]
        root = f"{containerd.home}/root/io.containerd.snapshotter.v1.native/snapshots"
        owners = containerd.sh(f"stat -c %u {root}/*/bin/sh").stdout.split()
    assert str(3 * 65536) in owners
