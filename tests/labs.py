"""The lab of a test session, for real nodes and for virtual machines, and what is served to them."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import Lab, LabError, cgroups, debs, host, processes
from lab import mirror as mirrors
from lab.serving import Served
from lab.vm import TUN
from tests.conftest import unavailable


@pytest.fixture(scope="session")
def machine() -> None:
    """This machine can have nodes at all."""
    if Path("/proc/self/uid_map").read_text().split() != ["0", "0", "4294967295"]:
        unavailable("nodes need the machine's own root, and this is a user namespace")
    try:
        for program in ("mmdebstrap", "systemd-nspawn", "ip", "ssh", "nsenter", "setpriv", "unshare"):
            processes.tool(program)
        cgroups.root()
        with Lab():
            pass
    except LabError as error:
        unavailable(str(error))


@pytest.fixture(scope="session")
def lab(machine: None) -> Iterator[Lab]:
    """A lab for the whole session. At its end the machine has to be as it was before."""
    before = host.fingerprint()
    with Lab() as lab:
        yield lab
    after = host.fingerprint()
    assert host.differences(before, after) == []
    for line in host.meanwhile(before, after):
        warnings.warn(f"also changed meanwhile, and not by a lab: {line}", stacklevel=1)


def lacking() -> str:
    """What this machine lacks for virtual machines, and how to get it; "" where it has all."""
    try:
        for program in ("qemu-system-x86_64", "qemu-img", "mkfs.ext4"):
            processes.tool(program)
    except LabError as error:
        return str(error)
    return "" if TUN.exists() else f"virtual machines need {TUN}, which this machine does not have"


@pytest.fixture(scope="session")
def vm_lab(lab: Lab) -> Lab:
    """The session's lab, on a machine that can have virtual machines too."""
    if reason := lacking():
        unavailable(reason)
    return lab


@pytest.fixture(scope="session")
def mirror() -> mirrors.Mirror:
    """The release assets of Debian testing, where upstream would have them."""
    return mirrors.build("testing")


@pytest.fixture(scope="session")
def mirror_with_stable() -> mirrors.Mirror:
    """The same, with Debian trixie's containerd 1.7 and runc 1.1 beside them."""
    return mirrors.build("testing", "trixie")


@pytest.fixture(scope="session")
def mirror_with_newest() -> mirrors.Mirror:
    """The same as `mirror`, with the newest runc that Debian has anywhere beside it."""
    return mirrors.build("testing", debs.NEWEST)


@pytest.fixture(scope="session")
def _releases(lab: Lab, mirror: mirrors.Mirror) -> Served:
    return lab.serve(mirror)


@pytest.fixture
def releases(_releases: Served) -> Iterator[Served]:
    """The mirror, served to the nodes: without faults and with an empty log at the start of each test."""
    _releases.forget()
    yield _releases
    _releases.behave()
