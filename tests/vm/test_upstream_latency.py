"""How much later a container starts in a user namespace: by chown, the later the more files; idmapped, not at all.

In the guest's own seconds, which count its instructions: a busy machine does not lengthen them.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from lab import LabVM
from tests.node.runs import image
from tests.vm.daemons import Beside, Daemon, metacopy

NAME = "lab.invalid/many:1"
FILES = {f"srv/{number:04}": b"x" * 4096 for number in range(2000)}


def seconds(containerd: Daemon, name: str, first: int = 0) -> float:
    """How long a container takes from the command to its end; in a user namespace where there is a first ID for it."""
    ids = f"--remap-labels --uidmap 0:{first}:65536 --gidmap 0:{first}:65536" if first else ""
    flags = f"--rm --runc-binary {containerd.runtimes.program('runc')} --cgroup {containerd.cgroup}/{name} {ids}"
    began, ended = containerd.sh(f"""
        sync; read -r began rest </proc/uptime
        ctr run {flags} {NAME} {name} /bin/sh -c :
        read -r ended rest </proc/uptime; echo $began $ended""").stdout.split()
    return float(ended) - float(began)


@contextmanager
def loaded(beside: Beside, machine: LabVM, suite: str) -> Iterator[Daemon]:
    """A containerd with the image with many files there, and its layer unpacked."""
    with beside.daemon(machine, suite) as containerd:
        machine.put("/root/many.tar.gz", gzip.compress(image(machine, NAME, more=FILES)))
        containerd.sh("gunzip /root/many.tar.gz && ctr images import /root/many.tar >/dev/null && rm /root/many.tar")
        seconds(containerd, "warm")
        yield containerd


@pytest.fixture(scope="module")
def chowning(vms: dict[str, LabVM], beside: Beside) -> Iterator[Daemon]:
    """containerd 1.7."""
    with loaded(beside, vms["5.10"], "trixie") as containerd:
        yield containerd


@pytest.fixture(scope="module")
def idmapping(vms: dict[str, LabVM], beside: Beside) -> Iterator[Daemon]:
    """containerd 2.x."""
    with loaded(beside, vms["6.12"], "testing") as containerd:
        yield containerd


def test_by_chown_a_container_starts_later_and_with_metacopy_less_so(vms: dict[str, LabVM], chowning: Daemon) -> None:
    plain = seconds(chowning, "plain")
    with metacopy(vms["5.10"], "N"):
        copied = seconds(chowning, "copied", 2 * 65536)
    with metacopy(vms["5.10"], "Y"):
        inodes = seconds(chowning, "inodes", 3 * 65536)
    print(f"{plain=:.2f} {copied=:.2f} {inodes=:.2f}")
    assert copied > 2 * plain
    assert plain < inodes < copied


def test_idmapped_it_does_not_start_later(idmapping: Daemon) -> None:
    # The best of three: the guest's clock goes on while it waits for a disk that others are busy with.
    plain = min(seconds(idmapping, f"plain{turn}") for turn in range(3))
    mapped = min(seconds(idmapping, f"mapped{turn}", 2 * 65536) for turn in range(3))
    print(f"{plain=:.2f} {mapped=:.2f}")
    assert mapped < 1.5 * plain
