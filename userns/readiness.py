"""Readiness: what the kernel and containerd make of a pod's user namespace on this node, and why.

The live probes decide. Versions speak only where a probe could not be made, and then the answer is `assumed`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal, TypedDict

from userns.findings import Finding, blocker, note, warning
from userns.idmap import Answer, Asked, advice, release
from userns.node import Node, Probe
from userns.policy import Policy
from userns.requirements import stack
from userns.tables import BOUNDARIES, SNAPSHOTTERS, Stack
from userns.versions import reaches

__all__ = ["Inputs", "Readiness", "Reason", "Rootfs", "Tier", "Volumes", "assess", "inputs", "of_node"]

Rootfs = Literal["idmapped", "chown", "none"]
Volumes = Literal["all", "no-tmpfs", "none"]
Tier = Literal["idmapped", "rootfs-only", "chown", "unsupported"]
Reason = tuple[str, str]

_DOC = "containerd docs/user-namespaces/README.md"
_CHECK = BOUNDARIES["overlay"].source
REFUSAL = (
    'snapshotter "overlayfs" doesn\'t support idmap mounts on this host, '
    "configure `slow_chown` to allow a slower and expensive fallback"
)


@dataclass(frozen=True, slots=True)
class Readiness:
    """What a node can do for pods with `hostUsers: false`.

    `slow_chown` is what config.toml gets; `reasons` are statements with their sources; `assumed` says that some of
    it was not probed. `idmaps_volumes` is False where Kubernetes asks for no idmapped volumes (before 1.27).
    """

    rootfs: Rootfs
    volumes: Volumes
    tier: Tier
    slow_chown: bool = False
    slow_chown_reason: str = ""
    idmaps_volumes: bool = True
    reasons: tuple[Reason, ...] = ()
    findings: tuple[Finding, ...] = ()
    assumed: bool = False

    @property
    def summary(self) -> str:
        """One line for people."""
        if self.rootfs == "none":
            said = "pods with hostUsers: false do not start here"
        else:
            volumes = _VOLUMES[self.volumes] if self.idmaps_volumes else "this Kubernetes asks for no idmapped volumes"
            said = f"{_ROOTFS[self.rootfs]}; {volumes}"
        return f"{said} (assumed from versions: not everything was probed)" if self.assumed else said


_ROOTFS = {
    "idmapped": "a pod's image is idmapped, at no cost",
    "chown": "a pod's image is copied by changing the owner of every file",
}
_VOLUMES = {
    "all": "its volumes are idmapped",
    "no-tmpfs": "volumes on tmpfs (Secrets, service-account tokens, memory) fail, others are idmapped",
    "none": "its volumes fail, and with them every pod",
}


def of_node(node: Node, policy: Policy) -> Readiness:
    """The readiness of a node under a policy."""
    return assess(
        **inputs(policy),
        kernel=node.kernel,
        probes=node.probes,
        filesystems={name: each.type for name, each in node.filesystems.items()},
        paths={"containerd-root": policy.containerd_root, "kubelet-root": policy.kubelet_root},
        os_id=node.os_id,
        os_version=node.os_version,
        zfs=node.zfs_version,
        unprobed="the probe gave no answer",
    )


class Inputs(TypedDict):
    """The part of a policy that readiness depends on."""

    kubernetes: str
    containerd: str
    slow_chown: bool | str
    snapshotter: str
    remaps: bool


def inputs(policy: Policy) -> Inputs:
    """The part of `policy` that readiness depends on."""
    proxies = policy.containerd_config.get("proxy_plugins", {})
    proxy = proxies.get(policy.snapshotter, {}) if isinstance(proxies, dict) else {}
    capabilities = proxy.get("capabilities", []) if isinstance(proxy, dict) else []
    return Inputs(
        kubernetes=policy.kubernetes_version,
        containerd=policy.containerd_version,
        slow_chown=policy.slow_chown,
        snapshotter=policy.snapshotter,
        remaps=isinstance(capabilities, list) and "remap-ids" in capabilities,
    )


def assess(
    *,
    kernel: str,
    kubernetes: str,
    containerd: str,
    slow_chown: bool | str = "auto",
    snapshotter: str = "overlayfs",
    remaps: bool = False,
    probes: Mapping[str, Probe] = MappingProxyType({}),
    filesystems: Mapping[str, str] = MappingProxyType({}),
    paths: Mapping[str, str] = MappingProxyType({}),
    os_id: str = "",
    os_version: str = "",
    zfs: str = "",
    unprobed: str = "no node was asked",
) -> Readiness:
    """The readiness for these versions, probes and file systems; the keys of all three are those of userns.node.

    `remaps` says that the snapshotter, another program, declares remap-ids; `zfs` is the version of OpenZFS. Raises
    ValueError where `kubernetes` or `containerd` is not a version; a kernel that cannot be read counts as unknown, and
    unknown as too old.
    """
    judge = _Judge(kernel, containerd, snapshotter, Asked(release(kernel), probes, filesystems, paths, unprobed, zfs))
    row = stack(kubernetes, containerd)
    if row is None:
        return Readiness("none", "none", "unsupported", reasons=((_no_stack(kubernetes, containerd), _DOC),))
    if row.kernel:
        judge.reasons.append((f"{row.name} asks for Linux {row.kernel}", row.source))
    if not reaches(containerd, "2"):
        judge.chown_model(row, slow_chown)
        volumes: Volumes = "all"
    else:
        row_of_snapshotter = SNAPSHOTTERS.get(snapshotter)
        if row_of_snapshotter and row_of_snapshotter.model == "overlay":
            judge.slow_chown_reason = _NOT_NEEDED  # unless it turns out to be
        if judge.root():
            judge.snapshots(slow_chown, remaps)
        volumes = "none" if judge.hopeless else judge.volumes(row, kubernetes)
    judge.probing()
    rootfs = "none" if judge.refused else judge.rootfs
    return Readiness(
        rootfs=rootfs,
        volumes=volumes,
        tier=_tier(rootfs, volumes, row),
        slow_chown=judge.slow_chown,
        slow_chown_reason=judge.slow_chown_reason,
        idmaps_volumes=row.idmaps_volumes,
        reasons=tuple(judge.reasons),
        findings=tuple(
            advice(judge.findings, judge.kernels_fault, os_id, os_version, kernel, probed=not judge.asked.assumed)
        ),
        assumed=judge.asked.assumed,
    )


def _tier(rootfs: Rootfs, volumes: Volumes, row: Stack) -> Tier:
    # Where Kubernetes idmaps volumes, /etc/hosts and the termination log of each pod come from the kubelet's root:
    # with none of that, no pod starts.
    if rootfs == "none" or (volumes == "none" and row.idmaps_volumes):
        return "unsupported"
    if rootfs == "chown":
        return "chown"
    return "idmapped" if volumes == "all" else "rootfs-only"


def _no_stack(kubernetes: str, containerd: str) -> str:
    return f"containerd {containerd} gives Kubernetes {kubernetes} no user namespaces"


@dataclass(slots=True)
class _Judge:
    """Collects reasons and findings while the questions are put, in the order in which containerd meets them."""

    kernel: str
    containerd: str
    snapshotter: str
    asked: Asked
    rootfs: Rootfs = "none"
    refused: bool = False
    hopeless: bool = False
    slow_chown: bool = False
    slow_chown_reason: str = ""
    reasons: list[Reason] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    kernels_fault: set[str] = field(
        default_factory=lambda: {"kernel-lacks-idmap", "kernel-lacks-tmpfs-idmap", "idmap-disabled"}
    )

    def chown_model(self, row: Stack, slow_chown: bool | str) -> None:
        """containerd 1.7: the owner of every file is changed, whatever the kernel can."""
        self.rootfs = "chown"
        self._because(f"containerd {self.containerd} changes the owner of every file of a pod's image", row.source)
        if none := self.asked.no_namespace():
            self._told(none)
            self._refuse(none, none.finding, none.cure)
        if slow_chown is True:
            self._find(
                note(
                    "slow-chown-has-no-effect",
                    f"slow_chown = True: containerd {self.containerd} does not know the key, and always does it",
                    "containerd v1.7.34 snapshots/overlay/plugin/plugin.go:31-38",
                )
            )

    def root(self) -> bool:
        """containerd 2.x idmaps files of its own root in every pod with a user namespace: without that, nothing."""
        answer = self.asked.directory("containerd-root")
        self._told(answer)
        if not answer.can:
            # With an id of its own the errno says that it is not this directory: the kernel has none of it to offer.
            self.hopeless = bool(answer.finding)
            cure = answer.cure or (_NEWER if self.hopeless else _ROOT)
            self._refuse(answer, answer.finding or "containerd-root-cannot-idmap", cure)
        return answer.can

    def snapshots(self, slow_chown: bool | str, remaps: bool) -> None:
        """How a pod gets its image from this snapshotter."""
        row = SNAPSHOTTERS.get(self.snapshotter)
        model = row.model if row else "proxy"
        if model == "overlay":
            self._overlayfs(slow_chown)
            return
        if slow_chown is True:
            self._find(
                note("slow-chown-has-no-effect", f"slow_chown = True: only overlayfs has it, not {self.snapshotter}")
            )
        source = (row or SNAPSHOTTERS["stargz"]).source
        idmaps_later = model == "remap" and row and row.since and not reaches(self.containerd, str(row.since))
        if model == "remap" and not idmaps_later:
            self._overlay_layers(_LAYERS if self.asked.kernel_has("overlay") else _ONLY_NEWER)
            self._because(f"the snapshotter {self.snapshotter} idmaps", source)
            return
        if remaps and model == "proxy":  # none that is built in takes a capability from config.toml
            self.rootfs = "idmapped"
            self._because(f"the snapshotter {self.snapshotter} declares remap-ids", source)
            return
        self.rootfs = "chown"
        known, who = row or SNAPSHOTTERS["stargz"], "" if row else ", which the tables do not know"
        if idmaps_later and row:
            known, who = SNAPSHOTTERS["native"], f", which idmaps from containerd {row.since} on"
        consequence = known.consequence.format(name=self.snapshotter)
        self._because(f"the snapshotter {self.snapshotter}{who}: {consequence}", source)
        self._find(warning("snapshotter-chowns", f"snapshotter {self.snapshotter}{who}: {consequence}", source))

    def _overlayfs(self, slow_chown: bool | str) -> None:
        if self.asked.kernel_has("overlay"):
            self._overlay_layers()
            if slow_chown is True:
                self._sets_slow_chown(_ASKED_FOR)
                self._find(note("slow-chown-has-no-effect", _NO_EFFECT.format(kernel=self.kernel), _CHECK))
            return
        check = self.asked.containerd_check()
        self._told(check)
        if slow_chown is True:
            self._sets_slow_chown(_ASKED_FOR)
        elif slow_chown == "auto" and not self.asked.probed_ok("containerd-check"):
            # Without effect where containerd's test passes after all, so it is safe where that is not known.
            self._sets_slow_chown(_NEEDED)
        if check.can:
            self._overlay_layers()
        elif not self.slow_chown:
            self._refuses_without_slow_chown()
        else:
            self.rootfs = "chown"
            self._because(f"slow_chown: {self.slow_chown_reason}", _DOC)
            if self.asked.probed_ok("overlay"):
                self._find(warning("containerd-test-in-tmpdir", _TMPDIR, _CHECK))
            self._find(warning("slow-chown-costs", _COSTS, "containerd v2.3.4 client/container_opts_unix.go:127-147"))

    def _refuses_without_slow_chown(self) -> None:
        cure = _BOOT
        if self.asked.probed_ok("overlay"):
            cure = _MOVE_TMPDIR  # the kernel can: nobody has to boot another one
        else:
            self.kernels_fault.add("containerd-refuses-without-slow-chown")
        self.refused = True
        message = f"{_REFUSES.format(kernel=self.kernel, error=REFUSAL)}. {cure}, {_OR_CHOWN}"
        self._find(blocker("containerd-refuses-without-slow-chown", message, _DOC))

    def _overlay_layers(self, cure: str = "") -> None:
        """containerd takes the fast way; the kernel must be able to follow."""
        answer = self.asked.overlay()
        self._told(answer)
        if answer.can:
            self.rootfs = "idmapped"
            return
        if cure == _ONLY_NEWER and not answer.cure:
            self.kernels_fault.add("overlay-cannot-idmap")
        self._refuse(answer, "overlay-cannot-idmap", answer.cure or cure or _LAYERS)

    def volumes(self, row: Stack, kubernetes: str) -> Volumes:
        """Which volumes the kubelet can give such a pod."""
        if not row.idmaps_volumes:
            self._because(f"Kubernetes {kubernetes} asks for no idmapped volumes", row.source)
            return "all"
        root, tmpfs = self.asked.directory("kubelet-root"), self.asked.tmpfs()
        self._told(root)
        self._told(tmpfs)
        if not root.can:
            self._blame(root, "kubelet-root-cannot-idmap", root.cure or _KUBELET)
            return "none"
        if not tmpfs.can:
            works = "" if self.refused else _WITHOUT_TMPFS.format(kernel=self.kernel)
            self._blame(tmpfs, "kernel-lacks-tmpfs-idmap", _TMPFS + works)
            return "no-tmpfs"
        return "all"

    def probing(self) -> None:
        """What could not be asked of the kernel."""
        for finding in self.asked.findings():
            self._find(finding)

    def _sets_slow_chown(self, reason: str) -> None:
        self.slow_chown, self.slow_chown_reason = True, reason

    def _told(self, answer: Answer) -> None:
        self._because(answer.statement, answer.source)

    def _because(self, statement: str, source: str) -> None:
        if (statement, source) not in self.reasons:
            self.reasons.append((statement, source))

    def _refuse(self, answer: Answer, id: str, message: str) -> None:
        self.refused = True
        self._blame(answer, id, message)

    def _blame(self, answer: Answer, id: str, message: str) -> None:
        more = _RAISE_FIRST if self.asked.exhausted and answer.subject in self.asked.guesses else ""
        self._find(blocker(id, f"{answer.statement}. {message}{more}", answer.source))

    def _find(self, finding: Finding) -> None:
        """Once an id: the first place where a kernel's lack shows says it all."""
        if finding.id not in {each.id for each in self.findings}:
            self.findings.append(finding)


_RAISE_FIRST = (
    ". But nothing could be probed here: raise user.max_user_namespaces by hand first (sysctl -w "
    "user.max_user_namespaces=16384), on its host if it is a container, and run again"
)
_ROOT = (
    "containerd 2.x idmaps files below it into every pod with a user namespace, and slow_chown does not help there: "
    "put containerd_root on ext4, xfs or btrfs"
)
_LAYERS = (
    "containerd takes it for granted from Linux 5.19 on, and wherever its own test passes, so slow_chown does not help "
    'and pods fail with "unable to shift GID/UID or set mount attrs": put containerd_root on ext4, xfs or btrfs'
)
_NEWER = (
    "With containerd 2.x every pod with hostUsers: false needs it, and slow_chown does not help: boot a kernel that "
    "has it, 6.3 or later"
)
_ONLY_NEWER = (
    "This snapshotter mounts overlay over idmapped layers and has no slow_chown to fall back on, and on no file system "
    "can an older kernel do that: boot Linux 5.19 or later (6.3 or later for Kubernetes 1.27 and later), or take "
    'snapshotter = "overlayfs"'
)
# These become a comment in config.toml. They say nothing of the kernel that is there: an update of it is no reason to
# write that anew and to restart containerd, and an image has both renderings.
_ASKED_FOR = "asked for; without effect on Linux 5.19 and later"
_NEEDED = "containerd's own test of overlay fails, or may fail, on a kernel below Linux 5.19"
_NOT_NEEDED = "Linux 5.19 and later mounts overlay over idmapped layers: nothing is copied"
_NO_EFFECT = "slow_chown = True has no effect on Linux {kernel}: from 5.19 on containerd idmaps"
_REFUSES = "on Linux {kernel} containerd refuses pods with a user namespace: {error}"
_BOOT = "Boot Linux 6.3 or later"
_MOVE_TMPDIR = (
    "This kernel can idmap overlay in containerd's root, and only not in containerd's TMPDIR (/tmp), where containerd "
    'tests it. So write "[Service]" and "Environment=TMPDIR=/var/tmp" into /etc/systemd/system/containerd.service.d/'
    'tmpdir.conf, restart containerd, and run again (where there is none yet, run once with slow_chown = "auto" first)'
)
_OR_CHOWN = 'or set slow_chown = "auto" and accept a copy of the image\'s inodes for each pod'
_TMPDIR = (
    "overlay can be idmapped in containerd's root, but containerd tests it in its TMPDIR (/tmp), where it cannot, and "
    "so changes owners instead. A drop-in of containerd.service with Environment=TMPDIR=/var/tmp may spare you that"
)
_COSTS = (
    "slow_chown changes the owner of every file for each pod: starts are slower, overlay_metacopy saves most of the "
    "space, and file capabilities are lost (ping with cap_net_raw fails in such pods). Linux 5.19 or later does without"
)
_KUBELET = (
    "The kubelet mounts /etc/hosts, the termination log and most volumes of a pod from there, so that every pod with "
    "hostUsers: false fails: put kubelet_root on ext4, xfs or btrfs"
)
_TMPFS = (
    "The kubelet keeps Secrets, projected volumes (every service-account token), downwardAPI and emptyDir with "
    "medium: Memory on tmpfs, and a pod with hostUsers: false that mounts one fails: "
    '"failed to set MOUNT_ATTR_IDMAP …: invalid argument". Boot Linux 6.3 or later'
)
_WITHOUT_TMPFS = (
    ". Pods without such volumes work on {kernel} (ConfigMaps do; set automountServiceAccountToken: false), and for "
    'those allow = ["kernel-lacks-tmpfs-idmap"] accepts the node'
)
