"""The lab itself: its nodes are real, and the machine does not notice them."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections.abc import Iterable
from pathlib import Path

import pytest

from lab import Lab, LabNode, cache, cgroups, detached, host, ssh, traces
from lab.mirror import Mirror
from lab.paths import REPO
from lab.serving import Fault, Served
from tests.conftest import unavailable
from tests.node.conftest import BootNode

BOOT_ID = "cat /proc/sys/kernel/random/boot_id"

# An owner in a process of its own: prints its lab's id and its keeper's pid when a node runs in it, and waits.
OWNER = """
import os, sys, time
from lab import Lab
with Lab() as lab:
    node = lab.node("victim")
    print(lab.id, lab.keeper, flush=True)
    time.sleep(600)
"""


def start_owner(program: str = OWNER) -> tuple[subprocess.Popen[str], str, int]:
    owner = subprocess.Popen([sys.executable, "-c", program], cwd=REPO, stdout=subprocess.PIPE, text=True)
    assert owner.stdout
    lab, keeper = owner.stdout.readline().split()
    return owner, lab, int(keeper)


def wait_until_nothing_is_left(lab: str, seconds: float = 180) -> None:
    end = time.monotonic() + seconds
    while (left := traces.left_by(lab)) and time.monotonic() < end:
        time.sleep(0.05)
    assert left == []


def network_namespaces(pids: Iterable[int]) -> set[str]:
    """Those of processes. A process that ends under the reader (a booting node has many) has none."""
    found = set()
    for pid in pids:
        with contextlib.suppress(OSError):
            found.add(os.readlink(f"/proc/{pid}/ns/net"))
    return found


def test_a_node_boots_and_every_unit_of_it_runs(shared_node: LabNode) -> None:
    assert shared_node.ssh("systemctl is-system-running").stdout == "running\n"
    assert shared_node.ssh("systemctl --failed --plain --no-legend").stdout == ""


def test_a_node_lacks_what_a_deploy_has_to_bring(shared_node: LabNode) -> None:
    missing = shared_node.ssh("for p in containerd ctr runc crun python3; do command -v $p || echo no $p; done").stdout
    assert missing.split("\n")[:-1] == ["no containerd", "no ctr", "no runc", "no crun", "no python3"]


def test_ssh_passes_input_output_and_exit_code_on(shared_node: LabNode) -> None:
    done = shared_node.ssh("cat; id -un; echo oops >&2; exit 3", check=False, input="hello\n")
    assert (done.stdout, done.stderr, done.returncode) == ("hello\nroot\n", "oops\n", 3)


def test_nodes_reach_each_other_and_are_different_machines(shared_node: LabNode, fresh_node: BootNode) -> None:
    one, two = shared_node, fresh_node()
    assert one.ssh(f"timeout 5 bash -c '</dev/tcp/{two.address}/22'").returncode == 0
    identity = "cat /etc/machine-id /etc/hostname /etc/ssh/ssh_host_ed25519_key.pub"
    assert not set(one.ssh(identity).stdout.splitlines()) & set(two.ssh(identity).stdout.splitlines())


def test_a_reboot_is_a_new_boot_of_the_same_tree(fresh_node: BootNode) -> None:
    node = fresh_node()
    before = node.ssh(f"{BOOT_ID}; touch /root/kept /run/lost /tmp/lost").stdout
    node.reboot()
    assert node.ssh(BOOT_ID).stdout != before
    assert node.ssh("ls /root/kept /run/lost /tmp/lost 2>/dev/null", check=False).stdout == "/root/kept\n"


def test_a_power_cut_keeps_the_tree(fresh_node: BootNode) -> None:
    node = fresh_node()
    node.ssh("echo kept > /root/file")
    node.cut_power()
    assert (node.root / "root/file").read_text() == "kept\n"
    node.start()
    node.wait()
    assert node.ssh("cat /root/file; systemctl is-system-running").stdout == "kept\nrunning\n"


@pytest.mark.parametrize("name", ["kernel/panic", "user/max_user_namespaces", "fs/file-max", "vm/swappiness"])
def test_a_node_cannot_write_the_machines_sysctls(shared_node: LabNode, name: str) -> None:
    before = Path("/proc/sys", name).read_text()
    done = shared_node.ssh(f"cat /proc/sys/{name} | tee /proc/sys/{name}", check=False)
    assert done.stdout == before
    assert "Read-only file system" in done.stderr


@pytest.mark.parametrize(
    ("fault", "curl_exits_with", "digest_is_right"),
    [(None, 0, True), ("404", 22, False), ("truncate", 18, False), ("corrupt", 0, False), ("hang", 28, False)],
)
def test_the_server_misbehaves_as_told(
    shared_node: LabNode,
    releases: Served,
    mirror: Mirror,
    fault: Fault | None,
    curl_exits_with: int,
    digest_is_right: bool,
) -> None:
    asset = mirror.asset("crun")
    if fault:
        releases.misbehave(asset.path, fault, times=1)
    node = shared_node
    node.ssh("rm -f /root/asset")  # of the case before
    seconds = 3 if fault == "hang" else 60
    get = f"curl --silent --fail --max-time {seconds} --output /root/asset {releases.url}{asset.path}"
    assert node.ssh(get, check=False).returncode == curl_exits_with
    is_right = node.ssh(f"echo {asset.sha256} /root/asset | sha256sum --check --status", check=False).returncode == 0
    assert is_right == digest_is_right
    assert [request.client for request in releases.requests(asset.path)] == [node.address]
    assert node.ssh(get).returncode == 0, "one fault was ordered, not two"


def test_the_mirrors_programs_run_on_a_node(fresh_node: BootNode, releases: Served, mirror: Mirror) -> None:
    node, url = fresh_node(), releases.url
    containerd, runc, crun = (mirror.asset(name) for name in ("containerd", "runc", "crun"))
    node.ssh(f"curl -sf {url}{containerd.path} | tar -xz -C /usr/local")
    node.ssh(f"cd /usr/local/bin && curl -sf -o runc {url}{runc.path} -o crun {url}{crun.path} && chmod +x runc crun")
    said = node.ssh("containerd --version && ctr --version && runc --version && crun --version").stdout
    assert [asset.version in said for asset in (containerd, runc, crun)] == [True, True, True]


def test_debians_packages_install_from_the_mirror(fresh_node: BootNode, releases: Served) -> None:
    node = fresh_node()
    (node.root / "etc/apt/sources.list").write_text(f"deb [trusted=yes] {releases.url}/debian ./\n")
    node.ssh("apt-get update && apt-get install --yes containerd crun")
    assert node.ssh("systemctl is-active containerd").stdout == "active\n"


def test_the_stable_mirror_has_an_older_containerd_too(mirror_with_stable: Mirror) -> None:
    assert [version.split(".")[0] for version in mirror_with_stable.versions("containerd")] == ["2", "1"]


def test_the_lock_file_pins_what_the_mirror_serves(mirror: Mirror) -> None:
    text = mirror.lock.read_text()
    for asset in mirror.assets:
        digest = hashlib.sha256((mirror.root / asset.path.lstrip("/")).read_bytes()).hexdigest()
        assert f'{asset.arch} = "{digest}"' in text


def test_the_release_tarball_is_laid_out_as_upstreams(mirror: Mirror) -> None:
    with tarfile.open(mirror.root / mirror.asset("containerd").path.lstrip("/")) as tar:
        names = {member.name for member in tar if member.isfile() and member.mode == 0o755}
    assert names >= {"bin/containerd", "bin/ctr", "bin/containerd-shim-runc-v2"}


def test_a_lab_leaves_the_machine_as_it_was(machine: None) -> None:
    before = host.fingerprint()
    with Lab() as lab:
        lab.node("one").reboot()
        own = network_namespaces([lab.holder, *cgroups.processes(lab.cgroup)])
        assert len(own) == 2, "one for the controller, one for the node"
        assert not own & network_namespaces([os.getpid()])
    assert traces.left_by(lab.id) == []
    assert host.differences(before, host.fingerprint()) == []


@pytest.mark.parametrize("name", ["SIGKILL", "SIGTERM", "SIGINT"])
def test_a_killed_owner_leaves_nothing(machine: None, name: str) -> None:
    before = host.fingerprint()
    owner, lab, _ = start_owner()
    assert traces.left_by(lab)
    owner.send_signal(signal.Signals[name])
    owner.wait()
    wait_until_nothing_is_left(lab)
    assert host.differences(before, host.fingerprint()) == []


def test_an_owner_killed_while_a_node_is_being_made_leaves_nothing(machine: None) -> None:
    owner, lab, _ = start_owner(
        "from lab import Lab\nlab = Lab()\nprint(lab.id, lab.keeper, flush=True)\nlab.node('victim')"
    )
    time.sleep(0.15)
    owner.kill()
    owner.wait()
    wait_until_nothing_is_left(lab)


def test_light_nodes_are_one_node_with_many_addresses(machine: None) -> None:
    with Lab() as lab:
        fleet = lab.light_nodes(3)
        said = [lab.run(ssh.command(lab.home, str(data["ssh_hostname"]), "hostname")).stdout for data in fleet.values()]
        assert list(fleet) == ["fleet-001", "fleet-002", "fleet-003"]
        assert said == ["fleet\n"] * 3


def test_a_killed_keeper_takes_the_nodes_along_and_the_next_lab_tidies_up(machine: None) -> None:
    owner, lab, keeper = start_owner()
    os.kill(keeper, signal.SIGKILL)
    owner.kill()
    owner.wait()
    end = time.monotonic() + 180
    while any(trace.startswith("process") for trace in traces.left_by(lab)) and time.monotonic() < end:
        time.sleep(0.05)
    with Lab():
        assert traces.left_by(lab) == []


def test_a_detached_lab_outlives_its_owner_until_it_is_ended(machine: None) -> None:
    owner, lab, _ = start_owner(OWNER.replace("time.sleep(600)", "lab.detach()").replace('"victim"', '"left-running"'))
    assert owner.wait() == 0
    assert subprocess.check_output(detached.ssh("left-running", "hostname"), text=True) == "left-running\n"
    assert "left-running" in detached.end()
    assert traces.left_by(lab) == []


def test_without_root_the_lab_says_so_in_one_line(machine: None) -> None:
    # A copy, by the environment's own Python or the machine's: another user may read neither checkout nor it.
    as_another = ["setpriv", "--reuid=65534", "--clear-groups", "env", "-u", "USERNS_NODE_BUILD"]
    with tempfile.TemporaryDirectory() as home:
        shutil.copytree(REPO / "lab", f"{home}/lab")
        os.chmod(home, 0o755)
        for python in (os.path.realpath(sys.executable), "/usr/bin/python3"):
            command = [*as_another, python, "-m", "lab", "up", "one"]
            done = subprocess.run(command, cwd=home, capture_output=True, text=True, check=False)
            if done.returncode not in (126, 127):  # env's words for what it can't run, and what is not there
                break
        else:
            unavailable("another user can run no Python here")
    assert (done.returncode, done.stderr) == (
        1,
        "lab: the lab needs root, because it makes namespaces, mounts and containers\n",
    )


def test_two_builders_build_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "CACHE", tmp_path)
    built = []

    def build(into: Path) -> None:
        built.append(into)
        time.sleep(0.1)
        (into / "file").touch()

    threads = [threading.Thread(target=cache.once, args=("kind", "recipe", build)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(built) == 1
    assert (tmp_path / "kind-recipe/file").exists()


def test_a_build_that_was_cut_is_not_mistaken_for_a_whole_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "CACHE", tmp_path)
    (tmp_path / ".kind.part/half").mkdir(parents=True)

    def interrupted(into: Path) -> None:
        (into / "half").touch()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cache.once("kind", "recipe", interrupted)
    assert [path.name for path in tmp_path.iterdir()] == [".kind.lock"]
    assert list(cache.once("kind", "recipe", lambda into: (into / "whole").touch()).iterdir()) == [
        tmp_path / "kind-recipe/whole"
    ]
