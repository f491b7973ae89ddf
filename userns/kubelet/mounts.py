"""Volumes of pods that cannot be idmapped: the mounts below the kubelet's root, judged by their file systems.

There are too many to probe each of them, and a probe of an NFS mount may hang: the tables and the versions decide.
"""

from __future__ import annotations

from collections.abc import Iterator

from userns.findings import Finding, note, warning
from userns.idmap import release
from userns.node import Mounts, Node
from userns.tables import BOUNDARIES, FILESYSTEMS
from userns.tables import Filesystem as Row
from userns.versions import Version, parse

__all__ = ["findings"]

_SOURCE = "mount_setattr(2); Kubernetes docs, concepts/workloads/pods/user-namespaces"


def findings(node: Node) -> Iterator[Finding]:
    """The mounts that cannot be idmapped on this kernel, named one by one, and those of which that is not known."""
    kernel = release(node.kernel)
    if kernel is None or kernel < BOUNDARIES["mount_setattr"].since:
        return  # there is nothing that it can idmap, which is told already
    cannot, perhaps = [], []
    for type_, mounts in sorted(node.kubelet_mounts.items()):
        if type_ in _proven(node):
            continue
        row = FILESYSTEMS.get(type_) or FILESYSTEMS.get(type_.partition(".")[0])  # fuse.sshfs is fuse
        if why := _why_not(row, kernel, node.zfs_version):
            cannot.append(f"{_named(mounts)} ({type_}: {why})")
        elif row is None:
            perhaps.append(f"{_named(mounts)} ({type_}: the tables do not know it)")
        elif row.condition and not (row.module_since and node.zfs_version):
            perhaps.append(f"{_named(mounts)} ({type_}: {row.condition})")
    if cannot:
        yield warning(
            "volumes-cannot-idmap",
            f"a pod with hostUsers: false that uses one of these mounts fails (MOUNT_ATTR_IDMAP, invalid argument), "
            f"others are fine: {'; '.join(cannot)}. Keep hostUsers true for such pods, or give them other volumes",
            _SOURCE,
        )
    if perhaps:
        yield note(
            "volumes-may-not-idmap",
            f"whether pods with hostUsers: false can use these mounts cannot be told from here: {'; '.join(perhaps)}",
            _SOURCE,
        )


def _proven(node: Node) -> set[str]:
    """The file systems that this very kernel has idmapped, whatever its version."""
    return {
        place.type
        for name, place in node.filesystems.items()
        if name in node.probes and node.probes[name].result == "ok"
    }


def _why_not(row: Row | None, kernel: Version, zfs: str) -> str:
    if row is None:
        return ""
    if row.since is None:
        return "never"
    if kernel < row.since:
        return f"from Linux {row.since} on, and this is {kernel}"
    if row.module_since and zfs and parse(zfs) < row.module_since:
        return f"from version {row.module_since} of its own on, and this is {zfs}"
    return ""


def _named(mounts: Mounts) -> str:
    more = mounts.count - len(mounts.paths)
    return ", ".join(mounts.paths) + (f" and {more} more" if more > 0 else "")
