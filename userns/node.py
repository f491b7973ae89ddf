"""What a node is, as values: `userns.reading` makes them of the text that the one remote command prints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Probe(_Frozen):
    """What a live probe of the kernel said.

    `cannot` carries the step that failed and the kernel's errno by name (`EINVAL`); `unknown` means that the
    probe could not be made (no tool for it, not root, a read-only directory), with the reason in `detail`.
    """

    result: Literal["ok", "cannot", "unknown"]
    step: str = ""
    errno: str = ""
    detail: str = ""


class Filesystem(_Frozen):
    """The file system that serves `path`: looked up on `parent`, the nearest directory that exists."""

    path: str
    parent: str
    type: str
    free_kib: int | None = None
    read_only: bool = False


class FileState(_Frozen):
    """A managed file as it is. `mode` is octal without a leading zero (`"644"`), `owner` is `"uid:gid"`.

    `recorded` says that the text is the one that the last deploy wrote there.
    """

    kind: Literal["absent", "file", "link", "directory", "other"]
    sha256: str = ""
    mode: str = ""
    owner: str = ""
    recorded: bool = False


class Binary(_Frozen):
    """An installed program. `recorded` says that its stat (or digest) agrees with the manifest, so that
    `version` and `sha256` come from there; else both were taken from the file itself."""

    sha256: str = ""
    version: str = ""
    recorded: bool = False
    component: str = ""
    # SHA-256 of the release asset that it came from; "package" for a package's own.
    asset: str = ""


def without_prefixes(program: str) -> str:
    """The path of a program in an ExecStart, which may stand behind special characters (systemd.service(5))."""
    return program.lstrip("-@:+!|")


class Unit(_Frozen):
    """A systemd unit, in systemd's own words (LoadState, ActiveState, SubState, UnitFileState).

    The last three are of containerd.service alone, where its file is not a deploy's: what that file sets and no drop-in
    sets again. `environment` has the names of variables; their values never leave the node.
    """

    load: str = "not-found"
    active: str = "inactive"
    sub: str = "dead"
    enabled: str = ""
    fragment: str = ""
    exec_start: str = ""
    limit_nofile: str = ""
    environment: tuple[str, ...] = ()
    environment_files: tuple[str, ...] = ()

    @property
    def program(self) -> str:
        """What it starts, "" where that is not known."""
        return without_prefixes(next(iter(self.exec_start.split()), ""))


class Package(_Frozen):
    """An installed package: the distribution's full version, and whether it is held."""

    version: str
    held: bool = False


class ConfLine(_Frozen):
    """One line of somebody's configuration that concerns us."""

    file: str
    line: str


class SelinuxDomain(_Frozen):
    """What systemd would start a program in, and what of what containerd needs the policy denies it there.

    `denied`: class and permission, such as `process ptrace`.
    """

    context: str
    denied: tuple[str, ...] = ()


class ReservedKey(_Frozen):
    """A key of a drop-in that a setting writes, and its value as TOML has it there ("?": it could not be told)."""

    path: tuple[str, ...]
    value: str


class ConfigKey(_Frozen):
    """A key of a config.toml that no deploy wrote; the first part of its path is "cri" for each id of that plugin.

    `state`: whether its value is the default of the node's own containerd (`unknown`: that did not tell). `value`: as
    TOML has it there, "" for all but a few whose value can be no secret.
    """

    path: tuple[str, ...] = Field(min_length=1)
    value: str = ""
    state: Literal["default", "set", "unknown"] = "set"


class DropIn(_Frozen):
    """A containerd drop-in: its `version` (None where it names none), and the table headers that it opens.

    `sets` are the keys that it sets, by paths like those of a ConfigKey; only the values of `keys` leave the node.
    """

    path: str
    version: int | None = None
    tables: tuple[str, ...] = ()
    sets: tuple[tuple[str, ...], ...] = ()
    keys: tuple[ReservedKey, ...] = ()
    unreadable: bool = False


class HostIds(_Frozen):
    """IDs from 65536 on that users or groups of this node have: one with its name, or several without."""

    kind: Literal["user", "group"]
    name: str = ""
    first: int
    last: int
    count: int = 1


class PodIds(_Frozen):
    """The block of IDs that the kubelet gave a pod, from its file `userns`; None where that could not be read."""

    pod: str
    start: int | None = None
    length: int | None = None


class Mounts(_Frozen):
    """The mounts of one file system below the kubelet's root: how many, and the first of them by name."""

    count: int
    paths: tuple[str, ...] = ()


class Process(_Frozen):
    """A containerd that is not containerd.service's: `unit` is what systemd started it in, "" where that is nothing.

    `uses_root`: it has the database of the wanted containerd root open.
    """

    pid: int
    program: str = ""
    unit: str = ""
    uses_root: bool = False


class ExecDropIn(_Frozen):
    """A drop-in of containerd.service that sets ExecStart: the program, and --config and --root of its command line."""

    path: str
    program: str
    config: str = ""
    root: str = ""


class RunningKubelet(_Frozen):
    """The kubelet that runs: its --root-dir, and whether that is the wanted kubelet_root."""

    root: str = "/var/lib/kubelet"
    uses_root: bool = True


class Overlay(_Frozen):
    """The kernel's overlayfs: `loaded` and `module` (on disk, not loaded) are a module's states.

    `default`: of a module that is not loaded, the `metacopy` that its kernel was built to load it with.
    """

    state: Literal["builtin", "loaded", "module", "absent", "unknown"] = "unknown"
    metacopy: Literal["Y", "N", ""] = ""
    default: Literal["Y", "N", ""] = ""


class ImageKernel(_Frozen):
    """A kernel in an image: its release, how it has overlay, and of its configuration what concerns us.

    `config` maps an option to `y`, `m` or `n`, and is empty where the image does not have the kernel's configuration.
    """

    release: str
    overlay: Literal["builtin", "module", "absent", "unknown"] = "unknown"
    config: dict[str, str] = {}


class Image(_Frozen):
    """What makes a node an image: a root directory that will boot later, on one of these kernels."""

    kernels: tuple[ImageKernel, ...] = ()
    # SOURCE_DATE_EPOCH of the bake: seconds that stand for its time. None where that is not set.
    epoch: int | None = None
    # What lies in STATE and is no part of an image, by its names there.
    leftovers: tuple[str, ...] = ()


class Node(_Frozen):
    """Everything the plan needs to know of one node, as one remote command found it.

    `kernel` of an image is the newest one that it has, "" where it has none.
    """

    kernel: str
    machine: str
    os_id: str = ""
    os_version: str = ""
    container: str = "none"
    systemd: str = ""
    cgroup: Literal["v2", "v1", "hybrid", "unknown"] = "unknown"
    tools: tuple[str, ...] = ()
    root: bool = True
    # The first ID and the count of each part of /proc/self/uid_map and gid_map. Keys: uid, gid; none: not known.
    own_ids: dict[str, tuple[tuple[int, int], ...]] = {}
    image: Image | None = None
    overlay: Overlay = Overlay()
    # Keys: containerd-root, kubelet-root, tmpfs, overlay (an overlay over an idmapped lower, in the containerd
    # root), containerd-check (containerd's own test, in its TMPDIR; only below Linux 5.19, where it makes it).
    probes: dict[str, Probe] = {}
    # Keys: containerd-root, kubelet-root, state, install (/usr/local/bin).
    filesystems: dict[str, Filesystem] = {}
    sysctls: dict[str, int] = {}
    sysctl_lines: tuple[ConfLine, ...] = ()
    ptrace_lines: tuple[ConfLine, ...] = ()
    modprobe_lines: tuple[ConfLine, ...] = ()
    files: dict[str, FileState] = {}
    # By path; a path that is not there is absent.
    binaries: dict[str, Binary] = {}
    # Keys: containerd, docker, kubelet, podman and so on, without ".service".
    units: dict[str, Unit] = {}
    packages: dict[str, Package] = {}
    manifest: str = ""
    unfinished: str = ""
    # A change of this node of which no proof was seen since, or whose proof failed.
    unproven: bool = False
    drop_ins: tuple[DropIn, ...] = ()
    # The runtime handlers that its config.toml has, in the order of the file.
    handlers: tuple[str, ...] = ()
    # Of a config.toml that is not as a deploy wrote it: those that are no default, and the few with a value.
    config_keys: tuple[ConfigKey, ...] = ()
    # Where the plugins of CNI are, if not in /opt/cni/bin.
    cni_plugins: str = ""
    # The file of metrics that the check's unit has left and would write no more.
    stale_metrics: str = ""
    snapshots: bool | None = None
    # Where others (Docker, Podman, k3s) have overlays.
    other_layers: tuple[str, ...] = ()
    # How many shims run in each of containerd's namespaces: one for each pod under CRI. None: it was not to be told.
    shims: dict[str, int] | None = None
    other_containerds: tuple[Process, ...] = ()
    # The configuration and the root that containerd.service names on its command line, "" where it names none.
    config_option: str = ""
    root_option: str = ""
    exec_drop_ins: tuple[ExecDropIn, ...] = ()
    # The root that containerd uses now, where that is not the wanted one and holds snapshots or containers.
    other_root: str = ""
    gpu_hooks: tuple[str, ...] = ()
    subuid: tuple[str, ...] = ()
    subgid: tuple[str, ...] = ()
    # IDs from 65536 on in /etc/passwd and /etc/group.
    host_ids: tuple[HostIds, ...] = ()
    kubelet_user: str = ""
    # What getsubids prints for the user kubelet, line by line. Keys: subuid, subgid; none where it was not asked.
    getsubids: dict[str, tuple[str, ...]] = {}
    # The pods with a user namespace, as the kubelet records them, and how many more there are.
    pod_ids: tuple[PodIds, ...] = ()
    pods_untold: int = 0
    # By file system; neither tmpfs, nor the root and its pods, which are probed.
    kubelet_mounts: dict[str, Mounts] = {}
    # None: no process named kubelet runs (k3s and MicroK8s have theirs in one of another name).
    running_kubelet: RunningKubelet | None = None
    # What its files and flags say, or where none runs, config.yaml in its root. Keys: cgroupDriver, maxPods,
    # idsPerPod, failCgroupV1, containerRuntimeEndpoint, and the feature gates.
    kubelet_config: dict[str, str] = {}
    # The cgroup driver that containerd has by its files, where a kubelet works: systemd, cgroupfs, or "" (not known).
    cgroup_driver: str = ""
    zfs_version: str = ""
    kubelet_version: str = ""
    # Whether the kubelet that runs is the one that ran when a change wrote its range: it has the range of before.
    kubelet_is_older: bool = False
    selinux: str = ""
    # By the path of containerd; none where SELinux is not enforced, or could not be asked.
    selinux_domains: dict[str, SelinuxDomain] = {}
    seconds: float | None = None

    @property
    def enforces_selinux(self) -> bool:
        """Whether SELinux refuses here what its policy forbids."""
        return self.selinux.casefold() == "enforcing"

    def as_read_for(self, roots: Mapping[str, str]) -> Node:
        """This node without what was read of other directories than `roots`, whose keys are those of `filesystems`.

        A saved fact may have been read for other settings than those that it is now judged by.
        """
        others = {
            name: there.path
            for name, wanted in roots.items()
            if (there := self.filesystems.get(name)) and there.path.rstrip("/") != wanted.rstrip("/")
        }
        if not others:
            return self
        probes, lost = dict(self.probes), dict[str, Any]()
        if "containerd-root" in others:
            others["overlay"] = others["containerd-root"]
            lost |= {"snapshots": None, "other_root": ""}
        if "kubelet-root" in others:
            lost |= {"kubelet_mounts": {}, "pod_ids": (), "pods_untold": 0}
            if kubelet := self.running_kubelet:
                same = kubelet.root.rstrip("/") == roots["kubelet-root"].rstrip("/")
                lost["running_kubelet"] = kubelet.model_copy(update={"uses_root": same})
            else:
                lost["kubelet_config"] = {}
        for name in others.keys() & probes.keys():
            probes[name] = Probe(result="unknown", step="root", detail=f"the fact was read for {others[name]}")
        filesystems = {name: each for name, each in self.filesystems.items() if name not in others}
        return self.model_copy(update={"probes": probes, "filesystems": filesystems, **lost})

    def to_json(self) -> dict[str, Any]:
        """The node as JSON values; pyinfra prints a fact through this method."""
        return self.model_dump(mode="json")
