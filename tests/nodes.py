"""Nodes to test with: examples, the text that the node script prints for one, and a node after its plan was done."""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256
from typing import Any

from tasks.files import templates
from tasks.settings import load
from userns import changes, paths, planning
from userns.containerd.dropins import path_of
from userns.kubelet import subids
from userns.node import Binary, ConfLine, FileState, Filesystem, Node, Overlay, Package, Probe, Unit
from userns.planning import Plan
from userns.policy import Policy

KUBELET_UID = "64055"
TOOLS = "apt-get awk base64 curl flock getent getsubids gzip modprobe sha256sum systemd-run tar useradd"


def policy(**settings: Any) -> Policy:
    """The policy of these settings, with the lock file of this repository."""
    return load(settings)


def plan(node: Node, **settings: Any) -> Plan:
    """The plan for `node` under these settings."""
    return planning.plan(node, policy(**settings), templates())


def bare(**changed: Any) -> Node:
    """A new Debian 13 machine that can do all of it, and has nothing of it yet; `changed` are fields of it."""
    return _BARE.model_copy(update=changed)


def converged(base: Node | None = None, **settings: Any) -> Node:
    """`base` (else a bare node) as a deploy with these settings leaves it."""
    node = base or bare()
    return done(node, plan(node, **settings))


def drifted(path: str, text: str, mode: str = "644") -> Node:
    """A node that is as it should be but for this file."""
    node = converged()
    return node.model_copy(update={"files": {**node.files, path: file_state(text, mode)}})


_BARE = Node(
    kernel="6.12.48+deb13-amd64",
    machine="x86_64",
    os_id="debian",
    os_version="13",
    systemd="257",
    cgroup="v2",
    tools=tuple(TOOLS.split()),
    overlay=Overlay(state="module"),
    probes={name: Probe(result="ok") for name in ("containerd-root", "kubelet-root", "tmpfs", "overlay")},
    filesystems={
        name: Filesystem(path=path, parent=parent, type="ext4", free_kib=20_000_000)
        for name, path, parent in (
            ("containerd-root", "/var/lib/containerd", "/var/lib"),
            ("kubelet-root", "/var/lib/kubelet", "/var/lib"),
            ("state", "/var/lib/userns-node", "/var/lib"),
            ("install", "/usr/local/bin", "/usr/local/bin"),
        )
    },
    sysctls={"user.max_user_namespaces": 63_000},
    files={path: FileState(kind="absent") for path in paths.MANAGED},
    units={"containerd": Unit()},
    snapshots=False,
    shims={},
)


def file_state(text: str, mode: str = "644") -> FileState:
    """What the fact says of a file with this text that belongs to root."""
    return FileState(kind="file", sha256=sha256(text.encode()).hexdigest(), mode=mode, owner="0:0")


def sub_ids(*lines: str) -> dict[str, Any]:
    """The fields of a node whose /etc/subuid and /etc/subgid hold these lines."""
    state = file_state("".join(f"{line}\n" for line in lines))
    files = {**_BARE.files, paths.SUBUID: state, paths.SUBGID: state}
    return {"subuid": lines, "subgid": lines, "files": files}


def done(node: Node, plan: Plan) -> Node:
    """`node` after every change of `plan`, as the next reading would find it."""
    files, binaries, packages = dict(node.files), dict(node.binaries), dict(node.packages)
    sysctls, unit, units = dict(node.sysctls), node.units.get("containerd", Unit()), dict(node.units)
    fields: dict[str, Any] = {"unfinished": "", "unproven": False}
    for change in plan.changes:
        match change:
            case changes.InstallArtifact(component=component, version=version, sha256=asset, programs=programs):
                for path in programs.values():
                    binaries[path] = Binary(
                        sha256="0" * 64, version=version, recorded=True, component=component, asset=asset
                    )
            case changes.InstallPackage(component=component, package=package, version=version, programs=places):
                packages[package] = Package(version=f"{version}-1", held=True)
                for path in places:
                    binaries[path] = Binary(
                        sha256="0" * 64, version=version, recorded=True, component=component, asset="package"
                    )
            case changes.HoldPackage(package=package):
                packages[package] = packages[package].model_copy(update={"held": True})
            case changes.WriteFile(path=path, content=content, mode=mode):
                files[path] = file_state(content, mode).model_copy(update={"recorded": True})
                fields |= _read_again(node, path, content)
                if path == paths.CONFIG:
                    fields["config_keys"] = ()
                if path == paths.UNIT:
                    ours = {"fragment": path, "limit_nofile": "", "environment": (), "environment_files": ()}
                    unit = unit.model_copy(update=ours)
            case changes.RemoveFile(path=path):
                files[path] = FileState(kind="absent")
                binaries.pop(path, None)
            case changes.RemoveMetrics():
                fields["stale_metrics"] = ""
            case changes.RemoveLeftovers():
                assert node.image
                fields["image"] = node.image.model_copy(update={"leftovers": ()})
            case changes.SetSysctl(key=key, value=value):
                sysctls[key] = value
            case changes.SetMetacopy(value=metacopy):
                state = node.overlay.state
                loaded = "loaded" if state == "module" else state
                fields["overlay"] = Overlay.model_validate({"state": loaded, "metacopy": metacopy})
            case changes.AddKubeletUser():
                fields["kubelet_user"] = KUBELET_UID
            case changes.EnableService(unit="containerd.service"):
                unit = unit.model_copy(update={"enabled": "enabled"})
            case changes.EnableService(unit=name):
                units[name.removesuffix(".service")] = Unit(load="loaded", enabled="enabled")
            case changes.RestartService():
                program = plan.programs["containerd"]
                running = {"load": "loaded", "active": "active", "sub": "running", "exec_start": program}
                unit = unit.model_copy(update=running)
    units["containerd"] = unit
    fields |= {"files": files, "binaries": binaries, "packages": packages, "sysctls": sysctls, "units": units}
    after = node.model_copy(update=fields | {"manifest": "1" * 64})
    return after.model_copy(update={"getsubids": getsubids(after)})


def getsubids(node: Node) -> dict[str, tuple[str, ...]]:
    """What the node script reads of getsubids on such a node."""
    if not node.kubelet_user or "getsubids" not in node.tools:
        return {}

    def printed(lines: tuple[str, ...]) -> tuple[str, ...]:
        owners = ("kubelet", node.kubelet_user)
        ours = [(start, count) for owner, start, count in subids.ranges(lines) if owner in owners]
        return tuple(f"{number}: kubelet {start} {count}" for number, (start, count) in enumerate(ours))

    return {"subuid": printed(node.subuid), "subgid": printed(node.subgid)}


def _read_again(node: Node, path: str, content: str) -> dict[str, Any]:
    """What else than its digest the fact reads of a file."""
    lines = tuple(content.splitlines())
    if path == paths.SYSCTL:
        others = tuple(each for each in node.sysctl_lines if each.file != path)
        ours = (ConfLine(file=path, line=line) for line in lines if line.startswith("user."))
        return {"sysctl_lines": (*others, *ours)}
    return {paths.SUBUID: {"subuid": lines}, paths.SUBGID: {"subgid": lines}}.get(path, {})


def answer(node: Node) -> str:
    """What the node script prints on such a node."""
    return "".join("\t".join(record) + "\n" for record in _records(node))


def _records(node: Node) -> Iterator[tuple[str, ...]]:
    yield "userns-node-begin", "1"
    yield "kernel", node.kernel, node.machine
    yield "os", "ID", node.os_id
    yield "os", "VERSION_ID", f'"{node.os_version}"'
    yield "user", "0" if node.root else "1000"
    for name, parts in node.own_ids.items():
        yield from (("own-ids", name, str(first), str(count)) for first, count in parts)
    yield "container", node.container
    yield "cgroup", node.cgroup
    if node.selinux:
        yield "selinux", node.selinux
    yield "tools", *node.tools
    for key, value in node.sysctls.items():
        yield "sysctl-live", key.replace(".", "/"), str(value)
    yield "overlay", node.overlay.state, node.overlay.metacopy, node.overlay.default
    for name, place in node.filesystems.items():
        yield "filesystem", name, place.path, place.parent, name
        yield "mount", name, place.type
        if place.free_kib is not None:
            yield "space", str(place.free_kib), "1024", place.type, f".{place.parent}"
    yield from (("modprobe", each.file, each.line) for each in node.modprobe_lines)
    yield from (("sysctl", each.file, each.line) for each in node.sysctl_lines)
    for drop_in in node.drop_ins:
        yield "drop-in", drop_in.path, "unreadable" if drop_in.unreadable else "readable"
        if drop_in.version is not None:
            yield "drop-in-version", drop_in.path, str(drop_in.version)
        for table in drop_in.tables:
            yield "table", drop_in.path, *(path_of(table) or ())
        yield from (("drop-in-has", drop_in.path, *path) for path in drop_in.sets)
        yield from (("drop-in-key", drop_in.path, each.value, *each.path) for each in drop_in.keys)
    if node.cni_plugins:
        yield "cni-plugins", node.cni_plugins
    yield from (("config-key", each.state, each.value, *each.path) for each in node.config_keys)
    for kind, lines in (("subuid", node.subuid), ("subgid", node.subgid)):
        for line in lines:
            yield (kind, line) if line.isascii() else (kind, line.encode().hex(), "hex")
    if node.kubelet_user:
        yield "kubelet-user", f"kubelet:x:{node.kubelet_user}:{node.kubelet_user}::/:/usr/sbin/nologin"
    for name, printed in node.getsubids.items():
        yield from (("getsubids", name, line) for line in printed)
    for ids in node.host_ids:
        yield "host-ids", ids.kind, ids.name, str(ids.first), str(ids.last), str(ids.count)
    for pod in node.pod_ids:
        yield "pod-ids", pod.pod, *("" if each is None else str(each) for each in (pod.start, pod.length))
    if node.pods_untold:
        yield "pods-untold", str(node.pods_untold)
    for type_, mounts in node.kubelet_mounts.items():
        yield from (("kubelet-mount", type_, path) for path in mounts.paths)
        yield "kubelet-mounts", type_, str(mounts.count)
    yield from (("kubelet-config", name, value) for name, value in node.kubelet_config.items())
    if node.running_kubelet:
        yield "kubelet-root", node.running_kubelet.root, "yes" if node.running_kubelet.uses_root else "no"
    if node.cgroup_driver:
        yield "cgroup-driver", node.cgroup_driver
    if node.zfs_version:
        yield "zfs-version", f"{node.zfs_version}-1"
    if node.kubelet_version:
        yield "kubelet-version", f"Kubernetes v{node.kubelet_version}"
    for path, state in node.files.items():
        yield "file", path, state.kind
        if state.kind != "absent":
            yield "stat", state.mode, state.owner, path
        if state.sha256:
            yield "sha256", state.sha256, path
        if state.recorded:
            yield "recorded-file", path, state.sha256
    if node.manifest:
        yield "sha256", node.manifest, paths.MANIFEST
    for path, binary in node.binaries.items():
        if binary.recorded:
            yield "binary", path, binary.component, binary.version, binary.sha256, binary.asset
        else:
            yield "sha256", binary.sha256, path
            yield "program", path, f"{binary.component} version {binary.version}"
    if node.snapshots is not None:
        yield "snapshots", "yes" if node.snapshots else "no"
    yield from (("layers", place) for place in node.other_layers)
    if node.shims is not None:
        yield from (("shims", namespace, str(count)) for namespace, count in node.shims.items())
        yield ("shims-read",)
    for each in node.other_containerds:
        yield "containerd-process", str(each.pid), each.program, each.unit, "root" if each.uses_root else "other"
    if node.config_option:
        yield "containerd-options", node.config_option
    for started in node.exec_drop_ins:
        yield "exec-drop-in", started.path, started.program, started.config, started.root
    yield from (("gpu-hook", name) for name in node.gpu_hooks)
    if node.systemd:
        yield "systemd", f"systemd {node.systemd} ({node.systemd}.9-1)"
    for name, unit in node.units.items():
        for field, text in (
            ("LoadState", unit.load),
            ("ActiveState", unit.active),
            ("SubState", unit.sub),
            ("UnitFileState", unit.enabled),
            ("FragmentPath", unit.fragment),
            ("ExecStart", unit.exec_start),
        ):
            yield "unit", f"{name}.service", field, text
        if unit.limit_nofile:
            yield "unit-setting", "LimitNOFILE", unit.limit_nofile
        yield from (("unit-setting", "Environment", each) for each in unit.environment)
        yield from (("unit-setting", "EnvironmentFile", each) for each in unit.environment_files)
    for name, package in node.packages.items():
        yield "package", name, package.version, "hi " if package.held else "ii "
    if node.unfinished:
        yield "unfinished", node.unfinished
    if node.unproven:
        yield "unproven", "yes"
    for name, probe in node.probes.items():
        yield "probe", name, probe.result, probe.step, probe.errno, probe.detail
    yield ("userns-node-end",)
