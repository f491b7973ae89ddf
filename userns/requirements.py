"""What the versions of Kubernetes, containerd and the OCI runtimes ask of each other: tables/requirements.toml."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import lru_cache
from types import MappingProxyType

from userns.findings import Finding, Severity, blocker, warning
from userns.idmap import release
from userns.kubelet.config import KubeletSettings, contradictions, gates, keeps_driver, running
from userns.node import Node
from userns.policy import Policy
from userns.tables import BOUNDARIES, NEWEST_KUBERNETES, RULES, STACKS, TESTED, Range, Rule, Stack, branch
from userns.upgrades import running_containerd
from userns.versions import Version, parse

__all__ = ["check", "gates", "of_policy", "stack"]


def of_policy(node: Node, policy: Policy) -> list[Finding]:
    """What the versions in `policy` ask of each other, on this node."""
    kubelet = KubeletSettings(policy.containerd_version, policy.cgroup_driver, policy.max_pods, policy.ids_per_pod)
    found = check(
        kubernetes=policy.kubernetes_version,
        containerd=policy.containerd_version,
        runc=policy.runc_version,
        crun=policy.crun_version,
        default_runtime=policy.default_runtime,
        selinux=node.enforces_selinux,
        drop_ins=bool(node.drop_ins),
        kubelet=kubelet,
        told=node.kubelet_config,
        kubelet_version=node.kubelet_version,
        kernel=node.kernel,
    )
    runs = node.kubelet_version or policy.kubernetes_version
    keeps = [*keeps_driver(node, kubelet, runs, running_containerd(node))]
    told = node.kubelet_config | ({"cgroupDriver": policy.cgroup_driver} if keeps else {})  # once is enough
    found += [*contradictions(runs, kubelet, told, works=bool(node.cgroup_driver)), *keeps]
    return [*found, *running(node, policy.kubelet_root, runs)]


def check(
    *,
    kubernetes: str,
    containerd: str,
    runc: str | None = None,
    crun: str | None = None,
    default_runtime: str = "runc",
    selinux: bool = False,
    drop_ins: bool = False,
    kubelet: KubeletSettings | None = None,
    told: Mapping[str, str] = MappingProxyType({}),
    kubelet_version: str = "",
    kernel: str = "",
) -> list[Finding]:
    """The findings about these versions together. A runtime that is None is not installed, or not known.

    `selinux`: it is enforced; `drop_ins`: there are files in conf.d; `kubelet`: the settings that it has to share;
    `told`: what it has been told already; `kubelet_version`: of the one that is installed, which its gates go by ("":
    that of Kubernetes); `kernel`: where it is known, or "".

    Raises ValueError where a text is not a version.
    """
    has = tuple(sorted(told.items()))
    gated = kubelet_version or kubernetes
    found = _checked(kubernetes, containerd, runc, crun, default_runtime, selinux, drop_ins, kubelet, has, gated)
    return [*found, *_shared_memory(kernel, containerd, crun, default_runtime)]


@lru_cache(maxsize=256)  # the nodes of a fleet share a few of them
def _checked(
    kubernetes: str,
    containerd: str,
    runc: str | None,
    crun: str | None,
    default_runtime: str,
    selinux: bool,
    drop_ins: bool,
    kubelet: KubeletSettings | None,
    told: tuple[tuple[str, str], ...],
    gated: str,
) -> tuple[Finding, ...]:
    texts = {"kubernetes": kubernetes, "containerd": containerd, "runc": runc, "crun": crun}
    shown = {name: text for name, text in texts.items() if text}
    versions = {name: parse(text) for name, text in shown.items()}
    return (
        *_rules(shown, versions, default_runtime, {"selinux": selinux, "drop_ins": drop_ins}),
        *_runtimes(shown, versions, default_runtime),
        *_tested(kubernetes, containerd),
        *gates(gated, kubelet, dict(told)),
    )


@lru_cache(maxsize=64)
def stack(kubernetes: str, containerd: str) -> Stack | None:
    """The requirement set of containerd's document that holds for these two, or None where there is none."""
    wanted, runs = parse(kubernetes), parse(containerd)
    return next((row for row in STACKS if wanted in row.kubernetes and runs in row.containerd), None)


def _rules(
    shown: dict[str, str], versions: dict[str, Version], default_runtime: str, conditions: dict[str, bool]
) -> Iterator[Finding]:
    for row in RULES:
        asks = [name for name in conditions if getattr(row, name)]
        if all(conditions[name] for name in asks) and _fits(row, versions):
            finding = Finding(row.id, row.severity, row.message.format(**shown), row.source)
            for runtime in ("runc", "crun"):
                if getattr(row, runtime) is not None:
                    finding = _of_handler(finding, runtime, default_runtime)
            yield finding


def _fits(row: Rule, versions: dict[str, Version]) -> bool:
    for name in ("kubernetes", "containerd", "runc", "crun"):
        wanted: Range | None = getattr(row, name)
        if wanted is not None and (name not in versions or versions[name] not in wanted):
            return False
    return True


def _runtimes(shown: dict[str, str], versions: dict[str, Version], default_runtime: str) -> Iterator[Finding]:
    """Each runtime against the requirement set; where there is none, something else has been said already."""
    row = stack(shown["kubernetes"], shown["containerd"])
    for runtime in ("runc", "crun"):
        if row is None or runtime not in versions:
            continue
        oldest = getattr(row, runtime)
        if versions[runtime] >= parse(oldest):
            continue
        advised = row.crun_recommended if runtime == "crun" else None
        finding = blocker(
            f"{runtime}-too-old",
            f"{runtime} {shown[runtime]} is too old for user namespaces in pods: {row.name} needs {runtime} {oldest} "
            f"or later. Set {runtime}_version to a newer one" + (f" ({advised} is recommended)" if advised else ""),
            row.source,
        )
        yield _of_handler(finding, runtime, default_runtime)


def _shared_memory(kernel: str, containerd: str, crun: str | None, default_runtime: str) -> Iterator[Finding]:
    """What no container of `ctr` has, and so no proof finds where a kubelet runs: the /dev/shm of a pod's sandbox."""
    runs, enough = release(kernel), BOUNDARIES["mount_setattr"].since
    if crun and parse(containerd).major < 2 and runs is not None and runs < enough:
        finding = blocker(
            "crun-cannot-mount-shm",
            f"crun cannot give a pod with a user namespace its /dev/shm on Linux {kernel} with containerd "
            f"{containerd} (Permission denied): use runc, or a kernel from {enough} on",
            "measured with crun 1.21 on 5.10: tests/vm/test_upstream_1_7.py",
        )
        yield _of_handler(finding, "crun", default_runtime)


def _of_handler(finding: Finding, runtime: str, default_runtime: str) -> Finding:
    """A runtime that is not the default one refuses no node: only pods that name its handler are concerned."""
    if runtime == default_runtime or finding.severity is not Severity.BLOCKER:
        return finding
    limit = f"{finding.message}. Only pods whose RuntimeClass names the handler {runtime} are concerned"
    return replace(finding, severity=Severity.WARNING, message=limit)


def _tested(kubernetes: str, containerd: str) -> Iterator[Finding]:
    """Whether upstream recommends this containerd for this Kubernetes."""
    minor, runs = branch(parse(kubernetes)), parse(containerd)
    if parse(minor) > parse(NEWEST_KUBERNETES):
        yield warning(
            "kubernetes-newer-than-known",
            f"the tables know Kubernetes up to {NEWEST_KUBERNETES} and judge {kubernetes} by the same requirements: "
            "read its release notes, or update userns-node",
        )
    for row in TESTED:
        if branch(row.kubernetes) != minor:
            continue
        tested = [parse(text) for text in row.containerd]
        enough = [each for each in tested if branch(each) == branch(runs)] or [max(tested)]
        if runs < enough[0]:
            yield warning(
                "containerd-not-tested-with-kubernetes",
                f"containerd {containerd} is not among the releases that upstream recommends for Kubernetes {minor}: "
                f"{', '.join(f'{text} or a later patch' for text in row.containerd)}, or a later minor",
                row.source,
            )
