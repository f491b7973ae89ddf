"""The tables: what upstream's documents, sources and advisories say, one row a fact, each with its source.

A new containerd version, file system or advisory is a new row here and no new `if`. Read once, at import;
the symptoms, which a deploy has no use for, by their own module.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from datetime import date
from functools import cache
from importlib.resources import files
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict

from userns.findings import Severity
from userns.tables.ranges import Range
from userns.versions import Version, parse

__all__ = [
    "ADVISORIES",
    "BORDERS",
    "BOUNDARIES",
    "DISTRIBUTIONS",
    "ERRNOS",
    "FILESYSTEMS",
    "GATES",
    "GETSUBIDS",
    "KNOWN_IDS",
    "KUBELETS",
    "LINES",
    "NEWEST_KUBERNETES",
    "PAUSES",
    "RELEASES",
    "RULES",
    "SNAPSHOTTERS",
    "STACKS",
    "TESTED",
    "UPGRADES",
    "Advisory",
    "Border",
    "Boundary",
    "Distribution",
    "Errno",
    "Filesystem",
    "Gate",
    "Getsubids",
    "Kubelet",
    "Pause",
    "Range",
    "Release",
    "Rule",
    "Snapshotter",
    "Stack",
    "Tested",
    "Upgrade",
    "branch",
]

Versions = Annotated[Range, BeforeValidator(Range.of)]
Exactly = Annotated[Version, BeforeValidator(parse)]


def _version_text(text: str) -> str:
    """Checked to be a version, and kept as upstream writes it: 1.4.0-rc.3."""
    parse(text)
    return text


VersionText = Annotated[str, AfterValidator(_version_text)]


class Row(BaseModel):
    """One fact."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    source: str


class Stack(Row):
    """A requirement set of containerd's document for a range of Kubernetes and of containerd."""

    name: str
    kubernetes: Versions
    containerd: Versions
    runc: VersionText
    crun: VersionText
    crun_recommended: VersionText | None = None
    idmaps_volumes: bool
    kernel: str


class Rule(Row):
    """What versions say about each other: a finding where every named range fits."""

    id: str
    severity: Severity
    message: str
    kubernetes: Versions | None = None
    containerd: Versions | None = None
    runc: Versions | None = None
    crun: Versions | None = None
    selinux: bool = False
    drop_ins: bool = False


class Tested(Row):
    """The containerd releases that upstream recommends for a Kubernetes minor."""

    kubernetes: Exactly
    containerd: tuple[VersionText, ...]


class Gate(Row):
    """What to do about feature gates in a range of Kubernetes."""

    kubernetes: Versions
    message: str
    gate: str = ""


class Kubelet(Row):
    """What the kubelets of a range of Kubernetes do."""

    name: str
    kubernetes: Versions


class Getsubids(Row):
    """The package of a distribution that has getsubids; "": none has."""

    os: tuple[str, ...]
    versions: Versions | None = None
    package: str = ""


class Filesystem(Row):
    """From which kernel on a file system can be idmapped; None: never.

    `module_since`: from which version of its own, for one that is no part of the kernel.
    """

    names: tuple[str, ...]
    since: Exactly | None = None
    module_since: Exactly | None = None
    condition: str = ""


class Errno(Row):
    """What the kernel's refusal of an idmapped mount means; `step` is set where it holds for that step only.

    `cure`: what to do, where neither another directory nor a newer kernel helps.
    """

    name: str
    step: str = ""
    meaning: str
    finding: str = ""
    cure: str = ""


class Boundary(Row):
    """What the kernels from `since` on bring for user namespaces."""

    name: str
    since: Exactly
    meaning: str


class Distribution(Row):
    """Advice for a distribution's own kernels; it decides nothing. `unprobed`: what to add where nothing was probed."""

    os: tuple[str, ...]
    versions: Versions | None = None
    kernels: Versions | None = None
    builds: Versions | None = None
    advice: str
    unprobed: str = ""


class Snapshotter(Row):
    """What a snapshotter does with a pod's ID mapping."""

    names: tuple[str, ...]
    model: Literal["overlay", "remap", "chown", "proxy"]
    since: Exactly | None = None
    consequence: str


class Release(Row):
    """The last day of a branch of releases."""

    component: str
    branch: str
    until: date

    @property
    def finding(self) -> str:
        """The id of the finding that says so."""
        return f"end-of-life-{self.component}-{self.branch.replace('.', '-')}"


class Advisory(Row):
    """A security advisory, with the first fixed release of each branch that has one."""

    id: str
    component: Literal["containerd", "runc", "crun"]
    fixed: tuple[VersionText, ...]
    since: Exactly | None = None
    unconfirmed_branches: tuple[str, ...] = ()
    severity: Literal["low", "medium", "high", "critical", "unknown"]
    escape: bool = False
    summary: str

    @property
    def finding(self) -> str:
        """The id of the finding that says so."""
        return f"advisory-{self.id.lower()}"


class Upgrade(Row):
    """The minors that may follow the minor `of` in one step."""

    of: str
    to: tuple[str, ...]


class Pause(Row):
    """The pause image that containerd of the minor `of` takes where config.toml names none."""

    of: str
    image: str


class Border(Row):
    """A containerd of the one range cannot talk to shims that one of the other range has started."""

    containerd: Versions
    shims: Versions


def branch(version: Version) -> str:
    """The branch of releases that `version` is of: 2.3.4 is of 2.3."""
    return f"{version.major}.{version.minor}"


R = TypeVar("R", bound=BaseModel)


@cache
def _load(table: str) -> dict[str, Any]:
    return tomllib.loads(files(__package__).joinpath(f"{table}.toml").read_text("utf-8"))


def rows(table: str, key: str, row: type[R]) -> tuple[R, ...]:
    """The rows under a key of a table's file."""
    return tuple(row.model_validate(each) for each in _load(table)[key])


STACKS = rows("requirements", "stack", Stack)
RULES = rows("requirements", "rule", Rule)
TESTED = rows("kubernetes", "tested", Tested)
GATES = rows("kubernetes", "gate", Gate)
KUBELETS = {row.name: row for row in rows("kubernetes", "kubelet", Kubelet)}
GETSUBIDS = rows("kubernetes", "getsubids", Getsubids)
FILESYSTEMS = {name: row for row in rows("filesystems", "filesystem", Filesystem) for name in row.names}
ERRNOS = {(row.step, row.name): row for row in rows("filesystems", "errno", Errno)}
BOUNDARIES = {row.name: row for row in rows("kernels", "boundary", Boundary)}
DISTRIBUTIONS = rows("kernels", "distribution", Distribution)
SNAPSHOTTERS = {name: row for row in rows("snapshotters", "snapshotter", Snapshotter) for name in row.names}
RELEASES = rows("releases", "release", Release)
UPGRADES = {row.of: row for row in rows("upgrades", "upgrade", Upgrade)}
PAUSES = {row.of: row for row in rows("upgrades", "pause", Pause)}
BORDERS = rows("upgrades", "border", Border)
ADVISORIES = rows("advisories", "advisory", Advisory)

# What a run warns of in a line of its own, and no plan knows before: by the same kind of id.
LINES: Mapping[str, str] = _load("findings")["lines"]
# Every id that a finding can have: what it is about. `allow` may name these and no others.
KNOWN_IDS: Mapping[str, str] = (
    _load("findings")["findings"]
    | {row.finding: row.meaning for row in ERRNOS.values() if row.finding}
    | {row.id: row.message for row in RULES}
    | {row.finding: f"{row.component}: {row.summary}" for row in ADVISORIES}
    | {f"open-advisories-{row.component}": f"open advisories of {row.component}" for row in ADVISORIES}
    | {row.finding: f"{row.component} {row.branch} gets no fixes" for row in RELEASES}
)

# The newest minor whose requirements are known here.
NEWEST_KUBERNETES = branch(max(row.kubernetes for row in TESTED))
