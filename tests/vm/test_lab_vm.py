"""The lab's virtual machines: real ones, and gone without a trace when their lab is."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from lab import Lab, LabError, LabVM, traces, vm
from lab.kernels import KERNELS
from lab.paths import REPO
from lab.serving import Served

OWNER = """
import time
from lab import Lab
with Lab() as lab:
    lab.vm("victim", wait=False)
    print(lab.id, flush=True)
    time.sleep(3600)
"""

# An owner that adopts orphans and never collects them, as the first process of a machine may be slow to.
ADOPTER = """
import ctypes, os, time
from lab import Lab, cgroups
PR_SET_CHILD_SUBREAPER = 36
assert ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0
with Lab() as lab:
    machine = lab.vm("victim", wait=False)
    pages = 0
    while pages < 20000:  # an emulator that has no memory yet is gone in no time
        time.sleep(0.1)
        running = cgroups.processes(machine.cgroup)
        pages = sum(int(open(f"/proc/{pid}/statm").read().split()[1]) for pid in running)
    begun = time.monotonic()
    machine.cut_power()
    print(time.monotonic() - begun, *[pid for pid in running if os.path.exists(f"/proc/{pid}")])
"""


def test_a_killed_owner_leaves_no_virtual_machine(vm_lab: Lab) -> None:
    owner = subprocess.Popen([sys.executable, "-c", OWNER], cwd=REPO, stdout=subprocess.PIPE, text=True)
    assert owner.stdout
    lab = owner.stdout.readline().strip()
    emulators = [each for each in traces.left_by(lab) if "qemu-system" in each]
    owner.kill()
    owner.wait()
    end = time.monotonic() + 300
    while (left := traces.left_by(lab)) and time.monotonic() < end:
        time.sleep(0.1)
    assert emulators
    assert left == []


def test_a_power_cut_leaves_no_orphan_for_somebody_else_to_collect(vm_lab: Lab) -> None:
    owner = subprocess.run(
        [sys.executable, "-c", ADOPTER], cwd=REPO, stdout=subprocess.PIPE, text=True, timeout=300, check=True
    )
    seconds, *left = owner.stdout.split()
    assert left == []
    assert float(seconds) < 60, "it waited for somebody else"


def test_a_kernel_that_the_lab_does_not_have_is_named_with_those_that_it_has(vm_lab: Lab) -> None:
    with pytest.raises(LabError, match=r"no kernel 2\.6, only 5\.10, 6\.1, 6\.12, newest"):
        vm_lab.vm("ancient", kernel="2.6")
    assert "ancient" not in vm_lab.nodes


def test_without_tun_the_lab_says_so_in_one_line(vm_lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vm, "TUN", Path("/nowhere/tun"))
    with pytest.raises(LabError, match=r"^this machine has no /nowhere/tun, which .* network$"):
        vm_lab.vm("unplugged")
    assert "unplugged" not in vm_lab.nodes


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_virtual_machine_begins_bare_and_well(untouched: dict[str, str], kernel: str) -> None:
    assert untouched[kernel] == ""


def test_a_virtual_machine_is_reached_and_reaches_the_lab(vms: dict[str, LabVM], releases: Served) -> None:
    """That it keeps its disk when its power is cut is seen in test_reboot: a boot is what takes time here."""
    machine = vms["6.12"]
    assert machine.ssh("uname -r").stdout == f"{machine.release}\n"
    content = bytes(range(256)) * 1000
    path = "/lock.toml"
    try:
        machine.put("/root/new/file", content, 0o600)
        assert machine.get("/root/new/file") == content
        assert machine.ssh("stat -c %a /root/new/file; ls -A /root/new").stdout == "600\nfile\n"

        machine.ssh(f"curl --silent --fail --output /root/asset {releases.url}{path}")
        assert machine.get("/root/asset") == (releases.root / path.lstrip("/")).read_bytes()
    finally:
        machine.ssh("rm -rf /root/new /root/asset")
    assert [request.client for request in releases.requests(path)] == [machine.address]
