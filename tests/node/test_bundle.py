"""install_from = "bundle": a node that can reach nothing gets all it needs over the SSH connection."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from lab import Lab, LabNode
from lab.mirror import Mirror
from lab.paths import REPO
from tests.node.runs import Operator, differences, leftovers, must, tree


@dataclass(frozen=True)
class Gap:
    """A lab of its own, in which nobody serves anything, with one node and a bundle on the controller."""

    lab: Lab
    node: LabNode
    mirror: Mirror
    bundle: Path
    operator: Operator


@pytest.fixture(scope="module")
def gap(machine: None, mirror: Mirror, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gap]:
    home = tmp_path_factory.mktemp("gap")
    bundle = home / "bundle.tar"
    with Lab() as lab:
        wanted = [f"{name}={mirror.versions(name)[0]}" for name in ("containerd", "runc", "crun")]
        make: list[str | Path] = [sys.executable, "-m", "artifacts", "bundle", bundle, *wanted, "--arch", "amd64"]
        lab.run([*make, "--lock", mirror.lock, "--from", mirror.root], cwd=REPO)
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
    return gap


def test_the_node_is_provisioned_and_a_second_run_pushes_nothing(provisioned: Gap) -> None:
    again = must(provisioned.operator.deploy(provisioned.node))
    assert again.done(provisioned.node) == []
    assert "nothing to do" in again.said(provisioned.node)
    assert leftovers(provisioned.node) == []
