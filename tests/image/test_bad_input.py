"""What cannot be baked is refused by name, with what to do, and its tree is as it was."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from pyinfra.api.exceptions import ConnectError

from tasks import image_tree
from tests.image import trees
from tests.image.conftest import Copied
from tests.image.trees import Builder


@pytest.fixture(scope="module")
def root(copied: Copied) -> Path:
    """A tree that could be baked; a test changes it back."""
    return copied()


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("/nowhere/at/all", "/nowhere/at/all: there is no such directory"),
        ("/etc/passwd", "/etc/passwd is no directory"),
        ("/", "/ is this machine's own root: deploy to it with inventories/local.py"),
        ("/usr", "/usr is no root file system: it has no directory /"),
        ("usr", "write the absolute path"),
    ],
)
def test_what_is_no_image_is_refused_before_anything_runs(builder: Builder, path: str, says: str) -> None:
    run = builder.run(path, "-y")
    assert run.code == 1
    assert says in run.text


def test_only_root_bakes(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(ConnectError, match="baked by root, and this is user 1000: run pyinfra as root"):
        image_tree.refuse_unfit(str(root), str(root))


@pytest.mark.parametrize(("option", "says"), [("noexec", "mounted noexec"), ("ro", "mounted read-only")])
def test_a_tree_on_an_unfit_mount_is_refused(builder: Builder, root: Path, option: str, says: str) -> None:
    remounted = f'mount --bind "$1" "$1" && mount -o remount,bind,{option} "$1" && shift && exec "$@"'
    before = trees.look(root)
    run = builder.run(root, "-y", before=("unshare", "--mount", "sh", "-c", remounted, "sh", str(root)))
    assert run.code == 1
    assert says in run.text
    assert trees.look(root) == before


@pytest.mark.parametrize("epoch", ["banana", "1e9", "99999999999", "-5", "1" * 30, "\uff11"])
def test_a_time_that_is_none_is_refused_before_anything_is_written(builder: Builder, root: Path, epoch: str) -> None:
    before = trees.look(root)
    run = builder.run(root, "-y", environment={"SOURCE_DATE_EPOCH": epoch})
    assert run.code == 1
    assert f"SOURCE_DATE_EPOCH is {epoch!r}, expected the seconds since 1970 of a time that has passed" in run.text
    assert trees.look(root) == before


def test_nodev_is_no_obstacle_for_its_devices_are_not_used(builder: Builder, root: Path) -> None:
    remounted = 'mount --bind "$1" "$1" && mount -o remount,bind,nodev "$1" && shift && exec "$@"'
    run = builder.run(root, "--dry", before=("unshare", "--mount", "sh", "-c", remounted, "sh", str(root)))
    assert run.code == 0, run.text


def test_what_its_builder_has_mounted_in_its_proc_and_tmp_is_no_obstacle(builder: Builder, root: Path) -> None:
    """As mkosi has: on a directory and on a mount of the tree itself, one over the other."""
    more = 'mount -t proc none "$1/proc" && mount -t tmpfs none "$1/tmp"'
    mounted = f'{more} && mount --bind "$1" "$1" && {more} && {more} && shift && exec "$@"'
    run = builder.run(root, "--dry", before=("unshare", "--mount", "sh", "-c", mounted, "sh", str(root)))
    assert run.code == 0, run.text


def test_a_directory_of_this_machine_that_is_mounted_there_is_refused(builder: Builder, root: Path) -> None:
    (root / "etc/containerd").mkdir()
    mounted = 'mount --bind /opt "$1/etc/containerd" && shift && exec "$@"'
    run = builder.run(root, "-y", before=("unshare", "--mount", "sh", "-c", mounted, "sh", str(root)))
    (root / "etc/containerd").rmdir()
    assert run.code == 1
    assert "/etc/containerd is mounted from " in run.text


@pytest.fixture
def foreign(root: Path) -> Iterator[Path]:
    """The same, for another machine, as far as anybody can see before something of it runs."""
    shell = root / "usr/bin/dash"
    kept = root / "usr/bin/dash.kept"
    shell.rename(kept)
    content = bytearray(kept.read_bytes())
    content[18:20] = (243).to_bytes(2, "little")  # riscv64
    shell.write_bytes(content)
    shell.chmod(0o755)
    yield root
    kept.replace(shell)


def test_an_image_for_another_machine_is_named(builder: Builder, foreign: Path) -> None:
    before = trees.look(foreign)
    run = builder.run(foreign, "-y")
    assert run.code == 1
    assert "the image is for riscv64" in run.text
    assert "qemu-user-static" in run.text
    assert trees.look(foreign) == before


def test_an_image_without_a_kernel_is_refused_unless_one_is_named(builder: Builder, root: Path) -> None:
    modules = root / "usr/lib/modules"
    modules.rename(root / "usr/lib/modules.kept")
    before = trees.look(root)
    refused = builder.run(root, "-y")
    same = trees.look(root) == before
    named = builder.run(root, "--dry", target_kernel="6.12")
    (root / "usr/lib/modules.kept").rename(modules)
    assert (refused.code, same, named.code) == (1, True, 0)
    assert "image-has-no-kernel" in refused.text
    assert 'target_kernel = "6.12"' in refused.text
    assert "warning image-lacks-target-kernel" in named.text


def test_an_image_is_not_proven_and_nobody_is_told_that_it_was(builder: Builder, root: Path) -> None:
    """No container runs in it: that it ended with 0 was taken for a proof."""
    run = builder.run(root, "-y", deploy=("tasks.verify.user_namespace",))
    assert run.code == 1
    assert "an image is proven when it has booted: run this on a machine that was started from it" in run.text


def test_of_several_kernels_the_newest_is_taken_and_told(builder: Builder, root: Path) -> None:
    older = root / "usr/lib/modules/6.1.0-50-amd64"
    older.mkdir()
    (older / "modules.dep").touch()
    run = builder.run(root, "--dry")
    shutil.rmtree(older)
    assert run.code == 0
    assert "warning image-several-kernels" in run.text
    assert "6.1.0-50-amd64" in run.text


def test_an_image_in_use_is_refused(builder: Builder, root: Path) -> None:
    inside = subprocess.Popen(["chroot", str(root), "sleep", "300"])
    try:
        run = builder.run(root, "-y")
    finally:
        inside.send_signal(signal.SIGKILL)
        inside.wait()
    assert run.code == 1
    assert f"is in use: process {inside.pid} (sleep)" in run.text


def test_two_runs_do_not_bake_one_image_at_once(root: Path) -> None:
    held = image_tree.take(str(root), "it")
    with pytest.raises(ConnectError, match="it is in use: another run bakes it"):
        image_tree.take(str(root), "it")
    os.close(held)
    os.close(image_tree.take(str(root), "it"))


def test_packages_are_not_for_images_yet(builder: Builder, root: Path) -> None:
    before = trees.look(root)
    run = builder.run(root, "-y", install_from="package", containerd_version="2.3.4", runc_version="1.4.3")
    assert run.code == 1
    assert "blocker image-without-packages" in run.text
    assert trees.look(root) == before
