"""Can it be idmapped? The probe's answer where there is one, else what file system and kernel version suggest."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache

from userns.findings import Finding, Severity, warning
from userns.node import Probe
from userns.tables import BOUNDARIES, DISTRIBUTIONS, ERRNOS, FILESYSTEMS, Distribution
from userns.versions import Version, parse

__all__ = ["Answer", "Asked", "advice", "release"]

PROBED = "probed on the node"
_EXHAUSTED = "max-user-namespaces-exhausted"
_OF_NAMESPACES = ("unshare", "uid_map", "gid_map")
_DEFAULTS = {"containerd-root": "/var/lib/containerd", "kubelet-root": "/var/lib/kubelet"}


@lru_cache(maxsize=64)
def release(kernel: str) -> Version | None:
    """Major and minor of a kernel, which is what containerd compares; None where it cannot be read."""
    try:
        version = parse(kernel)
    except ValueError:
        return None
    return parse(f"{version.major}.{version.minor}")


@dataclass(frozen=True, slots=True)
class Answer:
    """Whether `subject` can be idmapped. `finding` is set where the errno has an id of its own, `cure` where it is
    neither the directory's fault nor that of the kernel's age."""

    subject: str
    can: bool
    statement: str
    source: str
    finding: str = ""
    cure: str = ""


@dataclass(slots=True)
class Asked:
    """The questions to one kernel. It remembers which of them had to be answered from versions.

    `zfs`: the version of the OpenZFS that is loaded, "" where there is none or it is not known.
    """

    kernel: Version | None
    probes: Mapping[str, Probe]
    filesystems: Mapping[str, str]
    paths: Mapping[str, str]
    unprobed: str
    zfs: str = ""
    guesses: dict[str, str] = field(default_factory=dict)
    exhausted: str = ""

    @property
    def assumed(self) -> bool:
        """Whether an answer was taken from versions."""
        return bool(self.guesses)

    def kernel_has(self, boundary: str) -> bool:
        """Whether the kernel's version is at or above a boundary; an unknown kernel is below all of them."""
        return self.kernel is not None and self.kernel >= BOUNDARIES[boundary].since

    def probed_ok(self, key: str) -> bool:
        """Whether the probe itself said yes."""
        probe = self.probes.get(key)
        return probe is not None and probe.result == "ok"

    def no_namespace(self) -> Answer | None:
        """Why no pod can have a user namespace at all, whatever becomes of its files; None where it can, or may."""
        probe = self.probes.get("containerd-root")
        if probe is None or probe.result != "cannot" or probe.step not in _OF_NAMESPACES:
            return None
        errno = ERRNOS.get((probe.step, probe.errno))
        if errno is None or errno.finding == _EXHAUSTED:
            return None
        statement = f"a pod cannot have a user namespace ({probe.step}: {probe.errno}, {errno.meaning})"
        return Answer("a pod", False, statement, f"{PROBED}; {errno.source}", errno.finding, errno.cure)

    def directory(self, key: str) -> Answer:
        """The file system under containerd's or the kubelet's root."""
        type, path = self.filesystems.get(key, ""), self.paths.get(key) or _DEFAULTS[key]
        return self._ask(key, f"{path} ({type})" if type else path, lambda: self._suggests(type))

    def tmpfs(self) -> Answer:
        """A fresh tmpfs."""
        return self._ask("tmpfs", "tmpfs", lambda: self._suggests("tmpfs"))

    def overlay(self) -> Answer:
        """An overlay over an idmapped lower directory, in containerd's root."""
        path = self.paths.get("containerd-root") or _DEFAULTS["containerd-root"]
        return self._ask("overlay", f"overlay in {path}", self._suggests_overlay)

    def containerd_check(self) -> Answer:
        """containerd's own test, which it makes in its TMPDIR below Linux 5.19."""
        # The same kernel as in containerd's root: only /tmp may be on another file system.
        suggest = self._suggests_overlay_elsewhere if self.probed_ok("overlay") else self._suggests_overlay
        return self._ask("containerd-check", "overlay in containerd's TMPDIR", suggest)

    def findings(self) -> Iterator[Finding]:
        """What could not be asked, and the one errno that is cured by a sysctl."""
        if self.exhausted:
            meaning = ERRNOS["unshare", "ENOSPC"]
            yield warning(
                _EXHAUSTED,
                f"no user namespace could be made ({self.exhausted}), so nothing could be probed: {meaning.meaning}. "
                "Where the setting is too low, this run raises it and the next one probes, unless this one refuses the "
                "node (a container's is raised on its host, by hand); where it is not, see what holds so many "
                "(lsns -t user)",
                meaning.source,
            )
        if self.guesses:
            whys: dict[str, list[str]] = {}
            for subject, why in self.guesses.items():
                whys.setdefault(why, []).append(subject)
            told = "; ".join(f"{', '.join(subjects)}: {why}" for why, subjects in whys.items())
            yield warning(
                "idmap-not-probed",
                f"not probed; assumed from kernel and file-system versions: {told}",
                "distributions backport idmapped mounts, and disable them: a version proves neither",
            )

    def _ask(self, key: str, subject: str, suggest: Callable[[], tuple[bool, str, str]]) -> Answer:
        probe = self.probes.get(key)
        if probe is not None and probe.result == "ok":
            return Answer(subject, True, f"{subject} can be idmapped", PROBED)
        if probe is not None and probe.result == "cannot":
            errno = ERRNOS.get((probe.step, probe.errno)) or ERRNOS.get(("", probe.errno))
            if errno is None or errno.finding != _EXHAUSTED:
                said = f"{probe.step or 'the probe'}: {probe.errno or probe.detail or 'no'}"
                meaning = f", {errno.meaning}" if errno else ""
                source = f"{PROBED}; {errno.source}" if errno else PROBED
                statement = f"{subject} cannot be idmapped ({said}{meaning})"
                finding, cure = (errno.finding, errno.cure) if errno else ("", "")
                return Answer(subject, False, statement, source, finding, cure)
            self.exhausted = probe.errno
            why = f"no user namespace for the probe ({probe.errno})"
        else:
            why = (probe.detail if probe else "") or self.unprobed
        can, because, source = suggest()
        self.guesses[subject] = why
        lacks_all = not can and self.kernel is not None and not self.kernel_has("mount_setattr")
        statement = f"{subject} {'can' if can else 'cannot'} be idmapped (not probed): {because}"
        return Answer(subject, can, statement, source, "kernel-lacks-idmap" if lacks_all else "")

    def _suggests(self, type: str) -> tuple[bool, str, str]:
        """What the tables say of a file system on this kernel."""
        first = BOUNDARIES["mount_setattr"]
        if self.kernel is None:
            return False, "the kernel's version cannot be read", first.source
        if not self.kernel_has("mount_setattr"):
            return False, f"idmapped mounts begin with Linux {first.since}", first.source
        row = FILESYSTEMS.get(type) or FILESYSTEMS.get(type.partition(".")[0])  # fuse.sshfs is fuse
        if row is None:
            what = f"{type} is not in the tables, but most can" if type else "ext4, xfs and most others can"
            return True, f"{what} on Linux {self.kernel}", "mount_setattr(2)"
        condition = f" ({row.condition})" if row.condition else ""
        if row.since is None:
            return False, f"{type} never can{condition}", row.source
        if row.module_since and self.zfs and parse(self.zfs) < row.module_since:
            told = f"{type} can only from version {row.module_since} of its own on, and this is {self.zfs}"
            return False, told, row.source
        can = self.kernel >= row.since
        return can, f"{type} can {'' if can else 'only '}from Linux {row.since} on{condition}", row.source

    def _suggests_overlay(self) -> tuple[bool, str, str]:
        row = BOUNDARIES["overlay"]
        if self.kernel is None:
            return False, "the kernel's version cannot be read", row.source
        return self.kernel_has("overlay"), f"idmapped layers begin with Linux {row.since}", row.source

    def _suggests_overlay_elsewhere(self) -> tuple[bool, str, str]:
        return True, "in containerd's root it can be", PROBED


def advice(
    findings: list[Finding], faults: Collection[str], os_id: str, os_version: str, kernel: str, *, probed: bool
) -> list[Finding]:
    """The findings, with a distribution's own way out added to those that blame the kernel: the ids in `faults`."""
    row = _distribution(os_id, os_version, kernel)
    if row is None:
        return findings
    told = f"{row.advice[0].upper()}{row.advice[1:]}"
    if row.unprobed and not probed:
        told = f"{told}. {row.unprobed}"
    return [
        replace(each, message=f"{each.message}. {told}")
        if each.severity is Severity.BLOCKER and each.id in faults
        else each
        for each in findings
    ]


def _distribution(os_id: str, os_version: str, kernel: str) -> Distribution | None:
    build = kernel.partition("-")[2]
    for row in DISTRIBUTIONS:
        conditions = ((row.versions, os_version), (row.kernels, kernel), (row.builds, build))
        if os_id in row.os and all(wanted is None or wanted.fits(text) for wanted, text in conditions):
            return row
    return None
