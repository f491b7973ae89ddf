"""The report as metrics in Prometheus' text format, for node_exporter's textfile collector or a push gateway. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import datetime

from fleet.records import Status
from fleet.report import Fleet, tier

__all__ = ["metrics"]

_Samples = Iterable[tuple[dict[str, str], float]]


def metrics(fleet: Fleet) -> str:
    """All metrics, each with its help and type. A node of several groups counts in each of them.

    Each sample has its inventory, as the history has it: two reports in one directory are two files of one metric.
    """
    counts = Counter(
        (group, tier(each), str(each.status)) for each in fleet.records for group in each.groups or ("all",)
    )
    about = fleet.about
    described = [
        (
            "userns_node_fleet_nodes",
            "Nodes by group, status and the tier that they have (not-yet unless ready or changed).",
            (
                ({"group": group, "tier": of, "status": status}, count)
                for (group, of, status), count in sorted(counts.items())
            ),
        ),
        (
            "userns_node_fleet_status_nodes",
            "Nodes by status, each counted once.",
            (({"status": str(status)}, fleet.totals.get(status, 0)) for status in Status),
        ),
        (
            "userns_node_fleet_node_info",
            "One for each node, with its status and the tier that it has.",
            (({"node": each.name, "tier": tier(each), "status": str(each.status)}, 1) for each in fleet.records),
        ),
        (
            "userns_node_fleet_version_nodes",
            "Nodes on which a version is installed.",
            (({"component": each.component, "version": each.version}, each.nodes) for each in fleet.versions),
        ),
        (
            "userns_node_fleet_version_advisories",
            "Open advisories and ends of life of an installed version, by severity.",
            (
                ({"component": each.component, "version": each.version, "severity": severity}, count)
                for each in fleet.versions
                for severity, count in sorted(Counter(one["severity"] for one in each.advisories).items())
            ),
        ),
        (
            "userns_node_fleet_drained_nodes",
            "Nodes whose pods were moved away, and not let back.",
            [({}, sum(each.drained for each in fleet.records))],
        ),
        ("userns_node_fleet_drift_nodes", "Nodes otherwise than in the run before.", [({}, len(fleet.drift))]),
        (
            "userns_node_fleet_run",
            "The number of the reported run, and its choice of nodes.",
            [({"kind": about.kind, "chosen": about.chosen}, about.run)],
        ),
        (
            "userns_node_fleet_run_goes_on",
            "1 while the reported run goes on: nodes of status unknown are in flight.",
            [({}, not about.outcome)],
        ),
        (
            "userns_node_fleet_run_timestamp_seconds",
            "When the reported run began.",
            [({}, datetime.fromisoformat(about.started).timestamp())],
        ),
    ]
    lines = (line for each in described for line in _metric(*each, about.inventory))
    return "\n".join(lines) + "\n"


def _metric(name: str, help: str, samples: _Samples, inventory: str) -> Iterator[str]:
    yield f"# HELP {name} {help}"
    yield f"# TYPE {name} gauge"
    for labels, value in samples:
        told = ",".join(f'{label}="{_escaped(text)}"' for label, text in ({"inventory": inventory} | labels).items())
        yield f"{name}{{{told}}} {value:.0f}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
