"""The main job on real nodes: a bare node becomes ready, a ready one is left alone, a bad download stops in time."""

from __future__ import annotations

import hashlib
import os
import re
import tarfile
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from lab import Lab, LabNode, host
from lab.mirror import Mirror
from lab.serving import Fault, Served
from tests.node.conftest import BootNode
from tests.node.runs import Operator, Run, differences, image, leftovers, must, start_counter, tree

PROGRAMS = {
    "/usr/local/bin/containerd": "containerd",
    "/usr/local/bin/ctr": "containerd",
    "/usr/local/bin/containerd-shim-runc-v2": "containerd",
    "/usr/local/sbin/runc": "runc",
    "/usr/local/bin/crun": "crun",
}
TEXTS = {
    "/etc/containerd/config.toml": "644",
    "/etc/systemd/system/containerd.service": "644",
    "/etc/systemd/system/containerd.service.d/50-userns-node.conf": "644",
    "/etc/modprobe.d/overlay-metacopy.conf": "644",
    "/usr/local/libexec/userns-node/pre-start": "755",
    "/usr/local/libexec/userns-node/check": "755",
    "/etc/systemd/system/userns-node-check.service": "644",
}
# sshd writes a line for each command that it is asked for, with the port of the connection.
SESSIONS = "journalctl --quiet --unit ssh --output cat --grep 'Starting session: command'"
OWN_PORT = 'set -- $SSH_CLIENT && echo "$2"'


@dataclass(frozen=True)
class Deployed:
    """A bare node that was deployed to once, and what that run said."""

    operator: Operator
    node: LabNode
    run: Run
    machine: list[str]


@pytest.fixture(scope="module")
def operator(lab: Lab, mirror: Mirror, _releases: Served, tmp_path_factory: pytest.TempPathFactory) -> Operator:
    home = tmp_path_factory.mktemp("deploy")
    crun = mirror.versions("crun")[0]
    return Operator(lab, home, release_url=_releases.url, artifact_lock=str(mirror.lock), crun_version=crun)


@pytest.fixture(scope="module")
def deployed(lab: Lab, operator: Operator) -> Iterator[Deployed]:
    node = lab.node("deployed")
    (node.root / "etc/ssh/sshd_config.d/verbose.conf").write_text("LogLevel VERBOSE\n")
    node.ssh("systemctl reload ssh")
    before = host.fingerprint()
    run = must(operator.deploy(node))
    changed = host.differences(before, host.fingerprint())
    yield Deployed(operator, node, run, [line for line in changed if not line.startswith("lab ")])
    node.stop()


def digests(mirror: Mirror) -> dict[str, str]:
    """What each program has to be, by its path on the node: read from the mirror's assets."""
    found = {"/usr/local/sbin/runc": mirror.asset("runc").sha256, "/usr/local/bin/crun": mirror.asset("crun").sha256}
    with tarfile.open(mirror.root / mirror.asset("containerd").path.lstrip("/")) as tar:
        for member in tar:
            content = tar.extractfile(member)
            assert content
            found[f"/usr/local/{member.name}"] = hashlib.sha256(content.read()).hexdigest()
    return found


def test_the_exact_programs_of_the_mirror_are_installed(deployed: Deployed, mirror: Mirror) -> None:
    wanted = digests(mirror)
    assert set(wanted) == set(PROGRAMS)
    lines = deployed.node.ssh(f"sha256sum {' '.join(PROGRAMS)}").stdout.splitlines()
    assert {line.split()[1]: line.split()[0] for line in lines} == wanted


@pytest.mark.parametrize("component", ["containerd", "runc", "crun"])
def test_a_login_finds_the_version_that_was_asked_for(deployed: Deployed, mirror: Mirror, component: str) -> None:
    said = deployed.node.ssh(f"{component} --version").stdout
    assert re.search(rf"(?<![\d.]){re.escape(mirror.versions(component)[0])}(?![\d.])", said), said


def test_containerd_runs_and_starts_at_boot(deployed: Deployed) -> None:
    assert deployed.node.ssh("systemctl is-active containerd; systemctl is-enabled containerd").stdout == (
        "active\nenabled\n"
    )
    assert deployed.node.ssh("systemctl is-system-running").stdout == "running\n"


def test_what_runs_is_what_was_installed(deployed: Deployed) -> None:
    running = "readlink /proc/$(systemctl show --property MainPID --value containerd)/exe"
    assert deployed.node.ssh(running).stdout == "/usr/local/bin/containerd\n"


def test_containerds_own_plugins_are_well_and_overlayfs_remaps_ids(deployed: Deployed) -> None:
    listed = [line.split() for line in deployed.node.ssh("ctr plugins ls").stdout.splitlines()]
    states = {(words[0], words[1]): words[-1] for words in listed}
    for plugin in (
        ("io.containerd.snapshotter.v1", "overlayfs"),
        ("io.containerd.cri.v1", "images"),
        ("io.containerd.cri.v1", "runtime"),
        ("io.containerd.grpc.v1", "cri"),
    ):
        assert states[plugin] == "ok"
    assert "remap-ids" in deployed.node.ssh("ctr plugins ls -d id==overlayfs").stdout


def test_containerd_itself_takes_the_settings_from_config_toml(deployed: Deployed) -> None:
    dumped = deployed.node.ssh("containerd config dump")
    assert "unknown key" not in dumped.stderr.lower()
    config = tomllib.loads(dumped.stdout)
    runtime = config["plugins"]["io.containerd.cri.v1.runtime"]["containerd"]
    assert runtime["default_runtime_name"] == "runc"
    binaries = {name: each["options"]["BinaryName"] for name, each in runtime["runtimes"].items()}
    assert binaries == {"runc": "/usr/local/sbin/runc", "crun": "/usr/local/bin/crun"}
    assert {each["options"]["SystemdCgroup"] for each in runtime["runtimes"].values()} == {True}
    assert config["plugins"]["io.containerd.cri.v1.images"]["snapshotter"] == "overlayfs"
    assert config["plugins"]["io.containerd.snapshotter.v1.overlayfs"]["slow_chown"] is False


def test_public_paths_are_plain_files_of_root_with_their_modes(deployed: Deployed) -> None:
    wanted = dict.fromkeys(PROGRAMS, "755") | TEXTS
    said = deployed.node.ssh(f"stat -c '%n %F %a %u:%g' {' '.join(wanted)}").stdout.splitlines()
    assert said == [f"{path} regular file {mode} 0:0" for path, mode in wanted.items()]
    directories = sorted({path.rpartition("/")[0] for path in wanted})
    said = deployed.node.ssh(f"stat -c '%n %F %a %u:%g' {' '.join(directories)}").stdout.splitlines()
    assert said == [f"{path} directory 755 0:0" for path in directories]
    assert deployed.node.ssh("stat -c '%a %u:%g' /var/lib/userns-node").stdout == "700 0:0\n"


def test_a_value_of_the_shared_kernel_is_persisted_and_not_written(deployed: Deployed) -> None:
    line = "options overlay metacopy=Y"
    assert line in deployed.node.ssh("cat /etc/modprobe.d/overlay-metacopy.conf").stdout.splitlines()
    assert deployed.machine == [], "the deploy changed the machine around the node"
    assert any("kernel-shared" in each for each in deployed.run.said(deployed.node))


@pytest.mark.parametrize("handler", ["runc", "crun"])
def test_the_proof_shows_a_mapped_root_on_an_idmapped_rootfs(deployed: Deployed, handler: str) -> None:
    proven = [each for each in deployed.run.said(deployed.node) if each.startswith(f"{handler}: proven")]
    assert len(proven) == 1
    assert "root is host uid 65536, uid_map 0 65536 65536, an idmapped rootfs" in proven[0]
    mounts = [each for each in deployed.run.said(deployed.node) if each.startswith(f"{handler}: its / is ")]
    assert "lowerdir=/tmp/ovl-idmapped" in mounts[0]


def test_nothing_is_left_of_the_change_and_of_the_proof(deployed: Deployed) -> None:
    assert leftovers(deployed.node) == []
    assert deployed.node.ssh("ctr namespaces ls -q").stdout.split() == []
    assert deployed.node.ssh("grep -c ovl-idmapped /proc/mounts", check=False).stdout == "0\n"


def test_the_operator_is_told_what_to_do_next(deployed: Deployed) -> None:
    assert f"kubectl label --overwrite node {deployed.node.name} userns-node/tier=idmapped" in deployed.run.stderr


def test_a_second_run_does_nothing_and_asks_the_node_once(deployed: Deployed) -> None:
    before = tree(deployed.node)
    *earlier, own = deployed.node.ssh(f"{SESSIONS}; {OWN_PORT}").stdout.splitlines()
    run = must(deployed.operator.deploy(deployed.node))
    *sessions, still = deployed.node.ssh(f"{SESSIONS}; {OWN_PORT}").stdout.splitlines()
    asked = [line for line in sessions[len(earlier) :] if f" port {own} " not in line and f" port {still} " not in line]
    assert run.json["plan"] == run.json["results"]["operations"] == []
    assert run.said(deployed.node).count("nothing to do") == 1
    assert len(asked) == 1, asked
    assert differences(before, tree(deployed.node)) == []


def test_a_proof_that_failed_is_tried_again_until_it_succeeds(deployed: Deployed) -> None:
    node, operator = deployed.node, deployed.operator
    # Only the proof needs it here: nothing is installed.
    node.ssh("mount --bind /bin/false /usr/bin/tar")
    try:
        failed, again = operator.deploy(node, max_pods=111), operator.deploy(node, max_pods=111)
    finally:
        node.ssh("umount /usr/bin/tar")
    assert any(line.startswith("blocker proof-untried: ") for line in failed.said(node)), failed.text
    assert (failed.code, again.code, again.failed) == (1, 1, [node.name])
    assert again.will(node) == ["prove the last change: it was not proven yet, or its proof failed"]
    proven = must(operator.deploy(node, max_pods=111))
    assert [each.partition(":")[0] for each in proven.done(node)] == ["Prove"]
    assert must(operator.deploy(node, max_pods=111)).done(node) == []
    must(operator.deploy(node))


def test_a_reboot_changes_nothing(deployed: Deployed) -> None:
    deployed.node.reboot()
    assert deployed.node.ssh("systemctl is-active containerd").stdout == "active\n"
    assert (
        "userns-node: this is a container"
        in deployed.node.ssh("journalctl --quiet --boot --unit containerd --output cat").stdout
    )
    run = must(deployed.operator.deploy(deployed.node))
    assert run.json["results"]["operations"] == []


@pytest.mark.parametrize("runtime", ["/usr/local/sbin/runc", "/usr/local/bin/crun"])
def test_a_container_of_our_own_runs_in_a_user_namespace(deployed: Deployed, runtime: str) -> None:
    counter = start_counter(deployed.node, runtime=runtime)
    mount = deployed.node.ssh(f"grep ' / / ' /proc/{counter.pid}/mountinfo").stdout
    assert "ovl-idmapped" in mount
    assert deployed.node.ssh(f"stat -c %u /proc/{counter.pid}/root/bin/sh").stdout == "65536\n"
    counter.remove()


def test_no_layer_of_an_image_brings_an_attribute_that_overlay_would_follow(deployed: Deployed) -> None:
    """With metacopy such a one says which file's data belong to an inode: docs/explanation/metacopy.md."""
    node, name = deployed.node, "docker.io/lab/marked:1"
    theirs = {"user.lab": "kept", "trusted.overlay.redirect": "/etc/shadow", "trusted.overlay.metacopy": "y"}
    node.put("/root/marked.tar", image(node, name, more={"marked": b"data"}, attributes=theirs))
    node.ssh("ctr images import /root/marked.tar && rm /root/marked.tar")
    snapshots = Path(f"/proc/{node.leader}/root/var/lib/containerd/io.containerd.snapshotter.v1.overlayfs/snapshots")
    [marked] = snapshots.glob("*/fs/marked")
    assert marked.read_bytes() == b"data"
    assert os.listxattr(marked) == ["user.lab"]
    node.ssh(f"ctr images rm --sync {name}")


def test_settings_arrive_by_data_before_host_before_group_before_all(
    deployed: Deployed, mirror: Mirror, fresh_node: BootNode
) -> None:
    by_group, by_host = deployed.node, fresh_node()
    inventory = deployed.operator.inventory(
        {"edge": {by_group: {"max_pods": 120}, by_host: {"sandbox_image": "lab.invalid/by-host:1", "max_pods": 120}}},
        group_data={"edge": {"sandbox_image": "lab.invalid/by-group:1", "max_pods": 111}},
    )
    must(deployed.operator.pyinfra(inventory, "deploy.py", "--json", "-y", "--data", "max_pods=60000"))
    images = []
    for node in (by_group, by_host):
        config = tomllib.loads(node.ssh("containerd config dump").stdout)
        images.append(config["plugins"]["io.containerd.cri.v1.images"]["pinned_images"]["sandbox"])
        assert "user.max_user_namespaces = 3840000" in node.ssh("cat /etc/sysctl.d/90-userns-node.conf").stdout
        assert mirror.versions("crun")[0] in node.ssh("crun --version").stdout, "group_data/all.py did not arrive"
    assert images == ["lab.invalid/by-group:1", "lab.invalid/by-host:1"]


# --- what is not what the lock file pins -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bare(lab: Lab) -> Iterator[LabNode]:
    """A node that stays bare, since each deploy to it fails."""
    node = lab.node("bare")
    yield node
    node.stop()


def test_an_asset_that_is_not_the_locked_one_stops_its_host_alone(
    deployed: Deployed, bare: LabNode, mirror: Mirror, tmp_path: Path
) -> None:
    asset = mirror.asset("crun")
    other = hashlib.sha256(b"another crun").hexdigest()
    lock = tmp_path / "lock.toml"
    lock.write_text(mirror.lock.read_text().replace(asset.sha256, other))
    before = tree(bare)
    inventory = deployed.operator.inventory({"nodes": {bare: {"artifact_lock": str(lock)}, deployed.node: {}}})
    run = deployed.operator.pyinfra(inventory, "deploy.py", "--json", "-y")
    assert run.code == 1
    assert run.failed == [bare.name]
    said = "\n".join(run.said(bare))
    assert f"{asset.path} is not what the lock file pins: its SHA-256 is {asset.sha256}, expected {other}" in said
    assert run.done(bare) == [
        f"Fetch {name} {mirror.versions(name)[0]} and verify its SHA-256" for name in ("containerd", "runc")
    ]
    assert differences(before, tree(bare)) == []


@pytest.mark.parametrize(
    ("fault", "tells"),
    [
        ("corrupt", "is not what the lock file pins: its SHA-256 is {got}, expected {wanted}; nothing was unpacked"),
        ("truncate", "could not download {url}"),
        ("404", "could not download {url}"),
    ],
)
def test_a_spoilt_download_leaves_the_node_as_it_was(
    operator: Operator, bare: LabNode, mirror: Mirror, releases: Served, fault: Fault, tells: str
) -> None:
    asset = mirror.asset("containerd")
    releases.misbehave(asset.path, fault)
    content = bytearray((mirror.root / asset.path.lstrip("/")).read_bytes())
    content[len(content) // 2] ^= 0xFF
    before = tree(bare)
    mirror_with_login = releases.url.replace("://", "://robot:hunter2@")
    run = operator.deploy(bare, release_url=mirror_with_login)
    assert (run.code, run.failed) == (1, [bare.name])
    url, got = releases.url.replace("://", "://***@") + asset.path, hashlib.sha256(content).hexdigest()
    assert tells.format(url=url, got=got, wanted=asset.sha256) in "\n".join(run.said(bare))
    assert "hunter2" not in run.text
    assert differences(before, tree(bare)) == []
