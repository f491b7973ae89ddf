"""Where overlay is loaded from an initramfs, that has its own copy of modprobe.d, which the change-over renews.

With Debian's own initramfs-tools, on a node that is a container: it has a kernel's modules and initramfs like any
other, though it never boots from them.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from lab import Lab, LabNode, debs, kernels
from lab.mirror import Mirror
from lab.serving import Served
from tests.node.runs import Operator, Run, must

MODPROBE = "/etc/modprobe.d/overlay-metacopy.conf"
IMAGE = "/boot/initrd.img-$(uname -r)"
LIST = f"lsinitramfs {IMAGE}"
STAT = f"stat -c '%i %Y' {IMAGE}"
# The smallest image: what is listed, and nothing for a disk, which a container does not have.
SET_UP = """
    set -e
    mkdir -p /usr/lib/modules /etc/initramfs-tools/conf.d
    echo MODULES=list >/etc/initramfs-tools/conf.d/lab
    dpkg --install /root/debs/*.deb
    mv /root/modules "/usr/lib/modules/$(uname -r)"
    depmod -a
    echo overlay >>/etc/initramfs-tools/modules
    update-initramfs -c -k "$(uname -r)"
"""


@dataclass(frozen=True)
class Rebuilt:
    """A node whose initramfs has overlay: what is in it before and after a deploy, and what that said."""

    operator: Operator
    node: LabNode
    before: str
    run: Run
    after: str


@pytest.fixture(scope="module")
def rebuilt(lab: Lab, mirror: Mirror, _releases: Served, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rebuilt]:
    home = tmp_path_factory.mktemp("initramfs")
    operator = Operator(lab, home, release_url=_releases.url, artifact_lock=str(mirror.lock))
    node = lab.node("early")
    modules = kernels.fetched("6.12").modules
    subprocess.run(["cp", "-r", debs.for_a_node("initramfs-tools"), node.root / "root/debs"], check=True)
    subprocess.run(["cp", "-r", modules, node.root / "root/modules"], check=True)
    node.ssh(SET_UP)
    before = node.ssh(LIST).stdout
    run = must(operator.deploy(node))
    yield Rebuilt(operator, node, before, run, node.ssh(LIST).stdout)
    node.stop()


def test_the_image_has_overlay_and_gets_its_option_with_the_node(rebuilt: Rebuilt) -> None:
    assert "/overlay.ko" in rebuilt.before
    assert MODPROBE not in f"/{rebuilt.before}".replace("\n", "\n/").split("\n")
    assert MODPROBE in f"/{rebuilt.after}".replace("\n", "\n/").split("\n")


def test_an_image_that_no_overlay_is_loaded_from_is_left_alone(rebuilt: Rebuilt) -> None:
    node = rebuilt.node
    node.ssh(f"sed -i /^overlay/d /etc/initramfs-tools/modules && update-initramfs -u && rm {MODPROBE}")
    before = node.ssh(STAT).stdout
    run = must(rebuilt.operator.deploy(node))
    assert any(line.startswith(f"write {MODPROBE}") for line in run.will(node))
    assert node.ssh(STAT).stdout == before
