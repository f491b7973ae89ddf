"""The records that the node script prints, read into a `Node`. Pure: text in, a checked value out.

A record of a kind that is not known is ignored.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from pydantic import ValidationError

from userns import paths
from userns.containerd import runtime_handlers
from userns.containerd.merge import spelled
from userns.containerd.reserved_keys import value_of
from userns.node import (
    Binary,
    ConfigKey,
    ConfLine,
    DropIn,
    ExecDropIn,
    FileState,
    Filesystem,
    Image,
    ImageKernel,
    Node,
    Overlay,
    Package,
    Probe,
    Process,
    ReservedKey,
    SelinuxDomain,
    Unit,
    without_prefixes,
)
from userns.reading import kubelet
from userns.reading.records import ByKind, ReadingError, one, pairs, records, version_in
from userns.versions import upstream

_PROBES = ("containerd-root", "kubelet-root", "tmpfs", "overlay")
_UNIT_FIELDS = {
    "LoadState": "load",
    "ActiveState": "active",
    "SubState": "sub",
    "UnitFileState": "enabled",
    "FragmentPath": "fragment",
    "ExecStart": "exec_start",
}


def read(lines: Iterable[str]) -> Node:
    """The node that the script's output describes.

    Raises ReadingError, and nothing else, whatever the text is.
    """
    by_kind: ByKind = {}
    for kind, *fields in records(list(lines)):
        by_kind.setdefault(kind, []).append(tuple(fields))
    for why in by_kind.get("no-units", []):
        raise ReadingError(
            f"systemd does not say what runs on this node ({' '.join(why)}). Is it overloaded? Run again"
        )
    values: dict[str, Any] = {}
    for name, reader in _READERS.items():
        try:
            values[name] = reader(by_kind)
        except (ValueError, LookupError, TypeError) as error:
            raise ReadingError(f"the node script's answer on {name} makes no sense: {error}") from error
    try:
        return Node(**values)
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())
        raise ReadingError(f"the node script's answer makes no sense: {wrong}") from error


def _image(by_kind: ByKind) -> Image | None:
    """An image's kernels, the newest first."""
    if "image" not in by_kind:
        return None
    options: dict[str, dict[str, str]] = {}
    for release, option, value in by_kind.get("image-config", []):
        options.setdefault(release, {})[option] = value
    found = [
        ImageKernel.model_validate({"release": release, "overlay": overlay, "config": options.get(release, {})})
        for release, overlay in by_kind.get("image-kernel", [])
    ]
    kernels = tuple(sorted(found, key=lambda each: _release_order(each.release), reverse=True))
    epoch = one("image-epoch")(by_kind)
    return Image(
        kernels=kernels,
        epoch=int(epoch) if re.fullmatch(r"[0-9]{1,10}", epoch) else None,
        leftovers=tuple(name for (name,) in by_kind.get("image-leftover", [])),
    )


def _release_order(release: str) -> list[tuple[int, str]]:
    """Numbers as numbers: 6.12.9 is older than 6.12.48, and 6.1.0-9 than 6.1.0-48."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"[^0-9A-Za-z]+", release)]


def _kernel(by_kind: ByKind) -> str:
    if image := _image(by_kind):
        return image.kernels[0].release if image.kernels else ""
    kernel = one("kernel")(by_kind)
    if upstream(kernel) is None:
        raise ValueError(f"{kernel!r} is no kernel release such as 6.12.5")
    return kernel


def _os(name: str) -> Callable[[ByKind], str]:
    return lambda by_kind: pairs(by_kind, "os").get(name, "").strip("\"'")


def _systemd(by_kind: ByKind) -> str:
    match = re.search(r"\d+", one("systemd")(by_kind))
    return match[0] if match else ""


def _strings(kind: str) -> Callable[[ByKind], tuple[str, ...]]:
    return lambda by_kind: tuple(fields[0] for fields in by_kind.get(kind, []))


def _own_ids(by_kind: ByKind) -> dict[str, tuple[tuple[int, int], ...]]:
    found: dict[str, tuple[tuple[int, int], ...]] = {}
    for name, first, count in by_kind.get("own-ids", []):
        found[name] = (*found.get(name, ()), (int(first), int(count)))
    return found


def _overlay(by_kind: ByKind) -> Overlay:
    for state, *values in by_kind.get("overlay", []):
        known = (each if each in ("Y", "N") else "" for each in values)
        return Overlay.model_validate({"state": state, **dict(zip(("metacopy", "default"), known, strict=False))})
    return Overlay()


def _probes(by_kind: ByKind) -> dict[str, Probe]:
    probes = {name: Probe(result="unknown", detail="the probe gave no answer") for name in _PROBES}
    for name, result, step, errno, detail in by_kind.get("probe", []):
        probes[name] = Probe.model_validate({"result": result, "step": step, "errno": errno, "detail": detail})
    return probes


def _filesystems(by_kind: ByKind) -> dict[str, Filesystem]:
    mounts = pairs(by_kind, "mount")
    read_only = {fields[0] for fields in by_kind.get("mount", []) if fields[2:] == ("ro",)}
    space = {fields[-1].removeprefix("."): fields for fields in by_kind.get("space", [])}
    found = {}
    for name, path, parent, mount in by_kind.get("filesystem", []):
        blocks, size, type_, *_ = space.get(parent, ("", "", "", ""))
        free = int(blocks) * int(size) // 1024 if blocks.isdecimal() and size.isdecimal() else None
        found[name] = Filesystem(
            path=path, parent=parent, type=mounts.get(mount, type_), free_kib=free, read_only=mount in read_only
        )
    return found


def _sysctls(by_kind: ByKind) -> dict[str, int]:
    values = pairs(by_kind, "sysctl-live")
    return {key.replace("/", "."): int(value) for key, value in values.items() if re.fullmatch(r"-?\d{1,19}", value)}


def _sysctl_lines(key: str) -> Callable[[ByKind], tuple[ConfLine, ...]]:
    """In the order in which they take effect: by file name over all directories, sysctl.conf last."""

    def lines(by_kind: ByKind) -> tuple[ConfLine, ...]:
        found = [
            ConfLine(file=file, line=line) for file, line in by_kind.get("sysctl", []) if key in line or "#" in line
        ]
        return tuple(sorted(found, key=lambda each: (each.file == "/etc/sysctl.conf", each.file.rpartition("/")[2])))

    return lines


def _selinux_domains(by_kind: ByKind) -> dict[str, SelinuxDomain]:
    return {
        program: SelinuxDomain(context=context, denied=tuple(" ".join(each.split(":")) for each in denied.split()))
        for program, context, denied in by_kind.get("selinux-domain", [])
    }


def _modprobe_lines(by_kind: ByKind) -> tuple[ConfLine, ...]:
    found = []
    for file, line in by_kind.get("modprobe", []):
        words = line.split()
        about = words[1:2] if words[:1] != ["alias"] else words[1:3]
        if file != paths.MODPROBE and (words[:1] == ["#"] or {"overlay", "fs-overlay"} & set(about)):
            found.append(ConfLine(file=file, line=line))
    return tuple(found)


def _files(by_kind: ByKind) -> dict[str, FileState]:
    digests = {fields[1]: fields[0] for fields in by_kind.get("sha256", [])}
    stats = {path: (mode, owner) for mode, owner, path in by_kind.get("stat", [])}
    recorded = {(path, digest) for path, digest in by_kind.get("recorded-file", [])}
    found = {}
    for path, kind in by_kind.get("file", []):
        mode, owner = stats.get(path, ("", ""))
        digest = digests.get(path, "") if kind == "file" else ""
        known = bool(digest) and (path, digest) in recorded
        found[path] = FileState.model_validate(
            {"kind": kind, "sha256": digest, "mode": _octal(mode), "owner": owner, "recorded": known}
        )
    return found


def _octal(mode: str) -> str:
    """`-rwxr-xr-x`, which `ls` says where there is no `stat`, as `755`."""
    if len(mode) < 10:
        return mode
    bits = sum(1 << (8 - place) for place, letter in enumerate(mode[1:10]) if letter not in "-ST")
    bits |= sum(1 << (11 - place) for place in range(3) if mode[3 + 3 * place] in "sStT")
    return f"{bits:o}"


def _binaries(by_kind: ByKind) -> dict[str, Binary]:
    digests = {fields[1]: fields[0] for fields in by_kind.get("sha256", [])}
    found = {
        path: Binary(sha256=digest, version=version, recorded=True, component=component, asset=asset)
        for path, component, version, digest, asset in by_kind.get("binary", [])
    }
    for path, text in by_kind.get("program", []):
        name = path.rpartition("/")[2]
        component = name if name in ("runc", "crun") else "containerd"
        found[path] = Binary(sha256=digests.get(path, ""), version=version_in(text), component=component)
    return found


def _units(by_kind: ByKind) -> dict[str, Unit]:
    found: dict[str, dict[str, Any]] = {}
    for name, field, value in by_kind.get("unit", []):
        if field in _UNIT_FIELDS:
            unit = found.setdefault(name.rpartition(".")[0] or name, {})
            unit.setdefault(_UNIT_FIELDS[field], value)
    for setting, value in by_kind.get("unit-setting", []):
        unit = found.setdefault("containerd", {})
        match setting:
            case "LimitNOFILE":
                unit["limit_nofile"] = value
            case "Environment":
                unit["environment"] = (*unit.get("environment", ()), value)
            case "EnvironmentFile":
                unit["environment_files"] = (*unit.get("environment_files", ()), value)
    return {name: Unit(**fields) for name, fields in found.items()}


def _packages(by_kind: ByKind) -> dict[str, Package]:
    """Those that are installed: dpkg's second letter; its first is "h" for a held one."""
    return {
        name: Package(version=version, held=status[0] == "h")
        for name, version, status in by_kind.get("package", [])
        if status[1:2] == "i"
    }


def _manifest(by_kind: ByKind) -> str:
    return {fields[1]: fields[0] for fields in by_kind.get("sha256", [])}.get(paths.MANIFEST, "")


def _handlers(by_kind: ByKind) -> tuple[str, ...]:
    return runtime_handlers.of_tables(
        spelled(tuple(parts)) for path, *parts in by_kind.get("table", []) if path == paths.CONFIG
    )


def _config_keys(by_kind: ByKind) -> tuple[ConfigKey, ...]:
    return tuple(
        ConfigKey.model_validate({"path": tuple(path), "value": value, "state": state})
        for state, value, *path in by_kind.get("config-key", [])
        if path
    )


def _version(value: object) -> int | None:
    return value if type(value) is int and 0 <= value < 10**9 else None


def _drop_ins(by_kind: ByKind) -> tuple[DropIn, ...]:
    versions = {path: value_of(value) for path, value in by_kind.get("drop-in-version", [])}
    tables: dict[str, list[str]] = {}
    for path, *parts in by_kind.get("table", []):
        tables.setdefault(path, []).append(spelled(tuple(parts)))
    keys: dict[str, list[ReservedKey]] = {}
    for path, value, *key in by_kind.get("drop-in-key", []):
        keys.setdefault(path, []).append(ReservedKey(path=tuple(key), value=value))
    sets: dict[str, list[tuple[str, ...]]] = {}
    for path, *key in by_kind.get("drop-in-has", []):
        sets.setdefault(path, []).append(tuple(key))
    return tuple(
        DropIn(
            path=path,
            version=_version(versions.get(path)),
            tables=tuple(dict.fromkeys(tables.get(path, []))),
            sets=tuple(dict.fromkeys(sets.get(path, []))),
            keys=tuple(keys.get(path, [])),
            unreadable=state == "unreadable",
        )
        for path, state in by_kind.get("drop-in", [])
    )


def _sub_ids(kind: str) -> Callable[[ByKind], tuple[str, ...]]:
    """Whole lines. One that is not plain ASCII comes as the hexadecimal numbers of its bytes."""

    def line(text: str, form: str = "") -> str:
        return bytes.fromhex(text).decode(errors="replace") if form == "hex" else text

    return lambda by_kind: tuple(line(*fields) for fields in by_kind.get(kind, []))


def _snapshots(by_kind: ByKind) -> bool | None:
    return {"yes": True, "no": False}.get(one("snapshots")(by_kind))


def _shims(by_kind: ByKind) -> dict[str, int] | None:
    """None unless the node looked, and as root: another user is not told what runs."""
    if "shims-read" not in by_kind or one("user")(by_kind) != "0":
        return None
    return {namespace: int(count) for namespace, count in by_kind.get("shims", [])}


def _other_containerds(by_kind: ByKind) -> tuple[Process, ...]:
    return tuple(
        Process(pid=int(pid), program=program, unit=unit, uses_root=uses == "root")
        for pid, program, unit, uses in by_kind.get("containerd-process", [])
    )


def _exec_drop_ins(by_kind: ByKind) -> tuple[ExecDropIn, ...]:
    return tuple(
        ExecDropIn(path=path, program=without_prefixes(program), config=config, root=root)
        for path, program, config, root in by_kind.get("exec-drop-in", [])
    )


def _seconds(by_kind: ByKind) -> float | None:
    times = [float(fields[0]) for fields in by_kind.get("uptime", [])]
    took = times[-1] - times[0] if len(times) > 1 else math.nan
    return round(took, 2) if math.isfinite(took) else None


_READERS: Mapping[str, Callable[[ByKind], Any]] = {
    **kubelet.READERS,
    "kernel": _kernel,
    "machine": lambda by_kind: one("image")(by_kind) or one("kernel", 1)(by_kind),
    "image": _image,
    "os_id": _os("ID"),
    "os_version": _os("VERSION_ID"),
    "container": lambda by_kind: one("container")(by_kind) or "none",
    "systemd": _systemd,
    "cgroup": lambda by_kind: one("cgroup")(by_kind) or "unknown",
    "tools": lambda by_kind: tuple(name for fields in by_kind.get("tools", []) for name in fields),
    "root": lambda by_kind: one("user")(by_kind) == "0",
    "own_ids": _own_ids,
    "overlay": _overlay,
    "probes": _probes,
    "filesystems": _filesystems,
    "sysctls": _sysctls,
    "sysctl_lines": _sysctl_lines("user_namespaces"),
    "ptrace_lines": _sysctl_lines("ptrace_scope"),
    "modprobe_lines": _modprobe_lines,
    "files": _files,
    "binaries": _binaries,
    "units": _units,
    "packages": _packages,
    "manifest": _manifest,
    "unfinished": one("unfinished"),
    "unproven": lambda by_kind: one("unproven")(by_kind) == "yes",
    "drop_ins": _drop_ins,
    "handlers": _handlers,
    "config_keys": _config_keys,
    "cni_plugins": one("cni-plugins"),
    "stale_metrics": one("stale-metrics"),
    "snapshots": _snapshots,
    "other_layers": _strings("layers"),
    "shims": _shims,
    "other_containerds": _other_containerds,
    "config_option": one("containerd-options"),
    "root_option": one("containerd-options", 1),
    "exec_drop_ins": _exec_drop_ins,
    "other_root": one("other-root"),
    "gpu_hooks": _strings("gpu-hook"),
    "subuid": _sub_ids("subuid"),
    "subgid": _sub_ids("subgid"),
    "zfs_version": lambda by_kind: version_in(one("zfs-version")(by_kind)),
    "selinux": one("selinux"),
    "selinux_domains": _selinux_domains,
    "seconds": _seconds,
}
