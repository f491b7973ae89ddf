"""The readiness of a node as a table of questions and answers that a shell can walk.

Nothing is decided here. `userns.readiness` is asked about each answer that a kernel can give, one after the other: the
mapping that it gets the probes from stops it at the first one that it wants to know. What comes of it is a tree;
findings move to the first answer that makes them certain, and equal branches become one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Unpack

from userns.findings import Severity
from userns.node import Probe
from userns.policy import Policy
from userns.readiness import Inputs, Rootfs, Tier, Volumes, assess, inputs
from userns.tables import BOUNDARIES, ERRNOS, FILESYSTEMS
from userns.versions import Version

__all__ = [
    "KERNEL",
    "ROOTS",
    "Answer",
    "Outcome",
    "State",
    "Table",
    "boundaries",
    "errno_answers",
    "of_policy",
    "since",
]

KERNEL = "kernel"
# Whose file system suggests an answer where the probe gives none.
ROOTS = ("containerd-root", "kubelet-root")
OLDEST = "oldest"  # a kernel below every boundary; one whose version cannot be read counts as such
OK, CANNOT, UNKNOWN, EXHAUSTED = "ok", "cannot", "unknown", "exhausted"
EXHAUSTED_ID = "max-user-namespaces-exhausted"
# Only of this one does readiness tell an errno's own finding: it is asked first.
NAMED = "containerd-root"

Found = tuple[str, Severity]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What is known when no question is left."""

    tier: Tier
    rootfs: Rootfs
    volumes: Volumes
    slow_chown: bool


@dataclass(frozen=True, slots=True)
class Answer:
    """What follows from these answers: the findings that are certain from here on, and the next state or the end."""

    answers: tuple[str, ...]
    found: tuple[Found, ...]
    next: int | Outcome


@dataclass(frozen=True, slots=True)
class State:
    """A question, and what follows from each answer to it."""

    number: int
    question: str
    answers: tuple[Answer, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """`found` is certain before the first question; the walk begins at `first`.

    Compared by identity (eq=False): tables are keys of caches, and to hash one by its values takes long.
    """

    found: tuple[Found, ...]
    first: int | Outcome
    states: tuple[State, ...]

    @property
    def findings(self) -> tuple[Found, ...]:
        """Every finding that the table can make."""
        all_found = [*self.found, *(each for state in self.states for way in state.answers for each in way.found)]
        return tuple(sorted(set(all_found)))


def of_policy(policy: Policy) -> Table:
    """The table for the nodes of a policy, whatever their kernels say."""
    return _table(**inputs(policy))


def boundaries() -> tuple[Version, ...]:
    """The kernels from which on an answer to something else than a file system's type may change."""
    tmpfs = FILESYSTEMS["tmpfs"].since
    return tuple(sorted({*(row.since for row in BOUNDARIES.values()), *([tmpfs] if tmpfs else [])}))


def errno_answers() -> Iterator[tuple[str, str, str]]:
    """What a probe's step and errno are an answer of; those of any step ("") come last."""
    for (step, errno), row in sorted(ERRNOS.items(), key=lambda each: not each[0][0]):
        yield step, errno, EXHAUSTED if row.finding == EXHAUSTED_ID else _named(row.finding)


def since() -> Iterator[tuple[str, Version | None, Version | None]]:
    """From which kernel on a type of file system is taken to be one that can (None: never), and its own version."""
    for name, row in sorted(FILESYSTEMS.items()):
        yield name, row.since, row.module_since


def _named(finding: str) -> str:
    return f"{CANNOT}-{finding}" if finding else CANNOT


class _Question(Exception):
    """What readiness wants to know next."""


class _Given(Mapping[str, Probe]):
    """The probes that were given; any other is a question."""

    def __init__(self, probes: Mapping[str, Probe]) -> None:
        self._probes = probes

    def __getitem__(self, key: str) -> Probe:
        if key not in self._probes:
            raise _Question(key)
        return self._probes[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._probes)

    def __len__(self) -> int:
        return len(self._probes)


@dataclass(frozen=True, slots=True)
class _Stand:
    """A probe and a type of file system that stand for an answer."""

    probe: Probe
    type: str = ""


def _stands(question: str) -> dict[str, _Stand]:
    """Each answer to a question, with something that readiness takes for it."""
    refused = {answer: Probe(result="cannot", step=step, errno=errno) for step, errno, answer in errno_answers()}
    exhausted = refused.pop(EXHAUSTED)
    found = {OK: _Stand(Probe(result="ok"))}
    for answer, probe in refused.items():
        if answer == CANNOT or question == NAMED:
            found[answer] = _Stand(probe)
    guessed = {UNKNOWN: Probe(result="unknown"), EXHAUSTED: exhausted}
    for answer, probe in guessed.items():
        if question in ROOTS:
            found |= {f"{answer}-can": _Stand(probe, "ext4"), f"{answer}-cannot": _Stand(probe, "nfs")}
        else:
            found[answer] = _Stand(probe)
    return found


@dataclass(frozen=True, slots=True)
class _Tree:
    """`certain` is what every end below has in common; `next` leads on from there."""

    certain: frozenset[Found]
    next: int | Outcome


@dataclass(slots=True)
class _Way:
    """What an answer has to tell (`must`), what it may tell because it was told before (`may`), and where it leads."""

    must: frozenset[Found]
    may: frozenset[Found]
    next: int | Outcome

    def joined(self, other: _Way) -> _Way | None:
        """One way for both, where neither tells anything that is not so for the other."""
        must, may = self.must | other.must, self.may & other.may
        return _Way(must, may, self.next) if must <= may and self.next == other.next else None


@lru_cache(maxsize=64)
def _table(**asked: Unpack[Inputs]) -> Table:
    return _Exploration(asked).table()


class _Exploration:
    def __init__(self, asked: Inputs) -> None:
        self._asked = asked
        self._stands = {question: _stands(question) for question in (*ROOTS, "tmpfs", "overlay", "containerd-check")}
        self._built: list[tuple[str, dict[str, _Way]]] = []
        self._alike: dict[tuple[object, ...], list[int]] = {}

    def table(self) -> Table:
        kernels = {OLDEST: "1.0"} | {str(each): str(each) for each in boundaries()}
        whole = self._join(KERNEL, {name: self._explore(kernel, {}) for name, kernel in kernels.items()})
        states = tuple(State(number, question, _grouped(ways)) for number, (question, ways) in enumerate(self._built))
        return Table(tuple(sorted(whole.certain)), whole.next, states)

    def _explore(self, kernel: str, given: dict[str, _Stand]) -> _Tree:
        probes = _Given({question: stand.probe for question, stand in given.items()})
        types = {question: stand.type for question, stand in given.items() if stand.type}
        try:
            ready = assess(**self._asked, kernel=kernel, probes=probes, filesystems=types)
        except _Question as wanted:
            question = str(wanted)
        else:
            found = frozenset((each.id, each.severity) for each in ready.findings)
            return _Tree(found, Outcome(ready.tier, ready.rootfs, ready.volumes, ready.slow_chown))
        stands = self._stands[question]
        return self._join(
            question, {answer: self._explore(kernel, given | {question: stand}) for answer, stand in stands.items()}
        )

    def _join(self, question: str, below: dict[str, _Tree]) -> _Tree:
        certain = frozenset.intersection(*(tree.certain for tree in below.values()))
        ways = {answer: _Way(tree.certain - certain, tree.certain, tree.next) for answer, tree in below.items()}
        # One state serves several places, where what the one tells and the other does not was told before that.
        alike = self._alike.setdefault((question, *((answer, way.next) for answer, way in ways.items())), [])
        for number in alike:
            joined = {answer: way.joined(ways[answer]) for answer, way in self._built[number][1].items()}
            if whole := {answer: way for answer, way in joined.items() if way} if all(joined.values()) else {}:
                self._built[number] = (question, whole)
                return _Tree(certain, number)
        alike.append(len(self._built))
        self._built.append((question, ways))
        return _Tree(certain, alike[-1])


def _grouped(ways: dict[str, _Way]) -> tuple[Answer, ...]:
    groups: dict[tuple[tuple[Found, ...], int | Outcome], list[str]] = {}
    for answer, way in ways.items():
        groups.setdefault((tuple(sorted(way.must)), way.next), []).append(answer)
    return tuple(Answer(tuple(answers), found, following) for (found, following), answers in groups.items())
