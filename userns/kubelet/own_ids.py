"""The IDs that a node has itself: a container in a user namespace of its own has some only, and pods get no others."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from userns.findings import Finding, blocker
from userns.kubelet.idrange import ID_SPACE, IdRange, free_range, shown

__all__ = ["findings", "missing"]

_SOURCE = "user_namespaces(7); kubernetes/kubernetes pkg/kubelet/userns/userns_manager.go: its AllocationMap is random"


def findings(
    own: Mapping[str, tuple[IdRange, ...]],
    taken: IdRange,
    others: Iterable[IdRange],
    *,
    ids_per_pod: int,
    max_pods: int,
) -> Iterator[Finding]:
    """Whether a node with the IDs `own` (as userns.node has them) can give pods those of the range `taken`.

    `others`: what belongs to somebody else on the node.
    """
    # The initial user namespace has all IDs but the last, which is none.
    wanted = taken[0], min(taken[1], ID_SPACE - 1 - taken[0])
    for name, parts in own.items():
        first = missing(wanted, parts)
        if first is None:
            continue
        free = free_range([*_gaps(parts), *others], ids_per_pod=ids_per_pod, max_pods=max_pods)
        give = f"Set kubelet_id_range to one that it has, such as {free}, or give" if free else "Give"
        yield blocker(
            "kubelet-id-range-not-mapped",
            f"the kubelet gives pods IDs anywhere from {shown(taken)}, and this node, a container in a user namespace "
            f"of its own, has {', '.join(map(shown, parts))} only (/proc/self/{name}_map), not {first}: a pod that "
            f"gets IDs which are not there fails. {give} this container a larger ID map (LXC: lxc.idmap), or take a "
            "virtual machine, or a container that shares its host's user namespace",
            _SOURCE,
        )
        return


def missing(wanted: IdRange, parts: Iterable[IdRange]) -> int | None:
    """The first ID of `wanted` that is in none of the parts, or None where they have all of it."""
    first = wanted[0]
    for start, count in sorted(parts):
        if start <= first < start + count:
            first = start + count
    return first if first < sum(wanted) else None


def _gaps(parts: Iterable[IdRange]) -> Iterator[IdRange]:
    """What is between the parts, before and after them."""
    end = 0
    for start, count in sorted(parts):
        if start > end:
            yield end, start - end
        end = max(end, start + count)
    yield end, ID_SPACE - end
