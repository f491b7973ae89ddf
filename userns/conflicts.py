"""What on this node stands in the way, versions apart: its services, tools, files, and other people's settings."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from userns import paths, tracing
from userns.changes import InstallArtifact, InstallPackage, RemoveFile
from userns.containerd import other_runtimes
from userns.files import MAX_USER_NAMESPACES, max_user_namespaces, wants_metacopy
from userns.findings import Finding, blocker, note, warning
from userns.kubelet import ids, mounts
from userns.node import Node
from userns.overlay import metacopy_conflicts, module_conflicts
from userns.policy import Policy
from userns.programs import changes
from userns.readiness import Readiness
from userns.releases import ARCHITECTURES
from userns.requirements import stack
from userns.settings import OLDEST_KUBERNETES
from userns.tables import KUBELETS, branch
from userns.versions import parse, reaches
from userns.wants import Wants

__all__ = ["Wants", "check", "of_node"]

# An archive (40 MiB), what is in it (120), it again beside its targets (120), and where /usr/local is a file system of
# its own, a copy of the set that is replaced. The two older sets are there already; one of them goes at the commit.
SPACE_KIB = 400 * 1024
# An image gets no archive and keeps no older set: what is in it, and it again beside its targets. Of programs of 88 MiB
# a bake succeeded with 180 MiB free, and failed with 160.
IMAGE_SPACE_KIB = 240 * 1024
OLDEST_SYSTEMD = 236
_TOOLS = {
    "awk": "mawk or gawk",
    "base64": "coreutils",
    "flock": "util-linux",
    "sha256sum": "coreutils",
    "systemd-run": "systemd",
}
_RELEASE_TOOLS = {"tar": "tar", "gzip": "gzip"}


def of_node(
    node: Node, policy: Policy, ready: Readiness | None = None, *, metacopy_kept_off: bool = False
) -> list[Finding]:
    """What on `node` stands in the way of `policy`. Without `ready`, its rootfs counts as one that is not chowned."""
    planned = changes(node, policy)
    return check(
        node,
        Wants(
            kubernetes_version=policy.kubernetes_version,
            containerd_version=policy.containerd_version,
            containerd_root=policy.containerd_root,
            install_from=policy.install_from,
            snapshotter=policy.snapshotter,
            metacopy=wants_metacopy(node, policy, ready),
            metacopy_kept_off=metacopy_kept_off,
            max_user_namespaces=max_user_namespaces(node, policy),
            installs=any(isinstance(each, InstallArtifact | InstallPackage) for each in planned),
            removes=frozenset(each.path for each in planned if isinstance(each, RemoveFile)),
            kubelet_id_range=policy.kubelet_id_range,
            ids_per_pod=policy.ids_per_pod,
            max_pods=policy.max_pods,
            confines=_confines(policy.containerd_config),
            image=node.image is not None,
        ),
    )


def _confines(config: Mapping[str, Any]) -> bool:
    """Whether enable_selinux is turned on somewhere in it; containerd's own default is off."""
    return any(
        each is True if key == "enable_selinux" else isinstance(each, Mapping) and _confines(each)
        for key, each in config.items()
    )


def check(node: Node, wants: Wants) -> list[Finding]:
    """Every finding, in the order of the checks below; blockers and all."""
    return [finding for each in _CHECKS for finding in each(node, wants)]


def _access(node: Node, wants: Wants) -> Iterator[Finding]:
    if not node.root:
        yield blocker(
            "not-root",
            "this connection is not root's, and everything here needs root: set _sudo = True (or ssh_user) in the data",
        )
    if not node.systemd and wants.image:
        yield blocker("no-systemd", "there is no systemd in this image, and containerd is started by it: install it")
    elif not node.systemd:
        yield blocker(
            "no-systemd",
            "systemd does not run here, and containerd is started, restarted and undone by it: "
            "only nodes that booted with systemd are supported",
        )
    elif node.systemd.isdecimal() and int(node.systemd) < OLDEST_SYSTEMD:
        yield blocker(
            "systemd-too-old",
            f"systemd {node.systemd} is too old: a change of this node runs in a transient unit (systemd-run --wait "
            f"--collect), which takes systemd {OLDEST_SYSTEMD} or later. Use a newer release of the distribution",
            "systemd NEWS, 236",
        )


def _machine(node: Node, wants: Wants) -> Iterator[Finding]:
    if wants.install_from != "package" and node.machine not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        yield blocker(
            "architecture-unknown",
            f"no release asset is pinned for {node.machine or 'an unknown architecture'} (known: {known}): "
            'use install_from = "package"',
        )


def _cgroup_v1(node: Node, wants: Wants) -> Iterator[Finding]:
    """The kubelet that is here and the one that is wanted both count: the node has to serve the later one, too."""
    if node.cgroup not in ("v1", "hybrid") or wants.image:
        return
    what = "cgroup v1" if node.cgroup == "v1" else "cgroup v1 with v2 beside it (hybrid)"
    text = f"this node runs {what}, which containerd 2.2, runc 1.4 and crun 1.18 deprecate"
    cure = "Boot it with systemd.unified_cgroup_hierarchy=1"
    source = KUBELETS["refuses-cgroup-v1"].source
    here, later = (
        bool(version) and ids.does("refuses-cgroup-v1", version)
        for version in (node.kubelet_version, wants.kubernetes_version)
    )
    if (here or later) and node.kubelet_config.get("failCgroupV1", "").casefold() != "false":
        kubelet = f"the kubelet here ({node.kubelet_version})" if here else f"a kubelet {wants.kubernetes_version}"
        yield blocker(
            "cgroup-v1",
            f"{text}, and {kubelet} does not start on it: failCgroupV1 is true by default from Kubernetes 1.35 on. "
            f"{cure}. To stay with v1 as long as it lasts, set failCgroupV1: false in the kubelet's configuration; "
            "allow this where it says so elsewhere, or is not here yet",
            source,
        )
    else:
        yield warning(
            "cgroup-v1", f"{text}, and on which kubelets from 1.35 on do not start by default. {cure}", source
        )


def _kernel_shared(node: Node, wants: Wants) -> Iterator[Finding]:
    if node.container == "none" or wants.image:
        return
    live = node.sysctls.get(MAX_USER_NAMESPACES)
    open_ends = []
    if live is not None and live < wants.max_user_namespaces:
        open_ends.append(f"{MAX_USER_NAMESPACES} is {live}, and {wants.max_user_namespaces} are needed")
    if wants.metacopy and node.overlay.metacopy == "N":
        open_ends.append("overlay's metacopy is N")
    text = (
        f"this node is a container ({node.container}) and shares its kernel: files are written, values of the "
        "running kernel and modules are left alone"
    )
    if live is not None and live < wants.max_pods:  # anywhere else this run would raise it
        yield blocker(
            "max-user-namespaces-too-low",
            f"{MAX_USER_NAMESPACES} is {live}, and {wants.max_pods} pods need at least one each: those beyond fail "
            f'("no space left on device"). This node is a container ({node.container}), whose kernel is left alone: '
            f"raise it on its host (sysctl -w {MAX_USER_NAMESPACES}={wants.max_user_namespaces}, and in a file of "
            "/etc/sysctl.d there), and run again",
            "user_namespaces(7); talos#8554",
        )
    if open_ends:
        yield warning("kernel-shared", f"{text}. To be set on its host: {'; '.join(open_ends)}")
    else:
        yield note("kernel-shared", text)


def _user_namespaces(node: Node, wants: Wants) -> Iterator[Finding]:
    if wants.image:
        return
    if MAX_USER_NAMESPACES not in node.sysctls:
        yield blocker(
            "kernel-lacks-user-namespaces",
            f"Linux {node.kernel} has no {MAX_USER_NAMESPACES}: built without CONFIG_USER_NS? Boot one that has it",
            "user_namespaces(7)",
        )


def _sysctl_files(node: Node, wants: Wants) -> Iterator[Finding]:
    """At boot the last file wins, by name over all directories (sysctl.d(5)); the node's lines come in that order."""
    live = node.sysctls.get(MAX_USER_NAMESPACES, wants.max_user_namespaces)
    there = any(each.file == paths.SYSCTL for each in node.sysctl_lines)
    ours = there or wants.image or live < wants.max_user_namespaces
    late = [each for each in node.sysctl_lines if each.file != paths.SYSCTL and (not ours or _after_ours(each.file))]
    match = re.fullmatch(r".*=\s*(\d{1,19})\s*", late[-1].line) if late else None
    if match and int(match[1]) < wants.max_user_namespaces:
        after = f", after {paths.SYSCTL}" if ours else ""
        fail = "would" if int(match[1]) < wants.max_pods else "may"  # a pod takes one, and what it nests takes more
        yield warning(
            "sysctl-overridden",
            f"{late[-1].file} sets {MAX_USER_NAMESPACES} to {match[1]} at boot{after}, and {wants.max_user_namespaces} "
            f"are needed for {wants.max_pods} pods: after the next boot pods {fail} fail with "
            '"no space left on device". Raise it there, or take the line out',
            "sysctl.d(5)",
        )


def _after_ours(file: str) -> bool:
    return file == "/etc/sysctl.conf" or file.rpartition("/")[2] > paths.SYSCTL.rpartition("/")[2]


def _overlay(node: Node, wants: Wants) -> Iterator[Finding]:
    if wants.snapshotter == "overlayfs":
        yield from module_conflicts(node, image=wants.image)
    if wants.metacopy is not None:
        yield from metacopy_conflicts(node, metacopy=wants.metacopy, kept_off=wants.metacopy_kept_off)


def _id_range(node: Node, wants: Wants) -> Iterator[Finding]:
    wanted = ids.RangeWanted(
        wants.kubelet_id_range, wants.kubernetes_version, wants.ids_per_pod, wants.max_pods, wants.image
    )
    yield from ids.findings(node, wanted)


def _volumes(node: Node, wants: Wants) -> Iterator[Finding]:
    row = stack(wants.kubernetes_version, wants.containerd_version) if wants.containerd_version else None
    if row and row.idmaps_volumes and not wants.image:
        yield from mounts.findings(node)


def _tools(node: Node, wants: Wants) -> Iterator[Finding]:
    # In an image nothing is started, and a release is unpacked on the build host.
    unpacked_here = ("bundle",) if wants.image else ("bundle", "release")
    needed = _TOOLS | (_RELEASE_TOOLS if wants.installs and wants.install_from in unpacked_here else {})
    if wants.image:
        needed = {tool: package for tool, package in needed.items() if tool != "systemd-run"}
    if wants.install_from == "package" and wants.installs:
        needed = needed | {"apt-get": "apt; other package managers are not served"}
    if wants.kubelet_id_range and not node.kubelet_user:
        needed = needed | {"useradd": "passwd"}
    missing = [f"{tool} (package {package})" for tool, package in needed.items() if tool not in node.tools]
    fetches = wants.install_from == "release" and wants.installs and not wants.image
    if fetches and not {"curl", "wget"} & set(node.tools):
        missing.append("curl or wget")
    if missing:
        yield blocker("tools-missing", f"the node has no {', no '.join(missing)}: install them first")


def _space(node: Node, wants: Wants) -> Iterator[Finding]:
    if not wants.installs:
        return
    if wants.image:
        needed, why = IMAGE_SPACE_KIB, "while the new programs are put in place, which are there twice until then"
    else:
        needed, why = SPACE_KIB, "to stage the new programs while two older sets are kept"
    for key in ("install", "state"):
        place = node.filesystems.get(key)
        if place and place.read_only and not wants.image:  # a tree may be read through such a mount
            yield blocker(
                "read-only",
                f"{place.path} is to be written to, and {place.parent} is mounted read-only, as where /usr comes as an "
                "image (Flatcar): such systems are not served",
            )
        elif place and place.free_kib is not None and place.free_kib < needed:
            yield blocker(
                "no-space",
                f"{place.parent} has {place.free_kib // 1024} MiB free, and {needed // 1024} MiB are needed {why} "
                f"({place.path}): make room",
            )


def _gpu(node: Node, _wants: Wants) -> Iterator[Finding]:
    if node.gpu_hooks:
        yield warning(
            "gpu-hooks",
            f"GPU runtime programs are installed ({', '.join(node.gpu_hooks)}): their container hooks fail in pods "
            "with hostUsers: false. Keep hostUsers true for pods that ask for a GPU; others are fine",
            "cloud-native-docs#403; gpu-operator#466",
        )


def _selinux(node: Node, wants: Wants) -> Iterator[Finding]:
    if node.enforces_selinux and not wants.confines:
        yield warning(
            "selinux-confines-no-container",
            "SELinux is enforced here, and no container is confined by it: config.toml is written as a whole, and "
            "without enable_selinux = true, even where the one before had it. Set it with containerd_config (or in "
            "/etc/containerd/conf.d), and see that container-selinux is installed",
            "containerd docs/cri/config.md: enable_selinux is off by default",
        )


def _kubelet(node: Node, wants: Wants) -> Iterator[Finding]:
    if not node.kubelet_version or not wants.kubernetes_version:
        return
    runs, wanted = branch(parse(node.kubelet_version)), branch(parse(wants.kubernetes_version))
    if runs == wanted:
        return
    message = (
        f"the kubelet on this node is {node.kubelet_version} and kubernetes_version is {wants.kubernetes_version}: "
        f"what is decided here holds for {wanted}. "
    )
    if not reaches(node.kubelet_version, OLDEST_KUBERNETES):
        yield blocker(
            "kubernetes-version-mismatch",
            f"{message}User namespaces for pods begin with {OLDEST_KUBERNETES}: upgrade this kubelet first",
            "KEP-127",
        )
        return
    message += f'Set kubernetes_version = "{runs}" for this node'
    containerd = wants.containerd_version or "2.0"
    if stack(runs, containerd) is not stack(wanted, containerd):
        yield blocker("kubernetes-version-mismatch", f"{message}, which has other requirements")
    else:
        yield warning("kubernetes-version-mismatch", message)


def _unfinished(node: Node, _wants: Wants) -> Iterator[Finding]:
    if node.unfinished:
        yield note(
            "unfinished-change",
            f"an earlier change of this node was cut off ({node.unfinished}): it is undone before anything else",
        )


_CHECKS: tuple[Callable[[Node, Wants], Iterator[Finding]], ...] = (
    _access,
    _machine,
    _cgroup_v1,
    _tools,
    _space,
    other_runtimes.check,
    _kubelet,
    _user_namespaces,
    tracing.findings,
    _sysctl_files,
    _kernel_shared,
    _overlay,
    _id_range,
    _volumes,
    _gpu,
    _selinux,
    _unfinished,
)
