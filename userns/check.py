"""The check that stays on the node: its text, with what a deploy expects of this node and the table of its rules."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

from userns import paths, programs, readiness_table, render, tracing
from userns.findings import Finding, Severity, apply_allow
from userns.kubelet import ids
from userns.policy import Policy
from userns.readiness import Readiness
from userns.readiness_table import Outcome, Table
from userns.tables import KNOWN_IDS
from userns.versions import Version

__all__ = ["Expected", "service", "text"]

# The longest that it may take; a healthy node answers in under a second.
_SECONDS = 90

# What the check finds apart from the probes: how much each matters between two deploys. `allow` holds for these too.
_OWN = {
    "tier-lowered": Severity.WARNING,
    "slow-chown-not-configured": Severity.BLOCKER,
    "metacopy-not-set": Severity.WARNING,
    "max-user-namespaces-low": Severity.WARNING,
    "max-user-namespaces-too-low": Severity.BLOCKER,
    "kernel-lacks-user-namespaces": Severity.BLOCKER,
    "ptrace-forbidden": Severity.BLOCKER,
    "selinux-denies-containerd": Severity.BLOCKER,
    "file-changed": Severity.WARNING,
    "program-changed": Severity.WARNING,
    "program-missing": Severity.BLOCKER,
    "record-missing": Severity.WARNING,
    "containerd-not-running": Severity.BLOCKER,
    "containerd-not-enabled": Severity.WARNING,
    "containerd-masked": Severity.BLOCKER,
    "containerd-ignores-config": Severity.BLOCKER,
    "overlay-missing": Severity.BLOCKER,
    "getsubids-missing": Severity.BLOCKER,
    "kubelet-id-range-invalid": Severity.BLOCKER,
    "kubelet-id-range-not-mapped": Severity.BLOCKER,
    "unfinished-change": Severity.WARNING,
    "not-root": Severity.WARNING,
    "check-cut-off": Severity.BLOCKER,
}
# A deploy raises the limit in the same run; between two deploys nobody does, and no pod starts.
_GRAVER = {readiness_table.EXHAUSTED_ID: Severity.BLOCKER}
# How it is known, and whose kernel it is, are no news.
_NO_NEWS = ("idmap-not-probed", "kernel-shared")


@dataclass(frozen=True, slots=True)
class Expected:
    """What a deploy leaves behind and finds again: the very values that its plan goes by, and not others like them.

    `metacopy`: on, off, or None (as it is). `findings`: what the plan noticed, of which accepted warnings are no news.
    `kubelet_version`: "" where none is installed.
    """

    metacopy: bool | None
    max_user_namespaces: int
    kubelet_version: str = ""
    findings: tuple[Finding, ...] = ()


def text(templates: Mapping[str, str], policy: Policy, ready: Readiness, expected: Expected) -> str:
    """The whole check. `templates` also holds the scripts that ask the kernel, as the deploy itself runs them."""
    table = readiness_table.of_policy(policy)
    installed = programs.paths(policy)
    # The layers that were chowned with metacopy cannot be read without it.
    severities = _severities(table, policy.allow, ready.rootfs == "chown" and expected.metacopy is True)
    deciding = _deciding(
        templates["check-decide.sh.j2"], table, tuple(sorted(severities.items())), policy.snapshotter == "overlayfs"
    )
    return render.fill(
        templates,
        "check.sh.j2",
        quote=shlex.quote,
        probe=templates["probe.sh"],
        node_kernel=templates["node-kernel.sh"],
        options=templates["options.sh"],
        deciding=deciding,
        telling=templates["check-tell.sh"],
        forgetting=templates["metrics.sh"],
        containerd_root=policy.containerd_root.removeprefix("/"),
        kubelet_root=policy.kubelet_root.removeprefix("/"),
        expected_tier=ready.tier,
        slow_chown="yes" if ready.slow_chown else "no",
        metacopy={True: "Y", False: "N", None: "any"}[expected.metacopy],
        user_namespaces=expected.max_user_namespaces,
        max_pods=policy.max_pods,
        kubelet_range=_kubelet_range(policy, expected.kubelet_version),
        known=tuple(sorted(_known(policy, (*ready.findings, *expected.findings)) & severities.keys() | {*_NO_NEWS})),
        traces=installed["containerd"].lstrip("/") if tracing.traces(policy.containerd_version) else "",
        vital=tuple(installed[name] for name in ("containerd", "containerd-shim-runc-v2", policy.default_runtime)),
        seconds=_SECONDS,
    )


@lru_cache(maxsize=64)  # the nodes of a fleet share a few of them
def _deciding(template: str, table: Table, severities: tuple[tuple[str, Severity], ...], overlayfs: bool) -> str:
    """The part of the check that walks the table."""
    names = {outcome: f"e{number}" for number, outcome in enumerate(_outcomes(table))}
    return render.fill_anew(
        template,
        quote=shlex.quote,
        named=readiness_table.NAMED,
        errnos=[(f"{step or '*'}:{errno}", answer) for step, errno, answer in readiness_table.errno_answers()],
        types=list(_types()),
        first=_number(readiness_table.boundaries()[0]),
        oldest=readiness_table.OLDEST,
        boundaries=[(str(each), _number(each)) for each in readiness_table.boundaries()],
        start=_place(table.first, names),
        certain=[id for id, _ in table.found],
        rows=list(_rows(table, names)),
        overlayfs=overlayfs,
        config=paths.CONFIG,
        descriptions=[
            *((id, severity.value, KNOWN_IDS[id]) for id, severity in severities),
            ("kernel-shared", "$shared", KNOWN_IDS["kernel-shared"]),
        ],
    )


def service(templates: Mapping[str, str]) -> str:
    """The unit that runs it after a boot."""
    unit = paths.CHECK_UNIT.rpartition("/")[2]
    return render.fill(
        templates, "userns-node-check.service.j2", check=paths.CHECK, readiness=paths.READINESS, unit=unit
    )


def _known(policy: Policy, findings: Iterable[Finding]) -> set[str]:
    """The warnings that this deploy has accepted."""
    seen = apply_allow(list(findings), policy.allow)
    return {each.id for each in seen if each.severity is Severity.WARNING and each.id not in _GRAVER}


@lru_cache(maxsize=64)  # as above
def _severities(table: Table, allow: tuple[str, ...], metacopy_is_vital: bool) -> Mapping[str, Severity]:
    """Each id that the check can find, and how much it matters where this is allowed."""
    severities = dict(table.findings) | _OWN | _GRAVER
    if metacopy_is_vital:
        severities["metacopy-not-set"] = Severity.BLOCKER
    found = apply_allow([Finding(id, severity, "") for id, severity in severities.items()], allow)
    return {each.id: each.severity for each in found}


def _kubelet_range(policy: Policy, installed: str) -> str:
    """What getsubids has to print of the kubelet's range; "" where none is set, or the kubelet does not ask."""
    asks = ids.does("asks-for-range", installed or policy.kubernetes_version)
    return "{} {}".format(*policy.kubelet_id_range) if policy.kubelet_id_range and asks else ""


def _types() -> Iterator[tuple[str, str, str]]:
    """Shell patterns of the types of file systems; fuse.sshfs is fuse, unless it has a row of its own.

    With the kernel from which on it can be idmapped, and the version of its own, "" where it has none.
    """
    for pattern in ("{}", "{}.*"):
        for name, since, module in readiness_table.since():
            number = str(_number(since)) if since else "99999999"
            yield pattern.format(shlex.quote(name)), number, str(_number(module)) if module else ""


def _number(version: Version) -> int:
    return version.major * 1000 + version.minor


def _outcomes(table: Table) -> list[Outcome]:
    nexts = [table.first, *(way.next for state in table.states for way in state.answers)]
    return list(dict.fromkeys(each for each in nexts if isinstance(each, Outcome)))


def _place(next: int | Outcome, names: Mapping[Outcome, str]) -> str:
    return names[next] if isinstance(next, Outcome) else f"q{next}"


def _rows(table: Table, names: Mapping[Outcome, str]) -> Iterator[str]:
    """The table from its first question to its ends, so that one pass is a walk: states were built from the ends on."""
    for state in reversed(table.states):
        for way in state.answers:
            found = [id for id, _ in way.found]
            yield " ".join((f"q{state.number}", state.question, "|".join(way.answers), _place(way.next, names), *found))
    for outcome, name in names.items():
        slow_chown = "yes" if outcome.slow_chown else "no"
        yield " ".join((name, "=", outcome.tier, outcome.rootfs, outcome.volumes, slow_chown))
