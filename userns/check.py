"""The check that stays on the node: its text, with what a deploy expects of this node and the table of its rules."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping

from userns import paths, programs, readiness_table, render
from userns.findings import Finding, Severity, apply_allow
from userns.policy import Policy
from userns.readiness import Readiness
from userns.readiness_table import Outcome, Table
from userns.tables import KNOWN_IDS
from userns.versions import Version

__all__ = ["service", "text"]

# The longest that it may take; a healthy node answers in under a second.
_SECONDS = 90

# What the check finds apart from the probes: how much each matters between two deploys.
_OWN = {
    "tier-lowered": Severity.WARNING,
    "slow-chown-not-configured": Severity.BLOCKER,
    "metacopy-not-set": Severity.WARNING,
    "max-user-namespaces-low": Severity.WARNING,
    "max-user-namespaces-too-low": Severity.BLOCKER,
    "kernel-lacks-user-namespaces": Severity.BLOCKER,
    "file-changed": Severity.WARNING,
    "program-changed": Severity.WARNING,
    "program-missing": Severity.BLOCKER,
    "record-missing": Severity.WARNING,
    "containerd-not-running": Severity.BLOCKER,
    "containerd-not-enabled": Severity.WARNING,
    "containerd-masked": Severity.BLOCKER,
    "overlay-missing": Severity.BLOCKER,
    "unfinished-change": Severity.WARNING,
    "not-root": Severity.WARNING,
    "check-cut-off": Severity.BLOCKER,
}
# A deploy raises the limit in the same run; between two deploys nobody does, and no pod starts.
_GRAVER = {readiness_table.EXHAUSTED_ID: Severity.BLOCKER}
# How it is known, and whose kernel it is, are no news.
_NO_NEWS = ("idmap-not-probed", "kernel-shared")


def text(templates: Mapping[str, str], policy: Policy, ready: Readiness, *, metacopy: bool) -> str:
    """The whole check. `templates` also holds the scripts that ask the kernel, as the deploy itself runs them."""
    table = readiness_table.of_policy(policy)
    names = {outcome: f"e{number}" for number, outcome in enumerate(_outcomes(table))}
    installed = programs.paths(policy)
    deciding = render.fill(
        templates,
        "check-decide.sh.j2",
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
        descriptions=list(_descriptions(table, policy, metacopy_is_vital=ready.rootfs == "chown")),
    )
    return render.fill(
        templates,
        "check.sh.j2",
        quote=shlex.quote,
        probe=templates["probe.sh"],
        node_kernel=templates["node-kernel.sh"],
        deciding=deciding,
        telling=templates["check-tell.sh"],
        containerd_root=policy.containerd_root.removeprefix("/"),
        kubelet_root=policy.kubelet_root.removeprefix("/"),
        expected_tier=ready.tier,
        slow_chown="yes" if ready.slow_chown else "no",
        metacopy="Y" if metacopy else "any",
        user_namespaces=render.max_user_namespaces(policy.max_pods),
        max_pods=policy.max_pods,
        known=_known(policy, ready),
        vital=[installed[name] for name in ("containerd", "containerd-shim-runc-v2", policy.default_runtime)],
        seconds=_SECONDS,
    )


def service(templates: Mapping[str, str]) -> str:
    """The unit that runs it after a boot."""
    unit = paths.CHECK_UNIT.rpartition("/")[2]
    return render.fill(
        templates, "userns-node-check.service.j2", check=paths.CHECK, readiness=paths.READINESS, unit=unit
    )


def _known(policy: Policy, ready: Readiness) -> list[str]:
    """The warnings that this deploy has accepted."""
    seen = apply_allow(list(ready.findings), policy.allow)
    warnings = {each.id for each in seen if each.severity is Severity.WARNING and each.id not in _GRAVER}
    return sorted(warnings | set(_NO_NEWS))


def _descriptions(table: Table, policy: Policy, *, metacopy_is_vital: bool) -> Iterator[tuple[str, str, str]]:
    """Each id that the check can find, with its severity and what it is about."""
    found = apply_allow([Finding(id, severity, "") for id, severity in table.findings], policy.allow)
    severities = _OWN | {each.id: each.severity for each in found} | _GRAVER
    if metacopy_is_vital:  # the layers that were chowned with it cannot be read without it
        severities["metacopy-not-set"] = Severity.BLOCKER
    for id in sorted(severities):
        yield id, severities[id].value, KNOWN_IDS[id]
    yield "kernel-shared", "$shared", KNOWN_IDS["kernel-shared"]


def _types() -> Iterator[tuple[str, str]]:
    """Shell patterns of the types of file systems; fuse.sshfs is fuse, unless it has a row of its own."""
    rows = [(name, str(_number(since)) if since else "99999999") for name, since in readiness_table.since()]
    yield from ((shlex.quote(name), number) for name, number in rows)
    yield from ((f"{shlex.quote(name)}.*", number) for name, number in rows)


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
            ids = [id for id, _ in way.found]
            yield " ".join((f"q{state.number}", state.question, "|".join(way.answers), _place(way.next, names), *ids))
    for outcome, name in names.items():
        slow_chown = "yes" if outcome.slow_chown else "no"
        yield " ".join((name, "=", outcome.tier, outcome.rootfs, outcome.volumes, slow_chown))
