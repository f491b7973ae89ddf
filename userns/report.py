"""Reports: what was decided about a node or about versions, as text for people and as JSON."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from pydantic import ValidationError

from userns.changes import Change
from userns.diagnose import Diagnosis
from userns.findings import Finding, Severity
from userns.node import Node
from userns.planning import Decision, Plan
from userns.readiness import Readiness

__all__ = ["NOTHING_RECOGNISED", "Report", "as_json", "as_text", "diagnoses", "nodes", "of_plan"]

_WIDTH = 100
_INDENT = "  "


@dataclass(frozen=True, slots=True)
class Report:
    """What is to be told about one subject: a host, or versions by themselves."""

    subject: str
    findings: tuple[Finding, ...]
    readiness: Readiness | None = None
    decisions: tuple[Decision, ...] = ()
    changes: tuple[Change, ...] = ()

    @property
    def refused(self) -> bool:
        """Whether a blocker is left."""
        return any(each.severity is Severity.BLOCKER for each in self.findings)


def of_plan(subject: str, plan: Plan) -> Report:
    """The report on one host's plan."""
    return Report(
        subject,
        plan.findings,
        plan.readiness,
        tuple(each for each in plan.decisions if each.name not in ("tier", "because")),
        plan.changes,
    )


def as_json(report: Report) -> dict[str, Any]:
    """The report as JSON values."""
    ready = report.readiness
    told: dict[str, Any] = {"refused": report.refused}
    if ready is not None:
        told |= {
            "tier": ready.tier,
            "rootfs": ready.rootfs,
            "volumes": ready.volumes,
            "slow_chown": ready.slow_chown,
            "assumed": ready.assumed,
            "summary": ready.summary,
            "reasons": [{"statement": statement, "source": source} for statement, source in ready.reasons],
        }
    told["findings"] = [
        {
            "id": each.id,
            "severity": each.severity.value,
            "allowed": each.allowed,
            "message": each.message,
            "source": each.source,
            "lines": list(each.lines),
        }
        for each in report.findings
    ]
    return told | {
        "decisions": [asdict(each) for each in report.decisions],
        "changes": [_change(each) for each in report.changes],
    }


def _change(change: Change) -> dict[str, Any]:
    """A change with its fields, but for those that may hold a password: a file's text, a mirror's URL."""
    kind = re.sub(r"(?<=.)(?=[A-Z])", "-", type(change).__name__).lower()
    shown = {each.name: getattr(change, each.name) for each in fields(change) if each.repr}
    return {"kind": kind, "summary": change.summary, **shown}


def as_text(report: Report) -> str:
    """The report for people."""
    return "\n".join(_lines(report)) + "\n"


NOTHING_RECOGNISED = (
    "nothing in this text is known to be about user namespaces. Try the journals of containerd and the kubelet around\n"
    "the failure, the pod's events (kubectl describe pod), or the kernel's log (journalctl -k)\n"
)


def diagnoses(found: Sequence[Diagnosis], file: str = "") -> str:
    """What was recognised in a text, for people; `file` is named where there are several."""
    lines: list[str] = []
    for each in found:
        lines += ["", f"{f'{file}, ' if file else ''}line {each.number}: {each.line}"]
        lines += _wrapped(f"cause: {each.cause}") + _wrapped(f"fix: {each.fix}") if each.fix else _wrapped(each.cause)
        lines += _wrapped(f"source: {each.source}")
        if each.findings:
            lines += _wrapped(f"a deploy tells of it beforehand: {', '.join(each.findings)}")
        if each.settings:
            lines += _wrapped(f"settings that decide it: {', '.join(each.settings)}")
    return "\n".join(lines[1:]) + "\n"


def _lines(report: Report) -> Iterator[str]:
    ready = report.readiness
    verdict = "refused" if report.refused else "ready" if ready is not None else "nothing refuses it"
    yield f"{report.subject}: {verdict}"
    if ready is not None:
        yield from _wrapped(f"tier {ready.tier}: {ready.summary}")
        if ready.slow_chown:
            yield from _wrapped(f"slow_chown true: {ready.slow_chown_reason}")
    for finding in report.findings:
        yield ""
        yield from _wrapped(str(finding))
        if finding.source:
            yield from _wrapped(f"({finding.source})", 2)
        yield from (f"{_INDENT * 3}{line}" for line in finding.lines)
    if ready is not None:
        yield from _section("why", [f"{statement} ({source})" for statement, source in ready.reasons])
    yield from _section("decided", [str(each) for each in report.decisions])
    title = "would change, if nothing refused it" if report.refused else "would change"
    yield from _section(title, [each.summary for each in report.changes])


def _section(title: str, items: Sequence[str]) -> Iterator[str]:
    if items:
        yield ""
        yield f"{_INDENT}{title}:"
        for item in items:
            yield from _wrapped(f"- {item}", 2)


def _wrapped(text: str, depth: int = 1) -> list[str]:
    indent = _INDENT * depth
    return textwrap.wrap(
        text,
        _WIDTH,
        initial_indent=indent,
        subsequent_indent=f"{indent}{_INDENT}",
        break_long_words=False,
        break_on_hyphens=False,
    )


def nodes(document: object) -> dict[str, Node]:
    """The nodes in a saved fact, by host: `{fact: {host: node}}` as pyinfra prints it, `{host: node}`, or one node.

    Raises ValueError with what is wrong and where.
    """
    if not isinstance(document, dict):
        raise ValueError(f"a JSON object was expected, not {type(document).__name__}")
    if "kernel" in document:
        return {"node": _node("node", document)}
    hosts: Mapping[str, object] = document
    if document and all(isinstance(each, dict) and "kernel" not in each for each in document.values()):
        hosts = {host: each for hosts_of_fact in document.values() for host, each in hosts_of_fact.items()}
    if not hosts:
        raise ValueError("there is no host in it")
    return {host: _node(host, each) for host, each in hosts.items()}


def _node(host: str, value: object) -> Node:
    if not isinstance(value, dict):
        raise ValueError(f"{host} has no answer ({value!r}): the fact failed there")
    try:
        return Node.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(each) for each in first["loc"])
        raise ValueError(
            f"{host}: {where}: {first['msg']}. Was it saved by `pyinfra --json INVENTORY fact tasks.node.Node` of this "
            "version?"
        ) from error
