"""The examples of image builders, run as they are in examples/, with the lab's mirrors in the place of upstream's."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from lab import base, processes
from lab.paths import REPO
from tests.image import trees, written
from tests.image.trees import Builder
from userns import paths

# A tree without a kernel is made in a third of the time; it is then named.
KERNEL = "6.12"
SECONDS = 3000


@pytest.fixture
def environment(builder: Builder, home: Path) -> Mapping[str, str]:
    """What an operator would set for an inventory of his own: settings beside the images of IMAGE_ROOTS."""
    inventory = home / "inventory.py"
    data = {**builder.settings, "target_kernel": KERNEL}
    inventory.write_text(
        f'import os\n\nimages = [(f"@image/{{root}}", {data!r}) for root in os.environ["IMAGE_ROOTS"].split(":")]\n'
    )
    return {**os.environ, "INVENTORY": str(inventory), "PYINFRA": str(trees.PYINFRA), "TMPDIR": str(home)}


def run(*words: str | Path, environment: Mapping[str, str]) -> None:
    done = subprocess.run(
        [*processes.leashed(), *map(str, words)],
        cwd=REPO,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-5000:]}"


def is_baked(root: Path) -> None:
    lacking = [path for path in written.PLAIN if not os.path.lexists(root / path.lstrip("/"))]
    assert lacking == []
    assert written.enabled(root) == set(written.UNITS)
    told = written.record(root)
    assert (told["kernel"]["release"], told["readiness"]["tier"]) == (KERNEL, "idmapped")
    assert [path for path in ("run", "tmp", "proc", "sys") if any((root / path).glob("*userns-node*"))] == []
    assert (root / paths.CONFIG.lstrip("/")).read_text().startswith("#")


def test_mkosis_finalize_script_bakes_its_tree(environment: Mapping[str, str], home: Path) -> None:
    output = home / "mkosi"
    output.mkdir()
    run(
        *("mkosi", "--directory", "examples/mkosi", "--output-dir", output, "--workspace-dir", home),
        *("--local-mirror", base.mirror_url(), "build"),
        environment=environment,
    )
    is_baked(output / "image")
    assert (output / "image/usr/lib/os-release").read_text().count("debian") > 0
    trees.remove(output)


def test_a_script_around_mmdebstrap_bakes_its_tree(environment: Mapping[str, str], home: Path) -> None:
    root = home / "debootstrap"
    small = {"PACKAGES": "systemd,systemd-sysv,kmod"}
    build = "examples/debootstrap/build.sh"
    run(build, "trixie", root, base.mirror_url(), environment={**environment, **small})
    is_baked(root)
    again = subprocess.run([build, "trixie", str(root)], cwd=REPO, capture_output=True, text=True, check=False)
    assert (again.returncode, "is there already: remove it first" in again.stderr) == (1, True)
    assert (root / "usr").is_dir()
    trees.remove(root)
