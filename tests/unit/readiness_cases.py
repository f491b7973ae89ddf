"""Kernels as they answer, a node to judge with such answers, and what is said of it."""

from __future__ import annotations

from typing import Any

from userns import readiness
from userns.findings import Severity
from userns.node import Probe
from userns.readiness import Readiness

OK = Probe(result="ok")
ALL_OK = {"containerd-root": OK, "kubelet-root": OK, "tmpfs": OK, "overlay": OK}


def cannot(errno: str = "EINVAL", step: str = "mount_setattr") -> Probe:
    return Probe(result="cannot", step=step, errno=errno)


def unknown(detail: str) -> Probe:
    return Probe(result="unknown", detail=detail)


# A kernel from 5.12 to 5.18: it idmaps neither tmpfs nor overlay, and containerd's own test fails.
OLD = {"containerd-root": OK, "kubelet-root": OK, "tmpfs": cannot(), "overlay": cannot(), "containerd-check": cannot()}


def ready(kernel: str = "6.12.5", **given: Any) -> Readiness:
    defaults: dict[str, Any] = {"kubernetes": "1.36", "containerd": "2.3.4", "probes": ALL_OK}
    return readiness.assess(kernel=kernel, **(defaults | given))


def blockers(found: Readiness) -> set[str]:
    return {each.id for each in found.findings if each.severity is Severity.BLOCKER}


def ids(found: Readiness) -> set[str]:
    return {each.id for each in found.findings}


def message(found: Readiness, id: str) -> str:
    return next(each.message for each in found.findings if each.id == id)


def outcome(found: Readiness) -> tuple[str, str, str, bool]:
    return found.tier, found.rootfs, found.volumes, found.slow_chown
