"""The real deploy on every kernel at once, as an operator would run it on a mixed fleet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lab import LabVM, Machine
from tests.node.runs import Operator, Run, Settings, tree

# What keeps a kernel from being deployed to, and has to be accepted by these very names.
REFUSED_FOR = {
    "5.10": ["kernel-lacks-idmap"],
    "6.1": ["kernel-lacks-tmpfs-idmap"],
    "6.12": [],
    "newest": [],
}
# Where overlay is loaded already when the first run comes. Elsewhere the probe has to load it, and the change-over.
OVERLAY_WAS_LOADED = ("6.1", "6.12")
METACOPY = "cat /sys/module/overlay/parameters/metacopy"
NAMESPACES = "cat /proc/sys/user/max_user_namespaces"
LEFT = """
    ctr namespaces ls -q; grep ovl-idmapped /proc/mounts
    systemctl list-units --failed --plain --no-legend | cut -d' ' -f1; systemctl is-active containerd"""
MODULES = "cut -d' ' -f1 /proc/modules | sort"


@dataclass(frozen=True)
class Look:
    """A virtual machine before or after a run that must not touch it: its files; its modules, mounts and values."""

    files: Mapping[str, str]
    kernel: tuple[str, ...]


@dataclass(frozen=True)
class Rollout:
    """The virtual machines by kernel, and what the runs of the deploy said.

    `rehearsed` was a dry run on those that are not refused, `refused` a real one on those that are; `before` and
    `after` are the looks around these two. `deployed` ran on all of them, with `allow` where that was needed, and
    `again` is the same run once more. `live` are the limit of user namespaces and overlay's metacopy right after
    `deployed`, before any boot, and `left` is what there was of namespaces, mounts and failed units after `again`,
    before any other test.
    """

    operator: Operator
    vms: Mapping[str, LabVM]
    rehearsed: Run
    refused: Run
    deployed: Run
    live: Mapping[str, str]
    again: Run
    left: Mapping[str, str]
    before: Mapping[str, Look]
    after: Mapping[str, Look]

    def deploy(self, *kernels: str, flags: tuple[str, ...] = ("-y",), **settings: object) -> Run:
        """Run the deploy on these as `deployed` did, with these settings beside."""
        return _deploy(self.operator, {kernel: self.vms[kernel] for kernel in kernels}, settings, flags)

    def prove(self, *kernels: str) -> Run:
        """Run the proof alone on these, as an operator asks for it: it mends nothing."""
        hosts: dict[Machine, Settings] = {self.vms[kernel]: {"allow": REFUSED_FOR[kernel]} for kernel in kernels}
        inventory = self.operator.inventory({"nodes": hosts})
        return self.operator.pyinfra(inventory, "tasks.verify.user_namespace", "--json", "-y")

    def allowed(self, kernel: str) -> list[str]:
        """What `deployed` had in `allow` for a kernel."""
        return REFUSED_FOR[kernel]


def run(operator: Operator, vms: Mapping[str, LabVM]) -> Rollout:
    """Refused first where it must be, deployed, and then once more."""
    for kernel in OVERLAY_WAS_LOADED:
        vms[kernel].ssh("modprobe overlay")
    before = {kernel: look(vm) for kernel, vm in vms.items()}
    rehearsed = operator.dry(*(vm for kernel, vm in vms.items() if not REFUSED_FOR[kernel]))
    refused = operator.deploy(*(vm for kernel, vm in vms.items() if REFUSED_FOR[kernel]))
    after = {kernel: look(vm) for kernel, vm in vms.items()}
    deployed = _deploy(operator, vms)
    live = {kernel: vm.ssh(f"{NAMESPACES}; {METACOPY}").stdout for kernel, vm in vms.items()}
    again = _deploy(operator, vms)
    left = {kernel: vm.ssh(LEFT, check=False).stdout for kernel, vm in vms.items()}
    return Rollout(operator, vms, rehearsed, refused, deployed, live, again, left, before, after)


def look(vm: LabVM) -> Look:
    """Look at a virtual machine."""
    values = "cat /proc/sys/user/max_user_namespaces /sys/module/overlay/parameters/metacopy 2>/dev/null"
    listed = vm.ssh(f"{MODULES}; cut -d' ' -f2- /proc/mounts | sort; {values}; :").stdout
    return Look(tree(vm), tuple(listed.splitlines()))


def _deploy(
    operator: Operator,
    vms: Mapping[str, LabVM],
    settings: Mapping[str, object] | None = None,
    flags: tuple[str, ...] = ("-y",),
) -> Run:
    hosts: dict[Machine, Settings] = {
        vm: {"allow": REFUSED_FOR[kernel], **(settings or {})} for kernel, vm in vms.items()
    }
    return operator.pyinfra(operator.inventory({"nodes": hosts}), "deploy.py", "--json", *flags)
