"""The programs by which a kubelet finds its range of IDs: getsubids, and getent where it is built statically."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from userns.findings import Finding, blocker, note, warning
from userns.kubelet.idrange import ID_SPACE, IdRange, some
from userns.node import Node
from userns.tables import GETSUBIDS, KUBELETS

__all__ = ["answer_problem", "findings", "range_in"]


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


def answer_problem(answer: Mapping[str, tuple[str, ...]]) -> str:
    """What the kubelet cannot read in the answer of getsubids, its lines by `subuid` and `subgid`; "" if it can."""
    if not answer:
        return "getsubids was not asked"
    uids, gids = answer.get("subuid", ()), answer.get("subgid", ())
    if not uids and not gids:
        return "getsubids prints no range for it, and it takes exactly one"
    if uids != gids:
        return f"its range of UIDs ({_ranges(uids)}) is not that of GIDs ({_ranges(gids)})"
    if len(uids) != 1:
        return f"there are {len(uids)} ranges ({_ranges(uids)}), and it takes exactly one"
    return "" if range_in(uids[0]) else f"getsubids prints {uids[0]!r}, which is no range"


def range_in(line: str) -> IdRange | None:
    """The range in a line of getsubids (`0: kubelet 65536 7208960`); None where there is none."""
    match = re.fullmatch(r"\s*\S+\s+\S+\s+(\d{1,10})\s+(\d{1,10})\s*", line, re.ASCII)
    ids = (int(match[1]), int(match[2])) if match else None
    return ids if ids and max(ids) < ID_SPACE else None


def _ranges(lines: tuple[str, ...]) -> str:
    return some([line.partition(": ")[2] or line for line in lines]) if lines else "none"


def _package(node: Node) -> str:
    for row in GETSUBIDS:
        if node.os_id not in row.os or not (row.versions is None or row.versions.fits(node.os_version)):
            continue
        if row.package:
            return f"Install the package {row.package}"
        return f"No package of {node.os_id} {node.os_version} has it: take a newer release of it"
    return (
        "Install it (Debian 12 and later, Ubuntu 24.04: uidmap; Fedora and EL: shadow-utils-subid; Alpine: "
        "shadow-subids; Ubuntu 22.04 has none)"
    )
