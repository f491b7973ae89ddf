"""What the node script tells of the kubelet, read into the fields of a `Node`. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from userns.node import HostIds, Mounts, PodIds, RunningKubelet
from userns.reading.records import ByKind, one, pairs, version_in

__all__ = ["READERS"]


def _kubelet_user(by_kind: ByKind) -> str:
    """Its uid; the record is a line of the passwd database."""
    fields = one("kubelet-user")(by_kind).split(":")
    return fields[2] if len(fields) > 2 else ""


def _getsubids(by_kind: ByKind) -> dict[str, tuple[str, ...]]:
    """What it printed, for both files where there is a user to ask for and a program to ask."""
    if not _kubelet_user(by_kind) or not any("getsubids" in fields for fields in by_kind.get("tools", [])):
        return {}
    lines = by_kind.get("getsubids", [])
    return {name: tuple(line for kind, line in lines if kind == name) for name in ("subuid", "subgid")}


def _host_ids(by_kind: ByKind) -> tuple[HostIds, ...]:
    """In the order of the files, those without a name last."""
    found = [
        HostIds.model_validate(
            {"kind": kind, "name": name, "first": int(first), "last": int(last), "count": int(count)}
        )
        for kind, name, first, last, count in by_kind.get("host-ids", [])
    ]
    return tuple(sorted(found, key=lambda each: (each.kind != "user", each.count > 1)))


def _pod_ids(by_kind: ByKind) -> tuple[PodIds, ...]:
    def number(text: str) -> int | None:
        return int(text) if re.fullmatch(r"\d{1,10}", text, re.ASCII) else None

    return tuple(
        PodIds(pod=pod, start=number(start), length=number(length)) for pod, start, length in by_kind.get("pod-ids", [])
    )


def _kubelet_mounts(by_kind: ByKind) -> dict[str, Mounts]:
    paths = by_kind.get("kubelet-mount", [])
    return {
        type_: Mounts(count=int(count), paths=tuple(path for each, path in paths if each == type_))
        for type_, count in sorted(by_kind.get("kubelet-mounts", []))
    }


def _running_kubelet(by_kind: ByKind) -> RunningKubelet | None:
    for root, same in by_kind.get("kubelet-root", []):
        return RunningKubelet(root=root, uses_root=same == "yes")
    return None


_TRUTH = {"1": "true", "t": "true", "0": "false", "f": "false"}  # strconv.ParseBool, in lower case


def _config(by_kind: ByKind) -> dict[str, str]:
    """Of a kubelet's files the last one counts, and flags win over all of them; of gates each flag adds its own."""
    flags = {name: value for name, value in by_kind.get("kubelet-flag", []) if value and name != "featureGates"}
    if fails := flags.get("failCgroupV1", "").lower():
        flags["failCgroupV1"] = _TRUTH.get(fails, fails)
    for gates in (value for name, value in by_kind.get("kubelet-flag", []) if name == "featureGates"):
        for gate, _, on in (each.partition("=") for each in gates.split(",")):
            if gate.strip() in ("UserNamespacesSupport", "UserNamespacesStatelessPodsSupport"):
                told = on.strip().lower()
                flags[gate.strip()] = _TRUTH.get(told, told)
    return pairs(by_kind, "kubelet-config") | flags


READERS: Mapping[str, Callable[[ByKind], Any]] = {
    "host_ids": _host_ids,
    "kubelet_user": _kubelet_user,
    "getsubids": _getsubids,
    "pod_ids": _pod_ids,
    "pods_untold": lambda by_kind: int(one("pods-untold")(by_kind) or 0),
    "kubelet_mounts": _kubelet_mounts,
    "running_kubelet": _running_kubelet,
    "kubelet_config": _config,
    "kubelet_is_older": lambda by_kind: bool(by_kind.get("kubelet-older")),
    "cgroup_driver": one("cgroup-driver"),
    "kubelet_version": lambda by_kind: version_in(one("kubelet-version")(by_kind)),
}
