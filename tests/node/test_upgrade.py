"""Upgrades and downgrades on real nodes: running containers notice none of them, new ones start after each."""

from __future__ import annotations

import json
import re
import shutil
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from lab import Lab, LabNode
from lab.mirror import Asset, Mirror, lock_text
from lab.serving import Served
from tests.node import releases as made
from tests.node.conftest import BootNode
from tests.node.faults import Deploying, contents, held, program, wait_for
from tests.node.releases import Releases
from tests.node.runs import Counter, Operator, Run, differences, leftovers, must, start_counter, tree

TASKS = "containerd-downgrade-with-tasks"


def config_version(node: LabNode) -> int:
    version = tomllib.loads(node.ssh("cat /etc/containerd/config.toml").stdout)["version"]
    assert isinstance(version, int)
    return version


def proven(run: Run, node: LabNode) -> set[str]:
    """The handlers with which the run started new containers after its change."""
    return {line.partition(": proven")[0] for line in run.said(node) if ": proven" in line}


# --- over the border between 1.7 and 2.x -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Border:
    """A node, and the settings for the containerd of either side."""

    lab: Lab
    operator: Operator
    node: LabNode
    old: dict[str, Any]
    new: dict[str, Any]

    def deploy(self, settings: dict[str, Any]) -> Run:
        return self.operator.deploy(self.node, **settings)

    def runs(self) -> str:
        """The version that runs, by its own word."""
        return self.node.ssh("ctr version | sed -n '/^Server/,$s/ *Version: *v*//p'").stdout.strip()

    def counting(self) -> Counter:
        return start_counter(self.node)


@pytest.fixture(scope="module")
def border(lab: Lab, mirror_with_stable: Mirror, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Border]:
    mirror = mirror_with_stable
    served = lab.serve(mirror)
    operator = Operator(lab, tmp_path_factory.mktemp("border"), release_url=served.url, artifact_lock=str(mirror.lock))
    node = lab.node("border")
    old: dict[str, Any] = {
        "kubernetes_version": "1.26",
        "containerd_version": mirror.versions("containerd")[-1],
        "runc_version": mirror.versions("runc")[-1],
    }
    found = re.search(r"What the operator may accept: allow = (\[.*\])", operator.deploy(node, **old).stderr)
    assert found
    old["allow"] = json.loads(found[1])
    assert old["containerd_version"].startswith("1.7.")
    must(operator.deploy(node, **old))
    yield Border(lab, operator, node, old, {})
    node.stop()
    served.stop()


def test_up_over_the_border_under_a_running_container_and_down_only_without_any(border: Border) -> None:
    node, counter = border.node, border.counting()
    run = must(border.deploy(border.new))
    assert run.findings(node)["containerd-skips-minor"] == "warning"
    assert run.findings(node)["pause-image-changes"] == "warning"
    assert proven(run, node) == {"runc"}
    assert config_version(node) == 3
    assert counter.trouble() == []

    before, runs = contents(node), border.runs()
    for refused in (border.deploy(border.old), border.operator.rollback(node)):
        assert (refused.code, refused.failed) == (1, [node.name])
        assert refused.findings(node)[TASKS] == "blocker", refused.stderr
    assert contents(node) == before
    assert border.runs() == runs
    assert counter.stopped_counting() == ""

    counter.remove()
    run = must(border.deploy(border.old))
    assert proven(run, node) == {"runc"}
    assert border.runs().startswith("1.7.")
    assert config_version(node) == 2
    assert must(border.deploy(border.old)).done(node) == []
    assert leftovers(node) == []


def test_a_rollback_goes_over_the_border_in_the_same_way(border: Border) -> None:
    node = border.node
    must(border.deploy(border.new))
    must(border.operator.rollback(node))  # the node is empty
    assert (config_version(node), border.runs()[:4]) == (2, "1.7.")
    assert must(border.deploy(border.old)).done(node) == []
    counter = border.counting()
    must(border.operator.rollback(node))  # up again, under a container
    assert (config_version(node), border.runs()[:2]) == (3, "2.")
    assert must(border.deploy(border.new)).done(node) == []
    assert counter.trouble() == []
    counter.remove()


@pytest.mark.parametrize(
    ("name", "words", "tells"),
    [
        ("flock", "-w 300 9", "nothing was changed"),
        ("systemctl", "stop containerd.service", "the previous set is back, and containerd runs it"),
    ],
    ids=["before the lock", "in the last moment"],
)
def test_a_task_that_starts_after_the_plan_was_made_is_not_orphaned(
    border: Border, name: str, words: str, tells: str
) -> None:
    node = border.node
    must(border.deploy(border.new))
    before = contents(node)
    with held(node, name, words) as there:
        deploying = Deploying(border.lab, border.operator, node, border.old)
        wait_for(there)
        counter = border.counting()
    run = deploying.end()
    assert (run.code, run.failed) == (1, [node.name])
    said = "\n".join(run.said(node))
    assert "tasks run here that the older containerd could not talk to (1 default)" in said, run.stderr
    assert tells in said
    assert contents(node) == before
    assert border.runs().startswith("2.")
    assert (counter.stopped_counting(), counter.unknown()) == ("", "")
    assert leftovers(node) == []
    counter.remove()


# --- what an upgrade meets -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ready:
    """A node of containerd 2.x with runc and crun."""

    operator: Operator
    node: LabNode
    releases: Releases

    crun: str

    @property
    def newer(self) -> dict[str, str]:
        return {
            "containerd_version": self.releases.newer,
            "runc_version": self.releases.newer_runc,
            "crun_version": self.crun,
        }


def with_another_crun(mirror: Mirror, directory: Path) -> Mirror:
    """The same mirror with one more version of crun, the same program in another file."""
    root = directory / "root"
    shutil.copytree(mirror.root, root)
    crun = mirror.asset("crun")
    content = (root / crun.path.lstrip("/")).read_bytes() + b"newer\n"
    newer = Asset("crun", f"{crun.version}.1", crun.arch, sha256(content).hexdigest())
    (root / newer.path.lstrip("/")).parent.mkdir()
    (root / newer.path.lstrip("/")).write_bytes(content)
    made = Mirror(root, (*mirror.assets, newer))
    made.lock.write_text(lock_text(list(made.assets)))
    return made


@pytest.fixture(scope="module")
def ready(lab: Lab, mirror: Mirror, _releases: Served, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ready]:
    """It had its distribution's package before, which still lies there: programs, unit and all."""
    releases = made.build(mirror)
    all_of_them = with_another_crun(releases.mirror, tmp_path_factory.mktemp("mirror"))
    newer_crun, crun = all_of_them.versions("crun")
    operator = Operator(
        lab,
        tmp_path_factory.mktemp("upgrade"),
        release_url=lab.serve(all_of_them).url,
        artifact_lock=str(all_of_them.lock),
        containerd_version=releases.containerd,
        runc_version=releases.runc,
        crun_version=crun,
    )
    node = lab.node("upgraded")
    (node.root / "etc/apt/sources.list").write_text(f"deb [trusted=yes] {_releases.url}/debian ./\n")
    node.ssh("apt-get -q update && apt-get -qy install --no-install-recommends containerd runc", timeout=300)
    yield Ready(operator, node, releases, newer_crun)
    node.stop()


def test_a_leftover_unit_and_a_second_binary_are_told_and_hidden(ready: Ready) -> None:
    node = ready.node
    assert program(node) == node.ssh("sha256sum /usr/bin/containerd").stdout.split()[0]
    counter = start_counter(node, runtime="/usr/sbin/runc")
    run = must(ready.operator.deploy(node))
    assert run.findings(node)["containerd-second"] == "note"
    shown = node.ssh("systemctl show --property FragmentPath --value containerd; ls /usr/lib/systemd/system").stdout
    assert shown.startswith("/etc/systemd/system/containerd.service\n")
    assert "containerd.service" in shown.splitlines()[1:]
    running = "readlink /proc/$(systemctl show --property MainPID --value containerd)/exe"
    assert node.ssh(running).stdout == "/usr/local/bin/containerd\n"
    assert counter.trouble() == []
    counter.remove()
    # Nothing here is the package's any more; a rollback is the way back to it.
    must(ready.operator.rollback(node))
    assert node.ssh(running).stdout == "/usr/bin/containerd\n"
    must(ready.operator.rollback(node))
    assert node.ssh(running).stdout == "/usr/local/bin/containerd\n"
    assert must(ready.operator.deploy(node)).done(node) == []


@pytest.mark.parametrize("handler", ["runc", "crun"])
def test_each_runtime_goes_up_and_down_under_its_own_container(ready: Ready, handler: str) -> None:
    node = ready.node
    must(ready.operator.deploy(node))
    counter = start_counter(node, runtime={"runc": "/usr/local/sbin/runc", "crun": "/usr/local/bin/crun"}[handler])
    # What a copy in place would meet; and a change by rename does not.
    busy = node.ssh(f": >>/proc/$(pgrep -of containerd-shim)/exe; : >>{'/usr/local/bin/containerd'}", check=False)
    assert busy.stderr.count("Text file busy") == 2, busy.stderr
    up = must(ready.operator.deploy(node, **ready.newer))
    down = must(ready.operator.deploy(node))
    assert proven(up, node) == proven(down, node) == {"runc", "crun"}
    assert counter.trouble() == []
    counter.remove()


def test_debians_newest_runc_and_an_older_one_run_each_others_containers(
    lab: Lab, mirror: Mirror, mirror_with_newest: Mirror, fresh_node: BootNode, tmp_path: Path
) -> None:
    node, served = fresh_node(), lab.serve(mirror_with_newest)
    operator = Operator(lab, tmp_path, release_url=served.url, artifact_lock=str(mirror_with_newest.lock))
    older, newest = mirror.versions("runc")[0], mirror_with_newest.versions("runc")[0]
    must(operator.deploy(node, runc_version=older))
    for version in (newest, older):
        counter = start_counter(node)
        assert proven(must(operator.deploy(node, runc_version=version)), node) == {"runc"}
        assert version in node.ssh("runc --version").stdout
        assert counter.trouble() == []
        counter.remove()
    served.stop()


def test_a_runtime_that_vanished_is_put_back_under_its_container(ready: Ready) -> None:
    node = ready.node
    must(ready.operator.deploy(node))
    counter = start_counter(node)
    node.ssh("rm /usr/local/sbin/runc /usr/local/bin/containerd-shim-runc-v2")
    assert counter.unknown() != ""
    run = must(ready.operator.deploy(node))
    assert any("install runc" in line for line in run.will(node))
    assert counter.trouble() == []
    counter.remove()


def test_a_masked_service_is_refused_by_name(ready: Ready) -> None:
    node = ready.node
    must(ready.operator.deploy(node))
    unit = "/etc/systemd/system/containerd.service"
    # By hand: systemctl masks only where there is no unit of that name in /etc.
    node.ssh(f"mv {unit} /root; ln -s /dev/null {unit}; systemctl daemon-reload")
    before = tree(node)
    try:
        run = ready.operator.deploy(node, **ready.newer)
        assert (run.code, run.failed) == (1, [node.name])
        assert run.findings(node)["containerd-masked"] == "blocker"
        assert "systemctl unmask containerd" in run.stderr
        assert differences(before, tree(node)) == []
    finally:
        node.ssh(f"mv /root/containerd.service {unit}; systemctl daemon-reload")
    assert must(ready.operator.deploy(node)).done(node) == []


def test_a_second_containerd_with_a_root_of_its_own_is_left_alone(ready: Ready) -> None:
    node = ready.node
    must(ready.operator.deploy(node))
    own = "--root /var/lib/second --state /run/second --address /run/second/containerd.sock"
    node.ssh(f"systemd-run --quiet --unit=second /usr/bin/containerd {own} --config /dev/null")
    wait_for(lambda: node.ssh("test -S /run/second/containerd.sock", check=False).returncode == 0)
    try:
        run = must(ready.operator.deploy(node, **ready.newer))
        assert run.findings(node)["containerd-second-running"] == "note"
        assert any("/usr/bin/containerd (pid " in line and "second.service) runs" in line for line in run.said(node))
        assert node.ssh("systemctl is-active second", check=False).stdout == "active\n"
    finally:
        node.ssh("systemctl stop second; rm -rf /var/lib/second /run/second")
    must(ready.operator.deploy(node))


def test_a_second_containerd_at_our_root_is_refused_by_name(ready: Ready) -> None:
    node = ready.node
    must(ready.operator.deploy(node))
    node.ssh("systemctl stop containerd; systemd-run --quiet --unit=second /usr/bin/containerd --config /dev/null")
    wait_for(lambda: node.ssh("ctr version", check=False).returncode == 0)
    before = contents(node)
    try:
        run = ready.operator.deploy(node, **ready.newer)
        assert (run.code, run.failed) == (1, [node.name])
        assert run.findings(node)["containerd-second-running"] == "blocker"
        assert "systemctl disable --now second.service" in run.stderr
        assert contents(node) == before
    finally:
        node.ssh("systemctl stop second; systemctl start containerd")
    assert must(ready.operator.deploy(node)).done(node) == []
