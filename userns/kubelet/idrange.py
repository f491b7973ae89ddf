"""The kubelet's range of user IDs: what the kubelet itself checks before it starts, checked before it has to.

Rules: Kubernetes pkg/kubelet/userns/userns_manager.go and kubelet_pods.go; a wrong range stops the kubelet.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

__all__ = [
    "ID_BLOCK",
    "ID_SPACE",
    "MAX_PODS",
    "SHOWN",
    "IdRange",
    "capacity_problem",
    "free_range",
    "inside",
    "overlap",
    "range_problems",
    "shown",
    "some",
]

# Start and count.
IdRange = tuple[int, int]

ID_BLOCK = 65536
MAX_PODS = 110  # KubeletConfiguration's default
# User IDs are 32 bits wide. A range must end below the last one: 4294967295 is (uid_t)-1, "no user", and the pod
# that gets it fails with EINVAL for ever (kubernetes/kubernetes#139916).
ID_SPACE = 2**32
# How many names a finding lists.
SHOWN = 5


def range_problems(start: int, count: int, *, ids_per_pod: int, max_pods: int) -> list[str]:
    """What the kubelet would refuse in the range `(start, count)`, each with the nearest value that it takes."""
    problems = []
    if start % ids_per_pod or start < ids_per_pod:
        good = max(round(start / ids_per_pod), 1) * ids_per_pod
        problems.append(
            f"the start {start} must be a multiple of ids_per_pod ({ids_per_pod}) and not below it: try {good}"
        )
    if count % ids_per_pod:
        good = -(-count // ids_per_pod) * ids_per_pod
        problems.append(f"the count {count} must be a multiple of ids_per_pod ({ids_per_pod}): try {good}")
    if count // ids_per_pod < max_pods:
        problems.append(
            f"the count {count} has room for {max(count // ids_per_pod, 0)} pods and max_pods is {max_pods}: "
            f"it takes {max_pods * ids_per_pod}, or a lower max_pods"
        )
    if start + count >= ID_SPACE - 1:
        problems.append(f"the range ends at {start + count} and must end below {ID_SPACE - 1}: choose a lower start")
    return problems


def capacity_problem(*, ids_per_pod: int, max_pods: int) -> str | None:
    """Why no range at all can serve this many pods, or None.

    The first block belongs to the host, and the last one ends in the ID that no process may have.
    """
    room = (ID_SPACE - 2) // ids_per_pod - 1
    if max_pods <= room:
        return None
    return f"32-bit user IDs have room for {room} pods of {ids_per_pod} IDs each: lower max_pods or ids_per_pod"


def overlap(one: IdRange, other: IdRange) -> bool:
    """Whether the two have an ID in common."""
    return bool(one[1] and other[1]) and one[0] < sum(other) and other[0] < sum(one)


def inside(inner: IdRange, outer: IdRange) -> bool:
    """Whether every ID of the one is in the other."""
    return outer[0] <= inner[0] and sum(inner) <= sum(outer)


def free_range(taken: Iterable[IdRange], *, ids_per_pod: int, max_pods: int) -> IdRange | None:
    """The lowest range for so many pods that is nobody's, or None where there is none left."""
    start, count = ids_per_pod, ids_per_pod * max_pods
    for each in sorted(taken):
        if overlap(each, (start, count)):
            start = -(-sum(each) // ids_per_pod) * ids_per_pod
    return None if range_problems(start, count, ids_per_pod=ids_per_pod, max_pods=max_pods) else (start, count)


def shown(ids: IdRange) -> str:
    """A range by its first and last ID."""
    return f"{ids[0]} to {sum(ids) - 1}"


def some(names: Sequence[str]) -> str:
    """The first SHOWN of names, and how many more there are."""
    more = len(names) - SHOWN
    return "; ".join(names[:SHOWN]) + (f"; and {more} more" if more > 0 else "")
