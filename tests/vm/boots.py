"""Every kernel rebooted once, after something of what keeps the settings was taken away, and what is there then."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from lab import LabVM
from tests import boot
from tests.vm.rollout import METACOPY, NAMESPACES, Rollout

HOOK = "/usr/local/libexec/userns-node/pre-start"
DROP_IN = "/etc/systemd/system/containerd.service.d/50-userns-node.conf"
MODPROBE = "/etc/modprobe.d/overlay-metacopy.conf"

# What is taken away before the boot. Where modprobe.d is, a kernel with overlay built in is stood in for, which does
# not read it; where the hook is, whoever loads overlay before containerd does. On 6.1 what is left is overruled.
TAKEN_AWAY: Mapping[str, tuple[str, ...]] = {
    "5.10": (),
    "6.1": (HOOK, DROP_IN),
    "6.12": (HOOK, DROP_IN),
    "newest": (MODPROBE,),
}
# Somebody else's files, which come after ours by their names.
OVERRULES = {
    "/etc/modprobe.d/zz-theirs.conf": "options overlay metacopy=N",
    "/etc/sysctl.d/99-theirs.conf": "user.max_user_namespaces = 5000",
}
HOOK_SAYS = "journalctl --quiet --boot --unit containerd --output cat --grep ^userns-node:"


@dataclass(frozen=True)
class Booted:
    """A virtual machine after a boot: overlay's metacopy, user.max_user_namespaces, the service, the hook's words."""

    metacopy: str
    namespaces: str
    service: str
    hook: str


@dataclass(frozen=True)
class Told:
    """What the check said by itself after a boot: its answer, when multi-user.target and it began, its journal."""

    answer: Mapping[str, Any]
    times: tuple[int, int]
    journal: list[str]


@dataclass(frozen=True)
class Boots:
    """What each virtual machine was after its boot, and what the check had said by then. Nothing is mended yet."""

    booted: Mapping[str, Booted]
    told: Mapping[str, Told]


def run(rollout: Rollout) -> Boots:
    """All of them at the same time."""
    vms = rollout.vms
    for kernel, paths in TAKEN_AWAY.items():
        if paths:
            vms[kernel].ssh(f"rm {' '.join(paths)} && systemctl daemon-reload")
    for path, line in OVERRULES.items():
        vms["6.1"].put(path, f"{line}\n".encode())
    with ThreadPoolExecutor(len(vms)) as pool:
        list(pool.map(LabVM.reboot, vms.values()))
        booted = dict(zip(vms, pool.map(_look, vms.values()), strict=True))
        told = dict(zip(vms, pool.map(_listen, vms.values()), strict=True))
    return Boots(booted, told)


def _look(vm: LabVM) -> Booted:
    service = "systemctl is-enabled containerd; systemctl is-active containerd; systemctl is-system-running"
    said = vm.ssh(f"{METACOPY}; {NAMESPACES}; echo $({service}); {HOOK_SAYS}", check=False).stdout.splitlines()
    return Booted(said[0], said[1], said[2], "\n".join(said[3:]))


def _listen(vm: LabVM) -> Told:
    answer = boot.told(vm)
    return Told(answer, boot.times(vm), boot.journal(vm).splitlines())
