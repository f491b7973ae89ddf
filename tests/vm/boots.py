"""Every kernel booted once more, after something of what keeps the settings was taken away, and what is there then.

All in the regular way but 5.10, whose power is cut in the middle of a change: an emulated boot takes so long that the
one which undoes the change is also the one after which the settings are looked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from lab import LabVM
from tests import boot
from tests.node.faults import MARK, RECOVERY, Deploying, held
from tests.node.runs import leftovers
from tests.vm.rollout import METACOPY, NAMESPACES, Rollout

HOOK = "/usr/local/libexec/userns-node/pre-start"
DROP_IN = "/etc/systemd/system/containerd.service.d/50-userns-node.conf"
MODPROBE = "/etc/modprobe.d/overlay-metacopy.conf"

CUT = "5.10"
OTHER_PAUSE = "lab.invalid/pause:2"
CONFIG = "/etc/containerd/config.toml"
SET = f"sha256sum {CONFIG} /usr/local/bin/containerd; stat -c %i /usr/local/bin/containerd"
BOOT, IDENTITY = "cat /proc/sys/kernel/random/boot_id", "cat /etc/machine-id /etc/ssh/ssh_host_*.pub"

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
class Cut:
    """The power cut: the set, the boot and who the machine is, before and after it; `half` is what was cut.

    `left` is what is left over of the change after the boot, and `service` whether containerd runs.
    """

    before: tuple[str, str, str]
    half: str
    after: tuple[str, str, str]
    left: list[str]
    service: str


@dataclass(frozen=True)
class Boots:
    """What each virtual machine was after its boot, and what the check had said by then. Nothing is mended yet."""

    booted: Mapping[str, Booted]
    told: Mapping[str, Told]
    cut: Cut


def run(rollout: Rollout) -> Boots:
    """All of them at the same time."""
    vms = rollout.vms
    for kernel, paths in TAKEN_AWAY.items():
        if paths:
            vms[kernel].ssh(f"rm {' '.join(paths)} && systemctl daemon-reload")
    for path, line in OVERRULES.items():
        vms["6.1"].put(path, f"{line}\n".encode())
    with ThreadPoolExecutor(len(vms)) as pool:
        cutting = pool.submit(_cut, rollout)
        list(pool.map(LabVM.reboot, (vm for kernel, vm in vms.items() if kernel != CUT)))
        cut = cutting.result()
        booted = dict(zip(vms, pool.map(_look, vms.values()), strict=True))
        told = dict(zip(vms, pool.map(_listen, vms.values()), strict=True))
    return Boots(booted, told, cut)


def _cut(rollout: Rollout) -> Cut:
    """Cut the power when all is swapped and the old containerd still runs, and boot."""
    vm = rollout.vms[CUT]

    def state() -> tuple[str, str, str]:
        return vm.ssh(SET).stdout, vm.ssh(BOOT).stdout, vm.ssh(IDENTITY).stdout

    before = state()
    with held(vm, "systemctl", "restart containerd"):
        settings = {"allow": rollout.allowed(CUT), "sandbox_image": OTHER_PAUSE}
        deploying = Deploying(vm.lab, rollout.operator, vm, settings)
        # On the machine itself: a command over SSH each time is as much work for it as the change that it waits for.
        vm.ssh("until [ -e /run/held-systemctl ]; do sleep 0.5; done", timeout=vm.patience)
        half = vm.ssh(f"test -e {MARK} && test -e {RECOVERY} && cat {CONFIG}").stdout
        vm.cut_power()
        deploying.kill()
        vm.start()
        vm.wait()
    return Cut(before, half, state(), leftovers(vm), vm.ssh("systemctl is-active containerd").stdout)


def _look(vm: LabVM) -> Booted:
    service = "systemctl is-enabled containerd; systemctl is-active containerd; systemctl is-system-running"
    said = vm.ssh(f"{METACOPY}; {NAMESPACES}; echo $({service}); {HOOK_SAYS}", check=False).stdout.splitlines()
    return Booted(said[0], said[1], said[2], "\n".join(said[3:]))


def _listen(vm: LabVM) -> Told:
    answer = boot.told(vm)
    return Told(answer, boot.times(vm), boot.journal(vm).splitlines())
