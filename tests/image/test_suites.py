"""Trees of Debian's releases, each with its own kernel, and one whose kernel has overlay built in."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from lab import kernels, tree
from tests.image import trees, written
from tests.image.conftest import Copied
from tests.image.trees import Bake, Builder

ALLOW = ["kernel-lacks-tmpfs-idmap"]


@dataclass(frozen=True)
class Release:
    """A release's kernel, and the tier that it gives."""

    kernel: str
    tier: str


RELEASES = {"bookworm": Release("6.1", "rootfs-only"), "trixie": Release("6.12", "idmapped")}


@dataclass(frozen=True)
class Baked:
    """A small tree of one release, baked, and baked again."""

    suite: str
    root: Path
    before: dict[str, str]
    bake: Bake
    again: Bake


@pytest.fixture(scope="module", params=RELEASES)
def baked(builder: Builder, home: Path, request: pytest.FixtureRequest) -> Iterator[Baked]:
    """With the one blocker of 6.1 allowed; without a range for the kubelet, which asks for a package more."""
    suite: str = request.param
    root = tree.small(home / suite, suite, RELEASES[suite].kernel)
    before = trees.look(root)
    bake = builder.bake(root, allow=ALLOW)
    again = builder.bake(root, allow=ALLOW)
    yield Baked(suite, root, before, bake, again)
    trees.remove(root)


def test_the_release_gets_what_a_node_gets_and_nothing_else(baked: Baked) -> None:
    assert written.by(baked.before, baked.root) == written.PLAIN
    assert written.enabled(baked.root) == set(written.UNITS)
    assert (baked.again.operations, "nothing to do" in baked.again.text) == ([], True)


def test_the_releases_own_kernel_gives_the_tier(baked: Baked) -> None:
    release, told = RELEASES[baked.suite], written.record(baked.root)
    assert told["kernel"]["release"] == kernels.fetched(release.kernel).release
    assert told["kernel"]["release"].startswith(f"{release.kernel}.")
    assert (told["os"]["id"], told["readiness"]["tier"], told["kernel"]["overlay"]) == (
        "debian",
        release.tier,
        "module",
    )
    lacks = [each["id"] for each in told["findings"] if each["id"] in ALLOW]
    assert lacks == (ALLOW if release.tier == "rootfs-only" else [])


def test_a_kernel_with_overlay_built_in_is_baked_as_such(builder: Builder, copied: Copied) -> None:
    root = copied()
    (modules,) = (root / "usr/lib/modules").iterdir()
    shutil.rmtree(modules / "kernel/fs/overlayfs")
    (config,) = (root / "boot").glob("config-*")
    text = config.read_text()
    config.unlink()  # the copy shares it with the other trees
    config.write_text(text.replace("CONFIG_OVERLAY_FS=m", "CONFIG_OVERLAY_FS=y"))
    before = trees.look(root)
    bake = builder.bake(root)
    assert written.by(before, root) == written.PLAIN
    assert written.record(root)["kernel"]["overlay"] == "builtin"
    assert "will restart" not in bake.text
    assert "nothing to do" in builder.bake(root).text
