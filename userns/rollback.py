"""A rollback: what the kept sets of a node hold, and which of it comes back. Pure; no settings: it is for broken nodes.

What comes back are programs, unit and config, with the record of them. What stays is what containers or other people
depend on by now: see `_stays`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from userns import paths, upgrades
from userns.findings import Finding, blocker, note, warning
from userns.node import Unit
from userns.reading.records import ReadingError, records, version_in

__all__ = ["PREVIOUS", "PREVIOUS_2", "UNDO", "Entry", "Kept", "KeptSet", "Rollback", "make", "read"]

PREVIOUS, PREVIOUS_2, UNDO = "previous", "previous.2", "undo"
_METACOPY = frozenset({paths.MODPROBE, paths.PRE_START, paths.UNIT_DROP_IN})
_RUNTIMES = frozenset({paths.INSTALLED["runc"], paths.INSTALLED["crun"]})
# Beside what is brought back: lists, the record, a unit.
_MARGIN_KIB = 8 * 1024


Kind = Literal[
    "put",
    "absent",
    "directory",
    "keep",
    "user",
    "package",
    "hold",
    "unhold",
    "enabled",
    "disabled",
    "active",
    "healthy",
]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Entry(_Frozen):
    """One line of a kept set's list (tasks/scripts/previous.sh has the kinds).

    `state`: whether it is as the set has it now, or the saved file is `missing`. `far`: its target lies on another
    file system than the set, so that `size` bytes have to be copied.
    """

    kind: Kind
    name: str
    detail: str
    state: Literal["yes", "no", "missing"]
    far: bool
    size: int


class KeptSet(_Frozen):
    """A set that the node keeps; also what is there now, which has no entries.

    `programs` and `versions` map a program's path to its component and version by the record, and to what it calls
    itself; `starts` is the program that its containerd.service starts. `edited` are the targets that are not as its
    record has them: somebody had changed or removed them, or the set's copy is damaged.
    """

    digest: str = ""
    entries: tuple[Entry, ...] = ()
    programs: dict[str, tuple[str, str]] = {}
    versions: dict[str, str] = {}
    edited: tuple[str, ...] = ()
    starts: str = ""
    snapshotter: str = ""

    def entry(self, path: str) -> Entry | None:
        """The entry of a file, or None where the set does not name it: it is the same now."""
        return next((each for each in self.entries if each.name == path and each.kind in ("put", "absent")), None)

    def version(self, path: str) -> str:
        """The version of a program of this set, "" where it is not known."""
        return self.programs[path][1] if path in self.programs else self.versions.get(path, "")


class Kept(_Frozen):
    """What a rollback has to know of a node."""

    root: bool = True
    systemd: bool = True
    manifest: str = ""
    # The mark of a change that was cut off.
    unfinished: str = ""
    sets: dict[str, KeptSet] = {}
    now: KeptSet = KeptSet()
    unit: Unit = Unit()
    # It is on for good by a deploy's doing; it is on now, by whatever.
    metacopy: bool = False
    metacopy_live: bool = False
    shims: dict[str, int] | None = None
    # KiB that are free, by directory: the state's, and that of the programs.
    space: dict[str, int] = {}

    def to_json(self) -> dict[str, Any]:
        """The sets as JSON values; pyinfra prints a fact through this method."""
        return self.model_dump(mode="json")


def read(lines: Iterable[str]) -> Kept:
    """The kept sets that tasks/scripts/sets.sh describes. Raises ReadingError, and nothing else, whatever the text."""
    found: dict[str, Any] = {"root": False, "systemd": False, "shims": {}}
    sets: dict[str, dict[str, Any]] = {"now": {}}
    looked = False
    try:
        for kind, *fields in records(list(lines)):
            match kind, fields:
                case "user", [user]:
                    found["root"] = user == "0"
                case "systemd", [text]:
                    found["systemd"] = text.startswith("systemd ")
                case (("unfinished" | "manifest"), [text]):
                    found[kind] = text
                case "set", [name, digest]:
                    sets.setdefault(name, {})["digest"] = digest
                case "entry", [name, what, target, detail, state, far, size]:
                    entry = {"kind": what, "name": target, "detail": detail, "state": state, "size": int(size)}
                    sets[name].setdefault("entries", []).append({**entry, "far": far == "yes"})
                case "program", [name, path, component, version]:
                    sets[name].setdefault("programs", {})[path] = (component, version)
                case "version", [name, path, text]:
                    sets[name].setdefault("versions", {})[path] = version_in(text)
                case "edited", [name, path]:
                    sets[name].setdefault("edited", []).append(path)
                case (("starts" | "snapshotter"), [name, text]):
                    sets[name][kind] = text
                case "unit", [("LoadState" | "ActiveState") as field, text]:
                    found.setdefault("unit", {})[field.removesuffix("State").lower()] = text
                case ((("metacopy" | "metacopy-live") as name), _):
                    found[name.replace("-", "_")] = True
                case "space", [place, free] if free.isdecimal():
                    found.setdefault("space", {})[place] = int(free)
                case "shims", [namespace, count]:
                    found["shims"][namespace] = int(count)
                case "shims-read", _:
                    looked = True
        now = KeptSet(**sets.pop("now"))
        kept = {name: KeptSet(**each) for name, each in sets.items()}
        return Kept(**{**found, "shims": found["shims"] if looked else None, "now": now, "sets": kept})
    except ReadingError:
        raise
    except (ValidationError, ValueError, LookupError, TypeError) as error:
        raise ReadingError(f"the answer on the kept sets makes no sense: {error}") from error


@dataclass(frozen=True, slots=True)
class Rollback:
    """What would happen on one node: `changes` in words, `actions` as lines of fields for the node's script."""

    set: str
    findings: tuple[Finding, ...]
    changes: tuple[str, ...]
    actions: tuple[tuple[str, ...], ...]

    @property
    def refused(self) -> bool:
        """Whether the node is left as it is."""
        return any(each.severity == "blocker" for each in self.findings)


def make(kept: Kept, wanted: str) -> Rollback:
    """The rollback of this node to the set `wanted` (PREVIOUS or PREVIOUS_2).

    A change that was cut off goes first: one of a deploy is undone, and a rollback is taken further.
    """
    name = wanted
    if kept.unfinished:
        name = kept.unfinished.partition(" ")[2] if kept.unfinished.startswith("rollback ") else UNDO
    chosen = kept.sets.get(name)
    if chosen is None or not chosen.entries:
        return Rollback(name, tuple(_access(kept)) or (_nothing(kept, name),), (), ())
    stays = {each.name: why for each in chosen.entries if (why := _stays(each, kept, chosen))} if name != UNDO else {}
    back = [each for each in chosen.entries if _comes(each, stays)]
    program = _containerd(kept, chosen)
    findings = [
        *_access(kept),
        *_whole(chosen, name, back),
        *(_edited(kept, chosen, back) if not kept.unfinished else ()),
        *_space(kept, back),
        *_runs(kept, chosen, name, program),
        *(
            note("rollback-stays", f"{path} stays as it is: {why}")
            for path, why in stays.items()
            if any(each.name == path and each.state == "no" for each in chosen.entries)
        ),
    ]
    changes = list(_changes(kept, chosen, back))
    if changes or kept.unfinished:
        changes.append("restart containerd.service and check its health")
    actions = tuple(_actions(kept, name, program, back, stays)) if changes else ()
    return Rollback(name, tuple(findings), tuple(changes), actions)


def _stays(entry: Entry, kept: Kept, chosen: KeptSet) -> str:
    """Why this target is left as it is now, or "" where it comes back."""
    if entry.kind not in ("put", "absent"):
        return ""
    if entry.name in paths.SHARED:
        return "pods and other people's users have IDs by it"
    if entry.name == paths.SYSCTL:
        return "it only raises a limit, and pods may need it"
    turns_on = any(each.kind == "put" and each.name == paths.MODPROBE for each in chosen.entries)
    off_at_boot = (entry.kind, entry.name) == ("put", paths.PRE_START) and kept.metacopy_live and not turns_on
    if (entry.name in _METACOPY and kept.metacopy) or off_at_boot:
        return "metacopy is never turned off: layers made with it would give EPERM for every changed file"
    if entry.name in _RUNTIMES and entry.kind == "absent":
        return "shims of running containers call it by its path"
    if entry.kind == "absent" and entry.name in chosen.edited and entry.name not in chosen.programs:
        return "the set ran with one, but somebody had removed it before the set was saved"
    return ""


def _comes(entry: Entry, stays: dict[str, str]) -> bool:
    match entry.kind:
        case "put" | "absent":
            return entry.name not in stays
        case "package":
            return entry.detail != "-"  # nothing is uninstalled: a package's runc may be in use
        case "disabled":
            return entry.name != "containerd.service"
        case "hold" | "unhold" | "enabled":
            return True
    return False


def _starts(kept: Kept, chosen: KeptSet) -> str:
    """The program that containerd.service would start with this set, whether it is there or not."""
    return chosen.starts if chosen.entry(paths.UNIT) else kept.now.starts or chosen.starts


def _containerd(kept: Kept, chosen: KeptSet) -> str:
    """The containerd that the node would start with this set, "" where there is none."""
    program = _starts(kept, chosen)
    entry = chosen.entry(program)
    there = entry.kind == "put" if entry else program in kept.now.versions
    return program if there else ""


def _versions(kept: Kept, chosen: KeptSet, program: str) -> tuple[str, str]:
    """The version of the containerd that runs (else: is there) now, and of the one that comes back."""
    now = kept.now.versions.get("running") or kept.now.version(kept.now.starts)
    entry = chosen.entry(program)
    then = (chosen if entry else kept.now).version(program) or chosen.versions.get(program, "")
    # It may lie where nothing can be run (noexec). Then the same program in its place may say it.
    return now, then or (kept.now.version(program) if entry and entry.state == "yes" else "")


def _access(kept: Kept) -> Iterator[Finding]:
    if not kept.root:
        yield blocker(
            "not-root", "this connection is not root's, and a rollback needs root: set _sudo = True in the data"
        )
    if not kept.systemd:
        yield blocker("no-systemd", "systemd does not run here, and nothing else can start containerd")


def _nothing(kept: Kept, name: str) -> Finding:
    has = "no change by userns-node was completed here, or only one that changed no file"
    if name == PREVIOUS_2 and PREVIOUS in kept.sets:
        has = "only one set is kept here: tasks.rollback.previous_set brings it back"
    return blocker("rollback-nothing-kept", f"there is nothing to go back to in {paths.STATE}/{name}: {has}")


def _whole(chosen: KeptSet, name: str, back: list[Entry]) -> Iterator[Finding]:
    gone, other = [each.name for each in back if each.state == "missing"], []
    for each in back:
        # A text may have been edited by hand, and have run so. Whether another program would run, nobody knows.
        if each.state == "no" and each.name in chosen.edited and each.name in chosen.programs:
            if each.kind == "absent":
                gone.append(each.name)
            else:
                other.append(f"{paths.STATE}/{name}/{each.detail} is not the {each.name} that its record names")
    lacks = [f"it has no copy of {', '.join(gone)}"] if gone else []
    if wrong := "; ".join([*lacks, *other]):
        yield blocker(
            "rollback-set-damaged",
            f"the kept set is not whole: {wrong}. It would come back as a mixture. Deploy the wanted versions instead",
        )


def _edited(kept: Kept, chosen: KeptSet, back: list[Entry]) -> Iterator[Finding]:
    """What was edited by hand, and what comes of it: no set has the text that a deploy had written there."""
    comes = {each.name for each in back if each.kind in ("put", "absent") and each.state == "no"}
    for path in chosen.edited:
        if path in comes and path not in chosen.programs:
            yield warning(
                "rollback-brings-edited",
                f"the kept set has an edited {path}, not the one that this set's deploy had written: the edited one "
                "comes back. If containerd does not start with it, the rollback is undone. Then deploy the versions of "
                "this set instead, which writes the file anew",
            )
    for path in kept.now.edited:
        if path not in comes:
            yield warning(
                "rollback-leaves-edited",
                f"{path} was edited or removed since the last change, and this set has no other: containerd starts "
                f"with what is there now. If that broke the node, deploy instead, which writes the file anew and keeps "
                f"what was edited in {paths.REPLACED}",
            )


def _space(kept: Kept, back: list[Entry]) -> Iterator[Finding]:
    """Where programs have a file system of their own, what comes back is copied there, and what goes is copied here."""
    copied = sum(each.size for each in back if each.far and each.state == "no") // 1024
    for place, free in kept.space.items():
        needed = copied + _MARGIN_KIB
        if free < needed:
            yield blocker(
                "no-space",
                f"{place} has {free // 1024} MiB free, and {needed // 1024} MiB are needed to bring the kept set back "
                "and to keep the present one: make room",
            )


def _runs(kept: Kept, chosen: KeptSet, name: str, program: str) -> Iterator[Finding]:
    unit = chosen.entry(paths.UNIT)
    if kept.unit.load == "masked" and not (unit and unit.kind == "put" and unit.state == "no"):
        yield blocker(
            "containerd-masked", "containerd.service is masked here: systemctl unmask containerd, then run again"
        )
    usual = (paths.INSTALLED["containerd"], paths.PACKAGED["containerd"])
    if not program and (elsewhere := _starts(kept, chosen)) not in ("", *usual) and not chosen.entry(elsewhere):
        yield blocker(
            "rollback-without-containerd",
            f"the kept set's containerd.service starts {elsewhere}, which no set keeps: it can't be brought back. "
            + (
                "Reboot the node, which undoes the change that was cut off, or deploy again, which goes on from there"
                if name == UNDO
                else "By hand on the node: see which version that is (with containers running, none of 1.x after 2.x), "
                "then go back to it. The next deploy brings its own containerd again"
            ),
            lines=() if name == UNDO else (f"{elsewhere} --version", *_by_hand(chosen, name)),
        )
        return
    if not program:
        yield blocker(
            "rollback-without-containerd",
            "the kept set has no containerd: it is this node before its first deploy, and going back to it would leave "
            "its containers without anybody who could stop them. Nothing is brought back",
        )
        return
    yield from upgrades.orphans(*_versions(kept, chosen, program), kept.shims, program)


def _by_hand(chosen: KeptSet, name: str) -> Iterator[str]:
    """The commands that bring back unit and config.toml of a set, without its programs."""
    for path in (paths.UNIT, paths.CONFIG):
        match chosen.entry(path):
            case Entry(kind="put", detail=number):  # by a new file: others may be hard links to the one that is there
                yield f"cp -a --remove-destination {paths.STATE}/{name}/{number} {path}"
            case Entry(kind="absent"):
                yield f"rm -f {path}"
    yield "systemctl daemon-reload"
    yield "systemctl restart containerd"


def _changes(kept: Kept, chosen: KeptSet, back: list[Entry]) -> Iterator[str]:
    told: dict[str, list[str]] = {}
    for each in back:
        if each.kind == "put" and each.state != "yes" and each.name != paths.MANIFEST:
            component, version = chosen.programs.get(each.name, ("", chosen.versions.get(each.name, "")))
            now = kept.now.version(each.name)
            was = f" (now {now})" if now and now != version else "" if now else " (not there now)"
            what = f"{component} {version}{was}: " if component else ""
            told.setdefault(what, []).append(each.name)
    yield from (f"bring back {what}{', '.join(names)}" for what, names in told.items())
    for each in back:
        match each.kind:
            case "absent" if each.state == "no" and each.name != paths.MANIFEST:
                yield f"remove {each.name}: the kept set has none"
            case "package":
                yield f"install package {each.name} {each.detail} again, where the node's package manager still has it"
            case "hold" | "unhold":
                yield f"{each.kind} package {each.name}"
            case "enabled":
                yield f"enable {each.name}"
            case "disabled":
                yield f"disable {each.name}"


def _actions(
    kept: Kept, name: str, program: str, back: list[Entry], stays: dict[str, str]
) -> Iterator[tuple[str, ...]]:
    chosen = kept.sets[name]
    config = chosen.entry(paths.CONFIG)
    match config.kind if config else "same":
        case "same":
            snapshotter = kept.now.snapshotter
        case "put":
            snapshotter = chosen.snapshotter
        case _:  # without the file it is containerd's own default
            snapshotter = ""
    yield "expect", kept.manifest
    yield "rollback", name, chosen.digest
    yield "health", f"{program.rpartition('/')[0]}/ctr", snapshotter or "overlayfs"
    if program and upgrades.crosses(*_versions(kept, chosen, program)):
        yield ("no-tasks",)
    if name == UNDO:
        return
    yield from (("back", each.kind, each.name, each.detail) for each in back)
    yield from (("stays", path) for path in stays)
