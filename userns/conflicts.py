"""What on this node stands in the way, versions apart: its services, tools, files, and other people's settings."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from userns import kubelet_mounts, kubelet_range, paths
from userns.changes import InstallArtifact, InstallPackage, RemoveFile
from userns.files import MAX_USER_NAMESPACES, max_user_namespaces, wants_metacopy
from userns.findings import Finding, blocker, note, warning
from userns.node import Node
from userns.overlay import metacopy_conflicts, module_conflicts
from userns.policy import Policy
from userns.programs import changes
from userns.readiness import Readiness
from userns.releases import ARCHITECTURES
from userns.requirements import stack
from userns.tables import branch
from userns.versions import parse

__all__ = ["Wants", "check", "of_node"]

# An archive (40 MiB), what is in it (120), it again beside its targets (120), and where /usr/local is a file system of
# its own, a copy of the set that is replaced. The two older sets are there already; one of them goes at the commit.
SPACE_KIB = 400 * 1024
OLDEST_SYSTEMD = 236
_TOOLS = {
    "awk": "mawk or gawk",
    "base64": "coreutils",
    "flock": "util-linux",
    "sha256sum": "coreutils",
    "systemd-run": "systemd",
}
_RELEASE_TOOLS = {"tar": "tar", "gzip": "gzip"}
_CONFLICTING = ("containerd.io", "moby-containerd")
_OTHER_KUBERNETES = {
    "k3s": "k3s",
    "k3s-agent": "k3s",
    "rke2-server": "rke2",
    "rke2-agent": "rke2",
}


@dataclass(frozen=True, slots=True)
class Wants:
    """What the policy wants of a node, as far as something there can stand in its way.

    `metacopy`: on, off, or None (left as it is). `installs`: whether this run puts programs in place; `removes`: the
    paths that it takes away. `image`: the node is a root directory that boots later; nothing that runs belongs to it.
    """

    kubernetes_version: str = ""
    containerd_version: str = ""
    containerd_root: str = "/var/lib/containerd"
    install_from: str = "release"
    snapshotter: str = "overlayfs"
    metacopy: bool | None = None
    max_user_namespaces: int = 0
    installs: bool = True
    removes: frozenset[str] = frozenset()
    kubelet_id_range: tuple[int, int] | None = None
    ids_per_pod: int = 65536
    max_pods: int = 110
    image: bool = False


def of_node(node: Node, policy: Policy, ready: Readiness | None = None) -> list[Finding]:
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
            max_user_namespaces=max_user_namespaces(node, policy),
            installs=any(isinstance(each, InstallArtifact | InstallPackage) for each in planned),
            removes=frozenset(each.path for each in planned if isinstance(each, RemoveFile)),
            kubelet_id_range=policy.kubelet_id_range,
            ids_per_pod=policy.ids_per_pod,
            max_pods=policy.max_pods,
            image=node.image is not None,
        ),
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
    if node.cgroup in ("v1", "hybrid"):
        refuses = bool(wants.kubernetes_version) and parse(wants.kubernetes_version) >= parse("1.35")
        kubelet = "; from 1.35 on the kubelet does not start on it (failCgroupV1)" if refuses else ""
        what = "cgroup v1" if node.cgroup == "v1" else "cgroup v1 with v2 beside it (hybrid)"
        cure = "boot with systemd.unified_cgroup_hierarchy=1"
        yield warning(
            "cgroup-v1",
            f"this node runs {what}, which containerd 2.2, runc 1.4 and crun 1.18 deprecate{kubelet}: {cure}",
            "Kubernetes docs, concepts/architecture/cgroups; KEP-5573",
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
        yield warning(
            "sysctl-overridden",
            f"{late[-1].file} sets {MAX_USER_NAMESPACES} to {match[1]} at boot{after}, and {wants.max_user_namespaces} "
            f"are needed for {wants.max_pods} pods: after the next boot pods would fail with "
            '"no space left on device". Raise it there, or take the line out',
            "sysctl.d(5)",
        )


def _after_ours(file: str) -> bool:
    return file == "/etc/sysctl.conf" or file.rpartition("/")[2] > paths.SYSCTL.rpartition("/")[2]


def _overlay(node: Node, wants: Wants) -> Iterator[Finding]:
    if wants.snapshotter == "overlayfs":
        yield from module_conflicts(node, image=wants.image)
    if wants.metacopy is not None:
        yield from metacopy_conflicts(node, metacopy=wants.metacopy)


def _id_range(node: Node, wants: Wants) -> Iterator[Finding]:
    wanted = kubelet_range.RangeWanted(
        wants.kubelet_id_range, wants.kubernetes_version, wants.ids_per_pod, wants.max_pods, wants.image
    )
    yield from kubelet_range.findings(node, wanted)


def _volumes(node: Node, wants: Wants) -> Iterator[Finding]:
    row = stack(wants.kubernetes_version, wants.containerd_version) if wants.containerd_version else None
    if row and row.idmaps_volumes and not wants.image:
        yield from kubelet_mounts.findings(node)


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
    for key in ("install", "state"):
        place = node.filesystems.get(key)
        if place and place.free_kib is not None and place.free_kib < SPACE_KIB:
            yield blocker(
                "no-space",
                f"{place.parent} has {place.free_kib // 1024} MiB free, and {SPACE_KIB // 1024} MiB are needed to "
                f"stage the new programs while two older sets are kept ({place.path}): make room",
            )


def _containerd_unit(node: Node, wants: Wants) -> Iterator[Finding]:
    unit = node.units.get("containerd")
    if unit is None:
        return
    if "masked" in (unit.load, unit.enabled):
        yield blocker(
            "containerd-masked",
            "containerd.service is masked: somebody wants it not to run here. If that has passed: "
            "systemctl unmask containerd",
        )
    programs = paths.PACKAGED if wants.install_from == "package" else paths.INSTALLED
    program = next(iter(unit.exec_start.split()), "").lstrip("-@:+!")
    if program in ("", programs["containerd"]) or unit.fragment in wants.removes:
        return
    if wants.install_from == "package" or unit.fragment == paths.UNIT:
        yield warning(
            "containerd-unit-starts-another",
            f"containerd.service ({unit.fragment}) starts {program} and not {programs['containerd']}. If a drop-in in "
            f"{paths.UNIT}.d sets ExecStart, take it away (systemctl cat containerd); "
            + (
                f"if {paths.UNIT} hides the package's own unit, remove it"
                if wants.install_from == "package"
                else "the unit itself is replaced by ours"
            ),
        )


def _containerd_root(node: Node, wants: Wants) -> Iterator[Finding]:
    if node.other_root and not wants.image:
        yield blocker(
            "containerd-root-moves",
            f"containerd keeps its containers and images in {node.other_root}, and containerd_root is "
            f"{wants.containerd_root}: it would know none of them any more, while their processes run on. Drain the "
            f"node, remove its containers (crictl rmp --all --force) and take {node.other_root} away, or set "
            "containerd_root to it",
            "containerd docs/ops.md, root",
        )


def _containerd_binaries(node: Node, wants: Wants) -> Iterator[Finding]:
    ours = (paths.PACKAGED if wants.install_from == "package" else paths.INSTALLED)["containerd"]
    for path, binary in sorted(node.binaries.items()):
        if path.rpartition("/")[2] == "containerd" and path != ours and path not in wants.removes:
            owner = next((name for name in ("containerd", "containerd.io") if name in node.packages), "")
            whose = f" of the package {owner}" if owner and path == paths.PACKAGED["containerd"] else ""
            yield note(
                "containerd-second",
                f"{path} ({binary.version or 'unknown version'}){whose} is a second containerd beside {ours}. It is "
                "left alone; scripts that call containerd or ctr without a path may meet either",
            )


def _packages(node: Node, wants: Wants) -> Iterator[Finding]:
    theirs = [name for name in _CONFLICTING if name in node.packages]
    if wants.install_from == "package" and theirs:
        yield blocker(
            "package-conflicts",
            f"{' and '.join(theirs)} is installed, which cannot stand beside the distribution's containerd and runc: "
            'apt would take it away, and Docker with it. Set install_from = "release", whose containerd stands beside '
            "it, or move Docker off this node",
            "Conflicts of the packages containerd.io (Docker) and moby-containerd (Microsoft)",
        )


def _containerds(node: Node, wants: Wants) -> Iterator[Finding]:
    """A second one that runs. Two of them at one root: the later one waits for the database for ever."""
    if wants.image:
        return
    for each in node.other_containerds:
        process = f"{each.program or 'a containerd'} (pid {each.pid}, {each.unit or 'of no unit'})"
        if each.uses_root:
            end = f"systemctl disable --now {each.unit}" if each.unit else f"kill {each.pid}"
            yield blocker(
                "containerd-second-running",
                f"{process} runs beside containerd.service and uses {wants.containerd_root}: containerd.service could "
                f"not start with the same root. End it ({end}; its containers run on, and containerd.service takes "
                "them over), or give it a root of its own",
                "containerd docs/ops.md, root and state",
            )
        else:
            yield note(
                "containerd-second-running",
                f"{process} runs beside containerd.service, with a root of its own: it is left alone, and nothing of "
                "what is configured here is its",
            )


def _other_runtimes(node: Node, wants: Wants) -> Iterator[Finding]:
    for name, product in _OTHER_KUBERNETES.items():
        unit = node.units.get(name)
        if unit and unit.load == "loaded":
            yield warning(
                "kubernetes-brings-containerd",
                f"{name}.service is here: {product} runs a containerd of its own, and what is configured here is not "
                f"it. Configure {product}'s (config.toml.tmpl), or point it at this one (--container-runtime-endpoint)",
                "k3s docs, advanced: using an existing container runtime",
            )
    crio = node.units.get("crio")
    if crio and crio.active == "active":
        yield warning(
            "crio-runs",
            "crio.service runs here: a kubelet that uses its socket gets nothing of what is configured for containerd. "
            "Look at the kubelet's containerRuntimeEndpoint",
        )


def _gpu(node: Node, _wants: Wants) -> Iterator[Finding]:
    if node.gpu_hooks:
        yield warning(
            "gpu-hooks",
            f"GPU runtime programs are installed ({', '.join(node.gpu_hooks)}): their container hooks fail in pods "
            "with hostUsers: false. Keep hostUsers true for pods that ask for a GPU; others are fine",
            "cloud-native-docs#403; gpu-operator#466",
        )


def _kubelet(node: Node, wants: Wants) -> Iterator[Finding]:
    if not node.kubelet_version or not wants.kubernetes_version:
        return
    runs, wanted = branch(parse(node.kubelet_version)), branch(parse(wants.kubernetes_version))
    if runs == wanted:
        return
    message = (
        f"the kubelet on this node is {node.kubelet_version} and kubernetes_version is {wants.kubernetes_version}: "
        f'what is decided here holds for {wanted}. Set kubernetes_version = "{runs}" for this node'
    )
    containerd = wants.containerd_version or "2.0"
    if stack(runs, containerd) is not stack(wanted, containerd):
        yield blocker("kubernetes-version-mismatch", f"{message}, whose requirements are others")
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
    _tools,
    _space,
    _containerd_unit,
    _containerd_root,
    _containerd_binaries,
    _packages,
    _containerds,
    _other_runtimes,
    _kubelet,
    _user_namespaces,
    _sysctl_files,
    _kernel_shared,
    _overlay,
    _id_range,
    _volumes,
    _gpu,
    _unfinished,
)
