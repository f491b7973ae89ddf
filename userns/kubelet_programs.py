"""The programs by which a kubelet finds its range of IDs: getsubids, and getent where it is built statically."""

from __future__ import annotations

from collections.abc import Iterator

from userns.findings import Finding, blocker, note, warning
from userns.node import Node
from userns.tables import GETSUBIDS, KUBELETS, Range
from userns.versions import parse

__all__ = ["findings"]


def findings(node: Node, *, ranged: bool, dies: bool, asks_getent: bool) -> Iterator[Finding]:
    """Which of the two are missing where they are needed.

    `ranged`: kubelet_id_range is set; `dies`: a kubelet of this version does not start where there is a user kubelet
    and no getsubids; `asks_getent`: upstream's is static.
    """
    if "getsubids" not in node.tools and (ranged or (node.kubelet_user and dies)):
        who = "kubelet_id_range is set" if ranged else "there is a user kubelet"
        without = "it does not start" if dies else "it takes its default range, whatever is set"
        cure = "" if ranged else ", or remove the user kubelet if nothing needs it (userdel kubelet)"
        yield blocker(
            "getsubids-missing",
            f"{who}, and the kubelet asks getsubids for its range: without that program {without}. "
            f"{_package(node)}{cure}",
            KUBELETS["dies-without-getsubids"].source,
        )
    if "getent" not in node.tools and (ranged or node.kubelet_user):
        text = (
            "there is no getent, and a kubelet that is built statically (upstream's from 1.38 on) finds no user "
            "kubelet without it and takes its default range. Install it (libc-bin, glibc-common, musl-utils) "
            "where the kubelet's PATH has it"
        )
        yield (warning if asks_getent else note)("getent-missing", text, KUBELETS["asks-getent"].source)


def _package(node: Node) -> str:
    for row in GETSUBIDS:
        if node.os_id not in row.os or not _fits(row.versions, node.os_version):
            continue
        if row.package:
            return f"Install the package {row.package}"
        return f"No package of {node.os_id} {node.os_version} has it: take a newer release of it"
    return (
        "Install it (Debian 12 and later, Ubuntu 24.04: uidmap; Fedora and EL: shadow-utils-subid; Alpine: "
        "shadow-subids; Ubuntu 22.04 has none)"
    )


def _fits(versions: Range | None, version: str) -> bool:
    if versions is None:
        return True
    try:
        return parse(version) in versions
    except ValueError:
        return False
