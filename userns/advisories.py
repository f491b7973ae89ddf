"""Security advisories and ends of life of containerd, runc and crun: tables/advisories.toml, tables/releases.toml."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from functools import lru_cache

from userns.findings import Finding, Severity, blocker, warning
from userns.policy import Policy
from userns.tables import ADVISORIES, RELEASES, Advisory, branch
from userns.versions import Version, parse

__all__ = ["blocking", "check", "end_of_life", "of_policy"]


def of_policy(policy: Policy, today: date | None = None) -> list[Finding]:
    """What speaks against the versions in `policy`: each blocker by itself, the rest in one line a component."""
    packaged = policy.install_from == "package"
    return [each for item in policy.versions.items() for each in _in_short(*item, packaged, today)]


@lru_cache(maxsize=1024)  # the nodes of a fleet share a few versions
def _in_short(component: str, version: str, packaged: bool, today: date | None) -> tuple[Finding, ...]:
    known = _open(component, version, packaged)
    blockers = [finding for finding in known if finding.severity is Severity.BLOCKER]
    rest = [finding for finding in known if finding.severity is Severity.WARNING]
    summary = [_summary(component, version, rest)] if rest else []
    return (*blockers, *summary, *end_of_life(component, version, today))


def check(component: str, version: str, today: date | None = None, *, packaged: bool = False) -> list[Finding]:
    """The open advisories of this version, and its end of life where `today` is given.

    A distribution repairs its own packages without a new version number, so nothing blocks one that is `packaged`.
    Raises ValueError where `version` is not a version.
    """
    return [*_open(component, version, packaged), *end_of_life(component, version, today)]


@lru_cache(maxsize=1024)
def _open(component: str, version: str, packaged: bool) -> tuple[Finding, ...]:
    runs = parse(version)
    found = (_finding(row, version, runs, packaged) for row in ADVISORIES if row.component == component)
    return tuple(finding for finding in found if finding)


def blocking(component: str, version: str) -> list[Finding]:
    """The advisories that refuse this version, for the choice of a default one."""
    return [finding for finding in check(component, version) if finding.severity is Severity.BLOCKER]


def end_of_life(component: str, version: str, today: date | None) -> list[Finding]:
    """A warning where the branch of `version` gets no fixes any more."""
    if today is None:
        return []
    name = branch(parse(version))
    return [
        warning(
            row.finding,
            f"{component} {name} has had no fixes since {row.until}, not even for security, and {version} is of it: "
            "move to a branch that is maintained",
            row.source,
        )
        for row in RELEASES
        if (row.component, row.branch) == (component, name) and row.until < today
    ]


def _finding(row: Advisory, text: str, runs: Version, packaged: bool) -> Finding | None:
    """What `row` says of this version; None where it is not affected."""
    if row.since is not None and runs < row.since:
        return None
    subject = f"{row.component} {text}"
    about = f"{row.id} ({row.severity}): {row.summary}"
    if not row.fixed:
        return warning(row.finding, f"{subject} may be open to {about}; fixed version unconfirmed", row.source)
    if branch(runs) in row.unconfirmed_branches:
        unsure = f"whether {branch(runs)} is affected is unconfirmed; {_list(row.fixed)} have the fix"
        return warning(row.finding, f"{subject} may be open to {about}; {unsure}", row.source)
    own = next((each for each in row.fixed if branch(parse(each)) == branch(runs)), None)
    if runs >= (parse(own) if own else max(map(parse, row.fixed))):
        return None
    if own or len(row.fixed) == 1:
        cure = f"fixed in {own or row.fixed[0]}"
    else:
        cure = f"{branch(runs)} has no fix, {_list(row.fixed)} have it"
    message = f"{subject} is open to {about}; {cure}"
    if row.severity != "critical" and not row.escape:
        return warning(row.finding, message, row.source)
    if packaged:
        return warning(
            row.finding, f"{message}. A package may have the fix under its old number: ask its changelog", row.source
        )
    return blocker(row.finding, f"{message}. Set {row.component}_version to a fixed release", row.source)


def _summary(component: str, version: str, rest: Sequence[Finding]) -> Finding:
    """The advisories that refuse nothing, in one line."""
    rows = {row.finding: row for row in ADVISORIES}
    names = ", ".join(f"{rows[each.id].id} ({rows[each.id].severity})" for each in rest)
    return warning(
        f"open-advisories-{component}",
        f"{component} {version} is or may be open to {names}. "
        f"`python -m userns explain --{component} {version}` has each with its fix",
        f"https://github.com/{_HOMES[component]}/security/advisories",
    )


_HOMES = {"containerd": "containerd/containerd", "runc": "opencontainers/runc", "crun": "containers/crun"}


def _list(versions: Sequence[str]) -> str:
    return ", ".join(versions)
