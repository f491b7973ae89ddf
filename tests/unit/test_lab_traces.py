"""What labs leave is told from what others do meanwhile, and the modules that were loaded for labs go with the last."""

from __future__ import annotations

import os
import re
import shutil
from inspect import getsource
from pathlib import Path

import pytest

from lab import demo, holder, host, network, traces
from lab.paths import BUILD


class Kernel:
    """Modules that are loaded, and links of them in its one network namespace; rmmod and nsenter are played."""

    def __init__(self, programs: Path) -> None:
        self.home = programs
        self.loaded: set[str] = set()
        programs.mkdir()
        (programs / "rmmod").write_text('#!/bin/sh\necho "$1" >>"${0%/*}/unloaded"\n')
        # nsenter --net=NAMESPACE -- ip -o link show type KIND
        (programs / "nsenter").write_text('#!/bin/sh\nshift 7\n[ ! -e "${0%/*}/link-$1" ] || echo "1: $1"\n')
        for program in programs.iterdir():
            program.chmod(0o755)

    def tool(self, name: str) -> str:
        return str(self.home / name)

    def end(self, lab: str, lock: int) -> None:
        """What a lab's keeper does at its end."""
        os.close(lock)
        shutil.rmtree(self.home.parent / "labs" / lab)
        with traces.turn():
            traces.unload()

    @property
    def unloaded(self) -> list[str]:
        noted = self.home / "unloaded"
        return noted.read_text().split() if noted.exists() else []


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kernel:
    kernel = Kernel(tmp_path / "programs")
    monkeypatch.setattr(traces, "tool", kernel.tool)
    monkeypatch.setattr(traces, "modules", lambda: set(kernel.loaded))
    monkeypatch.setattr(traces, "LABS", tmp_path / "labs")
    monkeypatch.setattr(traces, "STARTED", [])
    return kernel


def test_every_module_that_a_labs_network_loads_is_unloaded(kernel: Kernel) -> None:
    scripts = network.plug_in("node", 1) + network.plug_in_tap("port2")
    loads = set(re.findall(r"\btype (\w+)", scripts)) | set(re.findall(r'"type", "(\w+)"', getsource(holder)))
    loads |= {"tun"} if "ip tuntap" in scripts else set()
    assert loads == {"veth", "bridge", "tun"}
    kernel.loaded = {*loads, "ext4"}
    traces.unload_new({"ext4"})
    assert set(kernel.unloaded) == loads


def test_a_module_that_others_have_links_of_stays(kernel: Kernel) -> None:
    """rmmod would take those along."""
    kernel.loaded = {"veth", "bridge"}
    (kernel.home / "link-veth").touch()
    traces.unload_new(set())
    assert kernel.unloaded == ["bridge"]


def test_the_last_lab_unloads_what_was_loaded_for_any(kernel: Kernel) -> None:
    kernel.loaded = {"ext4", "tun"}
    first = traces.claim("first")
    kernel.loaded |= {"bridge"}
    second = traces.claim("second")
    kernel.loaded |= {"veth"}
    kernel.end("first", first)
    assert kernel.unloaded == []
    kernel.end("second", second)
    assert kernel.unloaded == ["veth", "bridge"]


def test_while_a_lab_is_alive_its_modules_are_nobodys_trace(kernel: Kernel) -> None:
    before = host.fingerprint()
    lock = traces.claim("another-processes")
    traces.STARTED.clear()

    def changed() -> list[str]:
        return [line for line in host.differences(before, host.fingerprint()) if line.startswith("module ")]

    kernel.loaded = {"bridge"}
    assert changed() == []
    os.close(lock)
    assert changed() == ["module bridge: (absent) -> loaded"]


MOUNT = "rw,relatime tmpfs tmpfs rw"


@pytest.mark.parametrize(
    ("name", "was", "now"),
    [
        ("sysctl vm.swappiness", "60", "10"),
        ("overlay metacopy", "N", "Y"),
        ("module tun", None, "loaded"),
        (f"mount {BUILD}/nodes/n/mnt", None, MOUNT),
        ("mount /mnt", None, "rw - tmpfs lab-0badcafe rw"),
        ("mount /proc", "rw proc proc rw", "rw proc proc rw rw proc proc rw"),
        ("interface lab0", None, "present"),
        ("interface port11", None, "present"),
        ("network namespace node1", None, "named"),
        ("lab 0badcafe", None, "process 1: sh"),
    ],
)
def test_what_a_lab_may_have_done_counts(
    monkeypatch: pytest.MonkeyPatch, name: str, was: str | None, now: str | None
) -> None:
    monkeypatch.setattr(traces, "STARTED", ["0badcafe"])
    before, after = ({name: value} if value else {} for value in (was, now))
    assert [line.partition(": ")[0] for line in host.differences(before, after)] == [name]
    assert host.meanwhile(before, after) == []


@pytest.mark.parametrize(
    ("name", "was", "now"),
    [
        ("mount /run/user/1000", None, MOUNT),  # somebody logged in, and out
        ("mount /run/user/1000", MOUNT, None),
        ("cgroup /sys/fs/cgroup", "memory pids", "cpu memory pids"),
        ("interface veth1a2b3c", None, "present"),  # a container of somebody's
        ("mount /var/lib/docker/overlay2/x/merged", None, "rw overlay overlay rw"),
        ("module bridge", "loaded", None),  # another lab's end
        ("module usb_storage", None, "loaded"),
    ],
)
def test_what_others_did_meanwhile_is_told_apart(name: str, was: str | None, now: str | None) -> None:
    before, after = ({name: value} if value else {} for value in (was, now))
    assert host.differences(before, after) == []
    assert [line.partition(": ")[0] for line in host.meanwhile(before, after)] == [name]


def test_the_demo_tells_what_others_did_and_does_not_fail_for_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(host, "fingerprint", lambda: {"mount /run/user/1000": MOUNT})
    assert demo.as_it_was({})
    told = capsys.readouterr()
    assert f"and not by the demo:\n  mount /run/user/1000: (absent) -> {MOUNT}\n" in told.out
    monkeypatch.setattr(host, "fingerprint", lambda: {"interface lab0": "present"})
    assert not demo.as_it_was({})
    assert "this machine is not as it was before (a bug):\n  interface lab0" in capsys.readouterr().err
