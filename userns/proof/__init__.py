"""The proof: what `tasks/scripts/verify.sh` prints about containers that it started, parsed and judged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal, TypeVar, get_args

from userns.findings import Finding, Severity, blocker, note, warning
from userns.proof import pods
from userns.proof.cri import Status
from userns.proof.pods import Attempt, Pods
from userns.tables import SNAPSHOTTERS

BEGIN = "userns-node-proof"
END = "userns-node-proof-end"
FORMAT = "2"

# What the script maps: container root and the 65535 IDs after it, as the kubelet does for its first pod.
EXPECTED_MAP = "0 65536 65536"
FIRST_HOST_ID = 65536

Rootfs = Literal["idmapped", "chowned", "none"]
# The plan's word for a node's readiness, and what the container's root file system must then be.
_ROOTFS_FOR: dict[str, tuple[Rootfs, ...]] = {
    "idmapped": ("idmapped",),
    "chown": ("chowned", "idmapped"),
    # By a snapshotter that is a program of its own: how the kernel maps, if it does, its mount need not say.
    "remapped": ("chowned", "idmapped"),
    "none": ("idmapped", "chowned", "none"),
}
_VERIFY = "tasks/scripts/verify.sh"
Line = TypeVar("Line")
Read = TypeVar("Read")


class ProofError(ValueError):
    """The text is not a whole proof: cut off, mixed up, or from another version of the script."""


@dataclass(frozen=True, slots=True)
class Result:
    """One handler's container as the kernel showed it. Where it did not start, `error` says why and the rest is empty.

    `host_uid` is the container's root as the node sees it, `owner` the owner of its files as the node sees it;
    None where the node could not see one.
    """

    handler: str
    proven: bool = False
    uid_map: str = ""
    gid_map: str = ""
    rootfs: Rootfs = "none"
    host_uid: int | None = None
    owner: int | None = None
    writable: bool = False
    seconds: float = 0.0
    mount: str = ""
    error: str = ""


@dataclass(frozen=True, slots=True)
class Proof:
    """Everything that one run of the script said. `asked` names the handlers that it was to prove."""

    asked: tuple[str, ...]
    handlers: dict[str, Result]
    untried: str = ""
    left: tuple[str, ...] = ()
    exit_code: int = 0
    pods: Pods = field(default_factory=Pods)

    @property
    def ok(self) -> bool:
        """Every handler that was asked for is proven (and at least one was)."""
        return (
            not self.untried
            and self.exit_code == 0
            and bool(self.asked)
            and all(name in self.handlers for name in self.asked)
            and all(result.proven for result in self.handlers.values())
        )

    @property
    def summary(self) -> tuple[str, ...]:
        """What happened, a line for each handler, for people."""
        lines = [f"not tried: {self.untried}"] if self.untried else []
        lines += [_summary(result) for result in self.handlers.values()]
        if not self.untried:
            lines += [f"{name}: no result" for name in self.asked if name not in self.handlers]
        return (*lines, *self.pods.summary, *(f"left behind: {what}" for what in self.left))

    @property
    def proven(self) -> list[str]:
        """The handlers with which a container was proven."""
        return [name for name, result in self.handlers.items() if result.proven]


def _summary(result: Result) -> str:
    if result.error:
        return f"{result.handler}: did not start in a user namespace: {result.error}"
    how = {
        "idmapped": "an idmapped rootfs",
        "chowned": "a chowned copy of the rootfs",
        "none": "a rootfs without remap",
    }
    return (
        f"{result.handler}: {'proven' if result.proven else 'NOT proven'}: root is host uid {_known(result.host_uid)}, "
        f"uid_map {result.uid_map or 'unknown'}, {how[result.rootfs]}, started in {result.seconds:.2f} s"
    )


def parse(text: str) -> Proof:
    """Parse what the script printed; lines around the proof (a login banner, a warning of sh) are passed over.

    Raises ProofError, and nothing else, where `text` holds no whole proof.
    """
    lines = [line.removesuffix("\r").split("\t") for line in text.split("\n")]
    starts = [number for number, line in enumerate(lines) if line[0] == BEGIN]
    if not starts:
        raise ProofError(f"no line {BEGIN!r} in what {_VERIFY} printed, which ends with {_last(text)!r}")
    begin = lines[starts[-1]]
    if len(begin) != 3 or begin[1] != FORMAT:
        raise ProofError(f"the proof begins with {' '.join(begin)!r}; expected {BEGIN!r}, {FORMAT!r} and the handlers")
    asked = tuple(begin[2].split())
    handlers: dict[str, Result] = {}
    untried, left = "", []
    status: Status | None = None
    attempts: list[Attempt] = []
    why: tuple[str, str] | None = None
    for line in lines[starts[-1] + 1 :]:
        match line:
            case ["proven" | "unproven", *_]:
                result = _result(line)
                handlers[result.handler] = result
            case ["failed", handler, seconds, error]:
                handlers[handler] = Result(handler, seconds=_seconds(seconds), error=error or "no reason was given")
            case ["untried", reason]:
                untried = reason or "no reason was given"
            case ["left", what]:
                left.append(what)
            case ["cri", text]:
                status = _of_a_pod(pods.status, text)
            case ["pod", _, _, _, _, _, _, _, _]:
                attempts.append(_of_a_pod(pods.started, line))
            case ["pod-failed", _, _, _, _, _]:
                attempts.append(_of_a_pod(pods.failed, line))
            case ["no-pod", word, detail]:
                why = pods.untried(word, detail)
            case ["failed" | "untried" | "left" | "cri" | "pod" | "pod-failed" | "no-pod", *_]:
                raise ProofError(f"a line of the proof has {len(line)} fields: {' '.join(line)!r}")
            case [end, code] if end == END and code in {"0", "1", "2"}:
                of_pods = Pods(status, tuple(attempts), why)
                return Proof(asked, handlers, untried, tuple(left), int(code), of_pods)
    raise ProofError(f"the proof was cut off; what {_VERIFY} printed ends with {_last(text)!r}")


def _last(text: str) -> str:
    return next((line.strip()[-200:] for line in reversed(text.split("\n")) if line.strip()), "")


def _result(line: list[str]) -> Result:
    if len(line) != 10:
        raise ProofError(f"a result has {len(line)} fields, expected 10: {' '.join(line)!r}")
    verdict, handler, uid_map, gid_map, rootfs, host_uid, owner, writable, seconds, mount = line
    for kind in get_args(Rootfs):
        if rootfs == kind:
            return Result(
                handler=handler,
                proven=verdict == "proven",
                uid_map=uid_map,
                gid_map=gid_map,
                rootfs=kind,
                host_uid=_id(host_uid),
                owner=_id(owner),
                writable=writable == "yes",
                seconds=_seconds(seconds),
                mount=mount,
            )
    raise ProofError(f"rootfs is {rootfs!r}, expected one of {', '.join(get_args(Rootfs))}")


def _of_a_pod(read: Callable[[Line], Read], line: Line) -> Read:
    try:
        return read(line)
    except ValueError as error:  # a CriError, too
        raise ProofError(f"a line of the proof about pods cannot be read: {error}") from error


def _id(text: str) -> int | None:
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 10):
        raise ProofError(f"{text!r} is not a user id")
    return int(text)


def _seconds(text: str) -> float:
    whole, _, fraction = text.partition(".")
    if not (text.isascii() and whole.isdigit() and (fraction or "0").isdigit() and len(text) <= 20):
        raise ProofError(f"{text!r} is not a number of seconds")
    return float(text)


def rootfs_to_expect(rootfs: str, snapshotter: str) -> str:
    """What `judge` has to expect where the plan says `rootfs`."""
    row = SNAPSHOTTERS.get(snapshotter)
    by_the_kernel = row is not None and row.model in ("overlay", "remap")
    return "remapped" if rootfs == "idmapped" and not by_the_kernel else rootfs


def judge(
    proof: Proof,
    expected_rootfs: str,
    handlers: tuple[str, ...] = (),
    *,
    volumes: str = "all",
    idmaps_volumes: bool = True,
) -> list[Finding]:
    """What in the proof is not as the plan says, blockers first; an empty list is a node that does what it should.

    `expected_rootfs` is the plan's word: `idmapped`, `chown`, or `none` where the operator accepted a node that cannot.
    `handlers` adds names to those that the script was asked for. `volumes` and `idmaps_volumes` are the plan's, too.
    """
    if expected_rootfs not in _ROOTFS_FOR:
        raise ValueError(f"expected_rootfs is {expected_rootfs!r}, expected one of {', '.join(_ROOTFS_FOR)}")
    findings = [finding for result in proof.handlers.values() for finding in _judge(result, expected_rootfs)]
    wanted = tuple(dict.fromkeys((*proof.asked, *handlers)))
    if proof.untried:
        findings.append(blocker("proof-untried", f"no container could be tried: {proof.untried}", _VERIFY))
    elif not wanted:
        findings.append(blocker("proof-handler-missing", "no runtime handler was tried", _VERIFY))
    else:
        findings += [
            blocker("proof-handler-missing", f"runtime handler {name} was not tried, or gave no result", _VERIFY)
            for name in wanted
            if name not in proof.handlers
        ]
    if proof.exit_code != 0 and not any(f.severity is Severity.BLOCKER for f in findings):
        message = f"{_VERIFY} ended with exit code {proof.exit_code} and named no reason"
        findings.append(blocker("proof-failed", message, _VERIFY))
    if expected_rootfs == "none":
        volumes = "none"
    attempts = []
    for attempt in proof.pods.attempts:
        wrong = [] if attempt.call else _pod(attempt, expected_rootfs)
        findings += wrong
        # One that runs, but not as it should, proves nothing.
        attempts.append(replace(attempt, call="it runs", error=wrong[0].message) if wrong else attempt)
    judged = replace(proof.pods, attempts=tuple(attempts))
    findings += judged.judge(proof.proven, volumes=volumes, asked=idmaps_volumes)
    findings += [warning("proof-left-behind", f"the proof could not clean up: {what}", _VERIFY) for what in proof.left]
    order = list(Severity)
    return sorted(findings, key=lambda finding: order.index(finding.severity))


def _judge(result: Result, expected_rootfs: str) -> list[Finding]:
    name = result.handler
    if result.error:
        return [blocker("proof-failed", f"{name}: no container starts in a user namespace: {result.error}", _VERIFY)]
    findings = []
    for kind, value in (("uid", result.uid_map), ("gid", result.gid_map)):
        if value != EXPECTED_MAP:
            message = f"{name}: {kind}_map in the container is {value!r}, expected {EXPECTED_MAP!r}"
            if value.startswith("0 0 "):
                message += ": it runs in the node's own user namespace"
            findings.append(blocker(f"proof-{kind}-map", message, "user_namespaces(7)"))
    if result.host_uid is None or result.host_uid < FIRST_HOST_ID:
        message = f"{name}: the container's root is uid {_known(result.host_uid)} on the node, expected {FIRST_HOST_ID}"
        findings.append(blocker("proof-host-uid", message, _VERIFY))
    if result.owner != result.host_uid:
        message = (
            f"{name}: the container's files belong to uid {_known(result.owner)} on the node, and its root is uid "
            f"{_known(result.host_uid)}: the snapshotter claims to remap IDs, and does not"
        )
        findings.append(blocker("proof-owner", message, "containerd#10313"))
    if not result.writable:
        message = f"{name}: the container's root cannot write to its own root directory"
        findings.append(blocker("proof-not-writable", message, _VERIFY))
    wanted = _ROOTFS_FOR[expected_rootfs]
    if result.rootfs not in wanted:
        message = (
            f"{name}: the container's rootfs is {result.rootfs}, expected {wanted[0]}; its mount is {result.mount}"
        )
        findings.append(blocker(f"proof-not-{wanted[0]}", message, "containerd docs/user-namespaces"))
    elif expected_rootfs == "chown" and result.rootfs == "idmapped":
        message = f"{name}: the rootfs is idmapped, where the plan expected a chowned copy"
        findings.append(note("proof-better", message, _VERIFY))
    if not result.proven and not findings:
        findings.append(blocker("proof-failed", f"{name}: {_VERIFY} does not call it proven: {result}", _VERIFY))
    return findings


def _pod(attempt: Attempt, expected_rootfs: str) -> list[Finding]:
    """What is not right with a container in a pod that runs."""
    name, mount = f"{attempt.handler}, in a pod", attempt.said("mount")
    rootfs: Rootfs = "chowned" if attempt.owner == FIRST_HOST_ID else "none"
    if "/ovl-idmapped" in mount or "idmapped" in mount.partition(" ")[0].split(","):
        rootfs = "idmapped"
    result = Result(
        handler=name,
        proven=True,
        uid_map=attempt.said("uid_map"),
        gid_map=attempt.said("gid_map"),
        rootfs=rootfs,
        host_uid=attempt.host_uid,
        owner=attempt.owner,
        writable=attempt.said("written") == "yes",
        mount=mount,
    )
    findings = [each for each in _judge(result, expected_rootfs) if each.id != "proof-better"]
    return findings + [
        blocker("proof-volume", f"{name}: {trouble}", "tasks/scripts/pod.sh") for trouble in attempt.troubles
    ]


def _known(uid: int | None) -> str:
    return "unknown" if uid is None else str(uid)
