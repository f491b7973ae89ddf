"""The reference of findings: every id, how much it matters, what is said, and what to do."""

from __future__ import annotations

from collections.abc import Iterator

from docs_reference.markdown import plain
from docs_reference.source import ROOT, Told, read
from userns.findings import Severity
from userns.tables import ADVISORIES, KNOWN_IDS, LINES, RELEASES
from userns.tables.symptoms import SYMPTOMS

_INTRO = """\
# Findings

*This page is made from the code.*

A finding is what a plan, a proof or the check on a node noticed. A **blocker** refuses the node, and nothing on it is
changed. A **warning** is shown in every run. A **note** explains. `allow = ["id"]` in the settings turns that one
blocker into a warning; nothing else does. A rollback reads no settings, so `allow` has no effect on it. Where an id has
two severities, the node decides which.

In the texts below "…" stands for what the node or the settings put there. The text that a run prints is the whole one:
it names the value, and what to do.
"""

_OF_A_RUN = """\
## Lines of a run

What a run meets only when it changes the node is a line of its own, `warning: ID: …`, and no finding: it refuses
nothing, and `allow` does not know it.
"""
# The section of what a rollback alone tells: it reads no settings, `allow` among them.
_ROLLBACK = "A rollback"
# What helps with all of a section.
_FIXES = {
    "The check that stays on the node": "Each is told by `/usr/local/libexec/userns-node/check`, with what it saw. A "
    "deploy puts right what it had set up: look with `deploy.py --dry --diff`, then run it again.",
    _ROLLBACK: "See [Go back](../how-to/rollback.md).",
    "The proof": "The change itself stays. Every deploy tries the proof again until it succeeds; the containers' own "
    "errors are in the message, and `python -m userns diagnose` reads them.",
    "Advisories": "Move to a fixed release: `python -m artifacts add COMPONENT VERSION` pins it, and the setting "
    "`containerd_version`, `runc_version` or `crun_version` asks for it.",
}


def page() -> str:
    """The whole page."""
    told = read()
    parts = [_INTRO]
    for title, ids in _sections():
        parts.append(f"## {title}\n")
        if title in _FIXES:
            parts.append(f"{_FIXES[title]}\n")
        parts += [_entry(id, KNOWN_IDS[id], told[id], may_be_allowed=title != _ROLLBACK) for id in ids]
    parts.append(_OF_A_RUN)
    parts += [_entry(id, about, told[id], may_be_allowed=False) for id, about in LINES.items()]
    return "\n".join(parts)


def _sections() -> Iterator[tuple[str, list[str]]]:
    """The ids under the headings of their table, then those that have tables of their own."""
    left = dict.fromkeys(KNOWN_IDS)
    for title, ids in _headings():
        for id in ids:
            del left[id]
        yield title, ids
    rest = {
        "Advisories": [row.finding for row in ADVISORIES] + [id for id in left if id.startswith("open-advisories-")],
        "Ends of life": [row.finding for row in RELEASES],
    }
    others = [id for id in left if not any(id in ids for ids in rest.values())]
    yield "Versions with each other, and refusals of the kernel", others
    for title, ids in rest.items():
        yield title, list(dict.fromkeys(ids))


def _headings() -> Iterator[tuple[str, list[str]]]:
    """The comments of userns/tables/findings.toml, each with the ids below it."""
    title, ids = "", list[str]()
    for line in (ROOT / "userns/tables/findings.toml").read_text("utf-8").partition("[findings]")[2].splitlines():
        if line.startswith("# "):
            if ids:
                yield title, ids
            words = line[2:]
            title, ids = words if words.startswith("config.toml") else words[0].upper() + words[1:], []
        elif " = " in line:
            ids.append(line.split(" = ")[0].strip())
    yield title, ids


def _entry(id: str, about: str, told: Told, *, may_be_allowed: bool) -> str:
    severities = [each for each in Severity if each in told.severities]
    allowed = " (`allow` may name it)" if may_be_allowed and Severity.BLOCKER in severities else ""
    parts = [f"### {id}", f"**{' or '.join(severities)}**{allowed}: {plain(about)}."]
    parts += [f"> {plain(message)}" for message in told.messages if message != about]
    symptoms = [row for row in SYMPTOMS if id in row.findings]
    if symptoms:
        parts.append("Where a log, an event or an error tells of it (`python -m userns diagnose`):")
        parts.append("\n".join(f"- {plain(row.cause)}. **Fix:** {plain(row.fix)}." for row in symptoms))
    if told.sources:
        parts.append(f"Source: {'; '.join(plain(source) for source in told.sources)}.")
    return "\n\n".join(parts) + "\n"
