"""The report as one HTML page that needs nothing else: no network, no server, no other file."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Hashable
from hashlib import sha256
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from fleet.records import Record
from fleet.report import NOT_YET, TIERS, Fleet, fix, tier
from fleet.run import short

__all__ = ["html"]

HOME = Path(__file__).with_name("page")
# Beyond so many, nodes and reasons are found by the filters: the page stays quick to open.
NAMED, REASONS = 40, 100
_BAR_WIDTH, _BAR_HEIGHT, _LABEL_WIDTH = 560, 22, 150


def html(fleet: Fleet) -> str:
    """The page."""
    script, style = (HOME / "page.js").read_text("utf-8"), (HOME / "page.css").read_text("utf-8")
    data = _packed(fleet)
    environment = Environment(
        loader=FileSystemLoader(HOME), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("page.html").render(
        fleet=fleet,
        commit=short(fleet.about.commit),
        tiers=TIERS,
        bars=_bars(fleet),
        named=NAMED,
        reasons=REASONS,
        label_width=_LABEL_WIDTH,
        bar_width=_BAR_WIDTH,
        bar_height=_BAR_HEIGHT,
        data=data,
        script=script,
        style=style,
        script_digest=_digest(script),
        data_digest=_digest(data),
        style_digest=_digest(style),
    )


def _bars(fleet: Fleet) -> list[dict[str, Any]]:
    """The picture: a bar for each group, with a part for each tier, as shares of the group."""
    bars = []
    for row, (group, counts) in enumerate(fleet.tiers.items()):
        total, x, parts = sum(counts.values()), 0.0, []
        for name, count in counts.items():
            width = _BAR_WIDTH * count / total
            parts.append({"tier": name, "count": count, "x": round(_LABEL_WIDTH + x, 1), "width": round(width, 1)})
            x += width
        bars.append({"group": group, "total": total, "y": row * (_BAR_HEIGHT + 8), "parts": parts, "counts": counts})
    return bars


def _packed(fleet: Fleet) -> str:
    """The nodes for the script, each text once: nodes of a fleet have most of it in common.

    As JSON that no "</script>" in it can end.
    """
    texts: dict[Hashable, int] = {}

    def number(text: Hashable) -> int:
        return texts.setdefault(text, len(texts))

    def packed(record: Record) -> list[Any]:
        return [
            record.name,
            [number(each) for each in record.groups],
            number(str(record.status)),
            number(tier(record)),
            number(_summary(record)),
            number(record.kernel),
            number(record.system),
            [[number(name), number(each.installed), number(each.wanted)] for name, each in record.versions.items()],
            [number(each) for each in record.reasons],
            [
                [number(f"{each.severity} {each.id}"), number(each.message), number(each.source)]
                for each in record.findings
            ],
            [number(each) for each in record.changes],
            list(record.proof),
            number(fix(record, fleet.about) if record.needs_attention else ""),
        ]

    nodes = [packed(each) for each in fleet.records]
    drift = {each.name: [number(one) for one in each.what] for each in fleet.drift}
    told = json.dumps({"texts": list(texts), "nodes": nodes, "drift": drift}, separators=(",", ":"), ensure_ascii=False)
    return told.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _summary(record: Record) -> str:
    """What its tier means; of a node that has none yet, which one it would have."""
    would_be = f"would be {record.tier}: {record.summary}" if record.tier else ""
    return would_be if tier(record) == NOT_YET else record.summary


def _digest(text: str) -> str:
    """For the page's own content policy: it runs this script and no other."""
    return "sha256-" + b64encode(sha256(text.encode()).digest()).decode()
