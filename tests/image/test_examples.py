"""The examples for builders of images, run as they are, with the lab's mirror in the place of upstream's releases."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from secrets import token_hex

import pytest

from lab import base, processes, tree
from lab.paths import REPO
from tests.image import trees, written
from tests.image.trees import Builder
from userns import paths

# The trees have no kernel, which would be half of the time to make them: the one that they will boot is named.
KERNEL = "6.12"
SECONDS = 3000
INVENTORY = """import os

images = [(f"@image/{{root}}", {data!r}) for root in os.environ["IMAGE_ROOTS"].split(":")]
"""
# In the place of debootstrap and mmdebstrap, which need minutes for what the lab has: the tree of the same release.
_STAND_IN = """#!/bin/sh
[ $# -ge 3 ] || exit 0
echo "$*" >>'{log}'
while [ $# -gt 3 ]; do shift; done
mkdir -p "$2" && exec {unpack} '{tar}' --directory "$2"
"""


@dataclass(frozen=True)
class Operator:
    """Who runs an example: what is set for it, and with what words trees were asked for."""

    environment: Mapping[str, str]
    log: Path

    def run(self, *words: str | Path) -> None:
        """Run a program in the project's root, which has to succeed."""
        done = subprocess.run(
            [*processes.leashed(), *map(str, words)],
            cwd=REPO,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-5000:]}"


@pytest.fixture
def operator(builder: Builder, home: Path, tmp_path: Path) -> Operator:
    """With an inventory of his own: settings beside the images of IMAGE_ROOTS."""
    inventory = tmp_path / "inventory.py"
    data = {**builder.settings, "target_kernel": KERNEL}
    inventory.write_text(INVENTORY.format(data=data))
    log, text = tmp_path / "log", _STAND_IN
    for name in ("debootstrap", "mmdebstrap"):
        stand_in = tmp_path / "bin" / name
        stand_in.parent.mkdir(exist_ok=True)
        stand_in.write_text(text.format(log=log, unpack=" ".join(base.UNPACK), tar=tree.small_tar("trixie")))
        stand_in.chmod(0o755)
    path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
    own = {"PATH": path, "INVENTORY": str(inventory), "PYINFRA": str(trees.PYINFRA), "TMPDIR": str(home)}
    return Operator({**os.environ, **own}, log)


def is_baked(root: Path) -> None:
    lacking = [path for path in written.PLAIN if not os.path.lexists(root / path.lstrip("/"))]
    assert lacking == []
    assert written.enabled(root) == set(written.UNITS)
    told = written.record(root)
    assert (told["kernel"]["release"], told["readiness"]["tier"]) == (KERNEL, "idmapped")
    assert [path for path in ("run", "tmp", "proc", "sys") if any((root / path).glob("*userns-node*"))] == []
    assert (root / paths.CONFIG.lstrip("/")).read_text().startswith("#")


def test_mkosis_finalize_script_bakes_its_tree(
    operator: Operator, builder: Builder, home: Path, tmp_path: Path
) -> None:
    output = home / "mkosi"
    output.mkdir()
    said = subprocess.run([processes.tool("mkosi"), "--version"], stdout=subprocess.PIPE, text=True, check=True).stdout
    if int(said.split()[1].partition(".")[0]) < 15:
        by_debootstrap(operator, home, output)
    else:
        by_apt(operator, builder, output, tmp_path)
    (image,) = [place for place in (output / "image", *output.glob("*/image")) if place.is_dir()]
    is_baked(image)
    trees.remove(output)


def by_debootstrap(operator: Operator, home: Path, output: Path) -> None:
    """Debian 12's mkosi, 14: into a directory for the distribution."""
    # apt refuses a mirror that is named twice: by debootstrap, and by mkosi as the only one that it builds from.
    skeleton = home / "skeleton"
    (skeleton / "etc/apt").mkdir(parents=True)
    (skeleton / "etc/apt/sources.list").touch()
    operator.run(
        *("mkosi", "--directory", "examples/mkosi", "--output-dir", output, "--workspace-dir", home),
        *("--base-packages", "no", "--local-mirror", base.mirror_url(), "--skeleton-tree", skeleton, "build"),
    )
    assert operator.log.read_text().startswith("--variant=minbase ")


def by_apt(operator: Operator, builder: Builder, output: Path, tmp_path: Path) -> None:
    """Debian 13's mkosi, 25: it bakes in a sandbox, which has of this machine's files only those of the checkout."""
    sources = (
        tmp_path / "sandbox/etc/apt/sources.list.d/mkosi.sources"
    )  # its own name two sites, and one of debug symbols
    sources.parent.mkdir(parents=True)
    signed_by = "Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg"
    sources.write_text(f"Types: deb\nURIs: {base.mirror_url()}\nSuites: trixie\nComponents: main\n{signed_by}\n")
    inside = Path("build") / f"mkosi-{token_hex(4)}"
    (REPO / inside).mkdir(parents=True)
    try:
        (REPO / inside / "lock.toml").write_bytes(Path(str(builder.settings["artifact_lock"])).read_bytes())
        data = {**builder.settings, "target_kernel": KERNEL, "artifact_lock": f"{inside}/lock.toml"}
        (REPO / inside / "inventory.py").write_text(INVENTORY.format(data=data))
        operator.run(
            *("mkosi", "--directory", "examples/mkosi", "--output-directory", output),
            *("--workspace-directory", tmp_path, "--sandbox-tree", tmp_path / "sandbox"),
            *("--environment", f"INVENTORY={inside}/inventory.py", "--environment", "PYINFRA=", "build"),
        )
    finally:
        trees.remove(REPO / inside)


def test_a_script_around_mmdebstrap_bakes_its_tree(operator: Operator, home: Path) -> None:
    root, mirror = home / "debootstrap", base.mirror_url()
    operator.run("examples/debootstrap/build.sh", "trixie", root, mirror)
    words = operator.log.read_text().split()
    assert (words[0], words[2:]) == ("--variant=minbase", ["trixie", str(root), mirror])
    assert "linux-image-cloud-amd64" in words[1].removeprefix("--include=").split(",")
    is_baked(root)
    before = trees.look(root)
    with pytest.raises(AssertionError, match="is there already: remove it first"):
        operator.run("examples/debootstrap/build.sh", "trixie", root, mirror)
    assert trees.look(root) == before
    trees.remove(root)


def test_without_pyinfra_no_tree_is_made(operator: Operator, home: Path) -> None:
    root = home / "no-pyinfra"
    without = replace(operator, environment={**operator.environment, "PYINFRA": "nowhere/pyinfra"})
    with pytest.raises(AssertionError, match="nowhere/pyinfra is not there"):
        without.run("examples/debootstrap/build.sh", "trixie", root, base.mirror_url())
    assert not operator.log.exists()


def test_a_tree_that_cannot_be_baked_is_removed(operator: Operator, home: Path) -> None:
    root = home / "not-baked"
    badly = replace(operator, environment={**operator.environment, "INVENTORY": "/nowhere.py"})
    with pytest.raises(AssertionError):
        badly.run("examples/debootstrap/build.sh", "trixie", root, base.mirror_url())
    assert operator.log.exists()  # the tree was made
    assert not root.exists()
