"""install_from = "bundle": a node that can reach nothing gets all it needs over the SSH connection."""

from __future__ import annotations

import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lab import Lab, LabNode
from lab.mirror import Mirror
from lab.paths import REPO
from tests.node.faults import Deploying, wait_for
from tests.node.runs import Operator, differences, leftovers, must, tree

RUNC = "/usr/local/sbin/runc"
STAGED = "find /var/lib/userns-node/staged -mindepth 1 2>/dev/null; true"
SYSTEM = "/usr/sbin:/usr/bin:/sbin:/bin"
SUDO = {"ssh_user": "ops", "_sudo": True}


@dataclass(frozen=True)
class Gap:
    """A lab of its own, in which nobody serves anything, with one node and a bundle on the controller."""

    lab: Lab
    node: LabNode
    mirror: Mirror
    bundle: Path
    operator: Operator


def make(mirror: Mirror, bundle: Path, *components: str) -> Path:
    """A bundle, made as an operator makes it."""
    wanted = [f"{name}={mirror.versions(name)[0]}" for name in components]
    command = [sys.executable, "-m", "artifacts", "bundle", str(bundle), *wanted]
    subprocess.run([*command, "--lock", mirror.lock, "--from", mirror.root], cwd=REPO, check=True, capture_output=True)
    return bundle


@pytest.fixture(scope="module")
def gap(machine: None, mirror: Mirror, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gap]:
    home = tmp_path_factory.mktemp("gap")
    bundle = home / "bundle.tar"
    with Lab() as lab:
        make(mirror, bundle, "containerd", "runc", "crun")
        operator = Operator(
            lab,
            home,
            install_from="bundle",
            artifact_bundle=str(bundle),
            artifact_lock=str(mirror.lock),
            crun_version=mirror.versions("crun")[0],
        )
        yield Gap(lab, lab.node("gap"), mirror, bundle, operator)


def test_the_node_can_reach_nothing(gap: Gap) -> None:
    assert gap.node.ssh("ip route show default; ip -6 route show default").stdout == ""
    assert gap.lab.run(["ss", "--listening", "--tcp", "--udp", "--numeric", "--no-header"]).stdout == ""


def test_a_dry_run_says_what_would_be_pushed_and_how_big(gap: Gap) -> None:
    before = tree(gap.node)
    run = must(gap.operator.dry(gap.node))
    said = run.will(gap.node)
    for name in ("containerd", "runc", "crun"):
        asset = gap.mirror.asset(name)
        size = (gap.mirror.root / asset.path.lstrip("/")).stat().st_size
        pushed = f"{size / 1e6:.1f} MB pushed from the bundle"
        assert f"install {name} {asset.version} (sha256 {asset.sha256[:12]}…, {pushed}): it is not installed" in said
    assert [name for name in run.planned(gap.node) if name.startswith(("Push", "Fetch"))] == [
        f"Push {name} {gap.mirror.versions(name)[0]} from the bundle and verify its SHA-256"
        for name in ("containerd", "runc", "crun")
    ]
    assert differences(before, tree(gap.node)) == []


@pytest.fixture(scope="module")
def provisioned(gap: Gap) -> Gap:
    run = must(gap.operator.deploy(gap.node))
    assert any(name.startswith("Prove") for name in run.done(gap.node))
    assert "MB/s" not in run.text
    gap.node.ssh(
        "useradd --create-home ops && cp -r /root/.ssh /home/ops/ && chown -R ops: /home/ops/.ssh && "
        "echo 'ops ALL=(ALL) NOPASSWD: ALL' >/etc/sudoers.d/ops && "
        # Debian leaves /usr/local out, where a test puts a program.
        f"echo 'Defaults:ops secure_path=/usr/local/bin:{SYSTEM}' >>/etc/sudoers.d/ops && "
        # A login that talks: what it prints stands before every answer.
        "echo 'echo Welcome to this node' | tee /home/ops/.profile >>/home/ops/.bashrc"
    )
    return gap


def test_the_node_is_provisioned_and_a_second_run_pushes_nothing(provisioned: Gap) -> None:
    again = must(provisioned.operator.deploy(provisioned.node))
    assert again.done(provisioned.node) == []
    assert "nothing to do" in again.said(provisioned.node)
    assert leftovers(provisioned.node) == []


@pytest.fixture
def lacks_runc(provisioned: Gap) -> Gap:
    """The node, after somebody removed a program."""
    provisioned.node.ssh(f"rm -f {RUNC}")
    return provisioned


def pushed(names: list[str]) -> list[str]:
    """Of the names of operations, what was pushed."""
    return [name.split()[1] for name in names if name.startswith("Push")]


def test_a_user_with_sudo_pushes_only_what_is_missing_and_leaves_nothing_in_tmp(lacks_runc: Gap) -> None:
    node = lacks_runc.node
    before = node.ssh(files := "find /home/ops /tmp /var/tmp -type f | sort").stdout
    operator = lacks_runc.operator
    run = must(operator.pyinfra(operator.inventory({"nodes": {node: SUDO}}), "deploy.py", "--json", "-y"))
    assert pushed(run.done(node)) == ["runc"]
    digest = lacks_runc.mirror.asset("runc").sha256
    assert node.ssh(f"sha256sum {RUNC}; stat -c '%a %u:%g' {RUNC}").stdout.split() == [digest, RUNC, "755", "0:0"]
    assert node.ssh(files).stdout == before


# `timeout … cat` is what takes a push; it has no idea of tests.
SHIM = b"""#!/bin/sh
read -r parent </proc/$PPID/comm
[ "$#:$parent" = 0:timeout ] || exec /usr/bin/cat "$@"
head -c 1000000
echo $$ >/run/half-way
while [ -e /run/half-way ]; do sleep 0.1; done
exec /usr/bin/cat
"""


@contextmanager
def half_way(node: LabNode) -> Iterator[Callable[[], bool]]:
    """While inside, the node takes a megabyte of what is pushed and waits; yields whether it has come to that."""
    node.put("/usr/local/bin/cat", SHIM, 0o755)
    try:
        yield lambda: node.ssh("test -s /run/half-way", check=False).returncode == 0
    finally:
        node.ssh("rm -f /usr/local/bin/cat /run/half-way")


# Ends the sshd that the process in /run/half-way belongs to.
CUT = """
    read -r pid </run/half-way
    until read -r name </proc/$pid/comm && case $name in sshd*) true ;; *) false ;; esac; do
        pid=$(sed 's/.*) . //' /proc/$pid/stat | cut -d ' ' -f 1)
    done
    kill -KILL $pid"""


@pytest.mark.parametrize(
    ("data", "cut"),
    [({}, "controller"), (SUDO, "connection")],
    ids=["controller killed", "connection cut under sudo"],
)
def test_what_was_cut_half_way_is_not_used_and_not_left(lacks_runc: Gap, data: dict[str, Any], cut: str) -> None:
    node = lacks_runc.node
    with half_way(node) as there:
        deploying = Deploying(lacks_runc.lab, lacks_runc.operator, node, data)
        wait_for(lambda: there() or deploying.process.poll() is not None)
        assert deploying.process.poll() is None, deploying.end().text
        assert ".asset." in node.ssh(STAGED).stdout
        if cut == "controller":
            deploying.kill()
        else:
            node.ssh(CUT)
            run = deploying.end()
            assert run.code == 1
            assert run.failed == [node.name]
    wait_for(lambda: node.ssh(STAGED).stdout == "")
    assert node.ssh(f"test -e {RUNC}", check=False).returncode == 1
    again = must(lacks_runc.operator.deploy(node))
    assert pushed(again.done(node)) == ["runc"]
    assert leftovers(node) == []


def test_a_bundle_that_lacks_something_refuses_the_node_with_the_command(provisioned: Gap, tmp_path: Path) -> None:
    bundle = make(provisioned.mirror, tmp_path / "less.tar", "containerd", "runc")
    run = provisioned.operator.dry(provisioned.node, artifact_bundle=str(bundle))
    assert run.code == 1
    assert run.findings(provisioned.node)["artifact-not-bundled"] == "blocker"
    wanted = " ".join(f"{name}={provisioned.mirror.versions(name)[0]}" for name in ("containerd", "runc", "crun"))
    assert f"python -m artifacts bundle OUT.tar {wanted} --arch amd64" in run.stderr


def test_a_damaged_bundle_is_refused_before_anything_is_pushed(lacks_runc: Gap, tmp_path: Path) -> None:
    bundle = make(lacks_runc.mirror, tmp_path / "damaged.tar", "containerd", "runc", "crun")
    with tarfile.open(bundle) as tar:
        offset = tar.getmember(lacks_runc.mirror.asset("runc").path.lstrip("/")).offset_data
    with bundle.open("r+b") as file:
        file.seek(offset)
        file.write(b"not runc")
    before = tree(lacks_runc.node)
    run = lacks_runc.operator.deploy(lacks_runc.node, artifact_bundle=str(bundle))
    assert run.code == 1
    assert any(line.startswith(f"refused: {bundle} is damaged: runc") for line in run.said(lacks_runc.node)), run.text
    assert run.done(lacks_runc.node) == []
    assert differences(before, tree(lacks_runc.node)) == []


@pytest.mark.parametrize(("size", "says"), [(None, "cannot be read: No such file"), (1_000_000, "is no whole bundle")])
def test_a_bundle_that_is_missing_or_cut_is_refused_by_its_name(
    provisioned: Gap, tmp_path: Path, size: int | None, says: str
) -> None:
    bundle = tmp_path / "cut.tar"
    if size:
        bundle.write_bytes(provisioned.bundle.read_bytes()[:size])
    run = provisioned.operator.dry(provisioned.node, artifact_bundle=str(bundle))
    assert run.code == 1
    assert any(
        line.startswith("refused: artifact_bundle = ") and says in line for line in run.said(provisioned.node)
    ), run.text
