"""The pods of a proof: what `tasks/scripts/pod.sh` prints about those that it started over CRI, parsed and judged."""

from __future__ import annotations

import binascii
from base64 import b64decode
from dataclasses import dataclass
from urllib.parse import unquote

from userns.findings import Finding, blocker, note
from userns.paths import DROP_INS
from userns.proof import cri

_POD = "tasks/scripts/pod.sh"
# As far as a proof can go. The first one is a container that `ctr` started.
CONTAINER, POD, POD_WITH_VOLUMES = "container", "pod", "pod-with-volumes"
# What a container had of volumes, the least first.
_RANKS = [cri.volumes_name(volumes) for volumes in reversed(cri.ATTEMPTS)]
_NONE = -1
# How far a pod has to get, by the plan's word for the volumes of a node.
_EXPECTED = {"all": len(_RANKS) - 1, "no-tmpfs": _RANKS.index("disk"), "none": _NONE}
_WITH = {"plain": "no volume", "disk": "a volume in the kubelet's root", "tmpfs": "a volume on tmpfs"}
_WHY = {
    "kubelet": "a kubelet runs on this node, and ends every pod that it does not know",
    "network": "pods have no network here",
    "pause": "the image that pods begin with is not on the node and could not be pulled",
    "cri": "CRI gave no answer",
    "tools": "CRI cannot be spoken to",
    "image": "the pod's image could not be given to CRI",
    "volumes": "no volume could be made",
    "pods": "a pod starts here neither with a user namespace nor without one",
}


@dataclass(frozen=True, slots=True)
class Attempt:
    """One container in a pod, as the kernel showed it; or where `call` failed, with which code and words.

    `volumes` is plain, disk or disk+tmpfs, and empty where the sandbox itself did not start. `owners` are the UID:GID
    on the node of the file that the container wrote into each volume; `host_uid` and `owner` are those of its root
    and of its files.
    """

    handler: str
    volumes: str
    seconds: float = 0.0
    host_uid: int | None = None
    owner: int | None = None
    owners: tuple[tuple[str, str], ...] = ()
    report: cri.Exec | None = None
    call: str = ""
    code: str = ""
    error: str = ""

    def said(self, key: str) -> str:
        """What the container's shell said of this."""
        return next((rest for word, _, rest in self._lines if word == key), "")

    @property
    def _lines(self) -> list[tuple[str, str, str]]:
        return [line.partition(" ") for line in self.report.stdout.splitlines()] if self.report else []

    @property
    def troubles(self) -> list[str]:
        """What is not right with its volumes, where it runs."""
        if self.report and self.report.code:
            return [f"its shell ended with exit code {self.report.code}: {self.report.stderr.strip()}"]
        wanted = [] if self.volumes in ("", "plain") else self.volumes.split("+")
        said = dict(
            words for word, _, rest in self._lines if word == "volume" and len(words := rest.split(" ", 1)) == 2
        )
        owners = dict(self.owners)
        found = []
        for name in wanted:
            if said.get(name) != "yes yes":
                found.append(f"{_WITH[name]} is not its own, or cannot be written: {said.get(name, 'it is not there')}")
            elif owners.get(name) != "0:0":
                belongs = owners.get(name) or "nobody known"
                found.append(f"what it wrote to {_WITH[name]} belongs to {belongs} on the node, expected 0:0")
        return found


@dataclass(frozen=True, slots=True)
class Pods:
    """All that was said of pods. `why` tells with a word and its details why none, or no further one, was tried."""

    status: cri.Status | None = None
    attempts: tuple[Attempt, ...] = ()
    why: tuple[str, str] | None = None

    def best(self, handler: str) -> int:
        """How much of volumes a pod with this handler had that started: an index of _RANKS, or -1."""
        started = (_RANKS.index(each.volumes) for each in self.attempts if each.handler == handler and not each.call)
        return max(started, default=_NONE)

    def level(self, handler: str) -> str:
        """How far the proof got, of a handler with which a container was proven."""
        best = self.best(handler)
        if best == len(_RANKS) - 1:
            return POD_WITH_VOLUMES
        return CONTAINER if best == _NONE else POD

    @property
    def summary(self) -> list[str]:
        """A line for each pod that started."""
        return [
            f"{each.handler}: a pod with {_volumes(each.volumes)} runs, started in {each.seconds:.2f} s"
            for each in self.attempts
            if not each.call
        ]

    def judge(self, handlers: list[str], *, volumes: str, asked: bool = True) -> list[Finding]:
        """What a node with these proven handlers is to be told, with the level that was proven.

        `volumes` is the plan's word: `all`, `no-tmpfs`, `none`. `asked` is False where Kubernetes asks for no
        idmapped volumes, and a plain pod is all that there is to prove.
        """
        if self == Pods():  # nobody asked for pods
            return []
        expected = _EXPECTED[volumes]
        if not asked and expected != _NONE:
            expected = _RANKS.index("plain")
        findings = [finding for name in handlers for finding in self._shortfall(name, expected)]
        if self.status and expected != _NONE:
            findings += self._unclaimed(handlers)
            if asked:  # else it may be a containerd 1.7, which names no handler, and a kubelet that asks of none
                findings += self._unknown(handlers)
        told: dict[str, list[str]] = {}
        for name in handlers:
            told.setdefault(self._level(name, expected, asked), []).append(name)
        return findings + [note("proof-level", f"{', '.join(names)}: {text}", _POD) for text, names in told.items()]

    def _shortfall(self, handler: str, expected: int) -> list[Finding]:
        best = self.best(handler)
        failed = [each for each in self.attempts if each.handler == handler and each.call]
        if best > expected >= 0:
            text = f"{handler}: a pod with {_volumes(_RANKS[best])} runs, which was not expected of this node"
            return [note("proof-better", text, _POD)]
        if best >= expected:
            return []
        # The one that was expected to start; or the sandbox, without which there is no container. Where neither was
        # tried, because a kubelet started meanwhile, nothing is known.
        of_them = [each for each in failed if each.volumes in ("", _RANKS[expected])]
        return [
            blocker(
                "proof-pod-failed",
                f"{handler}: {_what(each)} fails in a user namespace: {_error(each)}",
                _POD,
            )
            for each in of_them[:1]
        ]

    def _unclaimed(self, handlers: list[str]) -> list[Finding]:
        """The handlers for which containerd reports no user namespaces; also the default one, if it is another one."""
        claims = dict(self.status.handlers) if self.status else {}
        unclaimed = {name: "" for name in handlers if claims.get(name) is False}
        if not unclaimed and claims.get("") is False:
            more = f". Another handler than default_runtime is the default one: look into {DROP_INS}"
            unclaimed = {"pods without a RuntimeClass": more}
        return [
            blocker(
                "proof-handler-unclaimed",
                f"{name}: containerd does not report user namespaces for it, so a kubelet (1.30 and later) refuses "
                "its pods with hostUsers: false. containerd asks a runtime only when it starts: systemctl restart "
                f"containerd, and prove it again{more}",
                "kubernetes/kubernetes#123216",
            )
            for name, more in unclaimed.items()
        ]

    def _unknown(self, handlers: list[str]) -> list[Finding]:
        """The handlers that containerd does not name: it runs with another config than the one that has them.

        A container is proven all the same, because ctr is given the runtime's path.
        """
        named = dict(self.status.handlers) if self.status else {}
        knows = f"It knows {', '.join(filter(None, named))}" if any(named) else "It names none, as containerd 1.x does"
        return [
            blocker(
                "proof-handler-unclaimed",
                f"{name}: the containerd that runs does not know this handler: a kubelet (1.30 and later) refuses the "
                f"pods. {knows}. Is the handler in its config, and was it restarted since?",
                "kubernetes/kubernetes#123216",
            )
            for name in handlers
            if name not in named
        ]

    def _level(self, handler: str, expected: int, asked: bool) -> str:
        best, level = self.best(handler), self.level(handler)
        if level == POD_WITH_VOLUMES:
            return f"up to {level}: a pod over CRI, with idmapped volumes in the kubelet's root and on tmpfs"
        text = f"up to {level}: "
        text += f"a pod over CRI with {_volumes(_RANKS[best])}" if level == POD else "a container, through ctr"
        if level == POD and not asked:
            return f"{text}; this Kubernetes asks for no idmapped volumes"
        for more in self.attempts:
            if more.handler == handler and more.call:
                expects = ", as is to be expected of this node" if best >= expected else ""
                return f"{text}. More fails{expects}: {_what(more)}: {_error(more)}"
        return f"{text}, and not more: {self._why()}"

    def _why(self) -> str:
        if self.why is None:
            return "no pod was tried"
        word, detail = self.why
        if word == "network" and not detail and self.status:
            detail = next((each.message for each in self.status.conditions if each.type == "NetworkReady"), "")
        return _WHY.get(word, word) + (f": {detail}" if detail else "")


def _volumes(name: str) -> str:
    return " and ".join(_WITH[each] for each in name.split("+"))


def _what(failed: Attempt) -> str:
    return f"a pod with {_volumes(failed.volumes)}" if failed.volumes else "a pod's sandbox"


def _error(failed: Attempt) -> str:
    return f"{failed.call}: {failed.error or f'nothing was said, and the code is {failed.code}'}"


def started(line: list[str]) -> Attempt:
    """Read a line of a container that runs. Raises ValueError where it is none."""
    _, handler, volumes, seconds, host_uid, owner, disk, tmpfs, report = line
    if volumes not in _RANKS:
        raise ValueError(f"{volumes!r} names no volumes, expected one of {', '.join(_RANKS)}")
    owners = tuple((name, text) for name, text in (("disk", disk), ("tmpfs", tmpfs)) if text)
    uids = [int(text) if text.isascii() and text.isdigit() else None for text in (host_uid, owner)]
    return Attempt(handler, volumes, float(seconds), uids[0], uids[1], owners, cri.read_exec(_decoded(report)))


def failed(line: list[str]) -> Attempt:
    """Read a line of a call that failed."""
    _, handler, volumes, call, code, error = line
    if volumes and volumes not in _RANKS:
        raise ValueError(f"{volumes!r} names no volumes, expected one of {', '.join(_RANKS)}")
    return Attempt(handler, volumes, call=call or "?", code=code, error=unquote(error).strip())


def untried(word: str, detail: str) -> tuple[str, str]:
    """Read why no pod was tried."""
    return word, unquote(detail).strip()


def status(text: str) -> cri.Status:
    """Read what CRI said of itself."""
    return cri.read_status(_decoded(text))


def _decoded(text: str) -> bytes:
    try:
        return b64decode(text, validate=True)
    except binascii.Error:
        raise ValueError(f"{text[:40]!r} is not base64") from None
