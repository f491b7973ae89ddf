"""Who has which IDs on a node, by /etc/subuid, /etc/subgid and its users; whether the two can be written anew."""

from __future__ import annotations

import re
from collections.abc import Iterator
from hashlib import sha256

from userns import paths
from userns.findings import Finding, blocker
from userns.kubelet.idrange import IdRange
from userns.node import Node

__all__ = ["accounts", "differ", "kubelets", "of_others", "owners", "ranges", "unreadable", "whole"]


def whole(node: Node, file: str) -> bool:
    """Whether the lines that were read of /etc/subuid or /etc/subgid are the file, byte for byte, or there is none.

    The file is written anew with every line in it: one that was not read as it is would be another user's loss.
    """
    state = node.files.get(file)
    if state is None or state.kind == "absent":
        return True
    text = "".join(f"{line}\n" for line in _lines(node, file))
    texts = (text, text.removesuffix("\n"))
    return state.sha256 in [sha256(each.encode(errors="replace")).hexdigest() for each in texts]


def unreadable(node: Node) -> Iterator[Finding]:
    """The files that cannot be written anew without harm."""
    for file in (paths.SUBUID, paths.SUBGID):
        if not whole(node, file):
            yield blocker(
                "sub-id-unreadable",
                f"{file} could not be read byte for byte ({_oddity(node, file)}), and rewriting it could damage other "
                "users' lines: it is not touched, so the kubelet does not get kubelet_id_range. Make it a file of "
                "plain text, or write the kubelet's line there yourself and take the setting out",
            )


def ranges(lines: tuple[str, ...]) -> Iterator[tuple[str, int, int]]:
    """Owner, start and count of each line that has them; the owner is a name or a number."""
    for line in lines:
        owner, *numbers = line.strip().split(":")
        if len(numbers) == 2 and all(re.fullmatch(r"\d{1,10}", each, re.ASCII) for each in numbers):
            yield owner, int(numbers[0]), int(numbers[1])


def owners(kubelet_user: str) -> frozenset[str]:
    """By which names a line is the kubelet's: its name, and its user's number ("": there is no such user yet).

    A line without a name is nobody's, so that its range is not the kubelet's either.
    """
    return frozenset({"kubelet", kubelet_user} - {""})


def kubelets(node: Node) -> tuple[IdRange | None, IdRange | None]:
    """The kubelet's range in each of the two files; None where it has none, or several."""

    def of(file: str) -> IdRange | None:
        ours = owners(node.kubelet_user)
        found = [(start, count) for owner, start, count in ranges(_lines(node, file)) if owner in ours]
        return found[0] if len(found) == 1 else None

    return of(paths.SUBUID), of(paths.SUBGID)


def differ(node: Node, wanted: IdRange) -> bool:
    """Whether a kubelet that starts now finds another range, or none, than it is to find."""
    return not node.kubelet_user or kubelets(node) != (wanted, wanted)


def of_others(node: Node) -> Iterator[tuple[IdRange, str]]:
    """The ranges of everybody but the kubelet, and whose each is, in words."""
    ours = owners(node.kubelet_user)
    for file in (paths.SUBUID, paths.SUBGID):
        for owner, start, count in ranges(_lines(node, file)):
            if owner not in ours:
                yield (start, count), f"{file} gives {start} to {start + count - 1} to {owner or 'a user without name'}"


def accounts(node: Node) -> Iterator[tuple[IdRange, str]]:
    """The users and groups from 65536 on that the node's own files have, in words."""
    for ids in node.host_ids:
        file = "/etc/passwd" if ids.kind == "user" else "/etc/group"
        who = f"{ids.kind} {ids.name} ({ids.first})" if ids.name else f"{ids.count} more, {ids.first} to {ids.last}"
        yield (ids.first, ids.last - ids.first + 1), f"{file} has {who}"


def _lines(node: Node, file: str) -> tuple[str, ...]:
    return node.subuid if file == paths.SUBUID else node.subgid


def _oddity(node: Node, file: str) -> str:
    kind = node.files[file].kind
    return f"it is a {kind}" if kind != "file" else "it has bytes that are no text, or changed while it was read"
