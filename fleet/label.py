"""`fleet.py label`: each node's label in Kubernetes says what was last found of it, so that pods go where they work."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from fleet import child, text
from fleet.child import CannotRun, Events
from fleet.commands import Commands
from fleet.events import Request
from fleet.history import History, NoSuchRun
from fleet.last_word import last_words, rollouts_beside
from fleet.outcome import EXIT_INTERRUPTED
from fleet.records import Record, Status
from fleet.run import Run
from fleet.terminal import say
from tasks.next_step import LABEL

__all__ = ["Labels", "label", "last_found"]

# Names on one command line, and for how many seconds kubectl may be at them.
NAMES, SECONDS = 200, 300
# The lines of a list of nodes: name and label.
_COLUMNS = f'{{range .items[*]}}{{.metadata.name}}{{"\\t"}}{{.metadata.labels.{LABEL}}}{{"\\n"}}{{end}}'


@dataclass
class Labels:
    """The labels in a cluster, by the operator's own kubectl: `command` is how they call it."""

    command: str
    _commands: Commands = field(default_factory=Commands, init=False)

    def read(self) -> dict[str, str]:
        """Every node's, "" where it has none. Raises CannotRun."""
        printed, why = self._kubectl("get", "nodes", "-o", f"jsonpath={_COLUMNS}")
        if why:
            raise CannotRun(f"kubectl get nodes failed: {why}")
        return {name: tier for name, _, tier in (line.partition("\t") for line in printed.splitlines())}

    def write(self, nodes: list[str], tier: str) -> str:
        """Label the nodes, or take the label away where `tier` is ""; why that failed, or ""."""
        said = []
        for first in range(0, len(nodes), NAMES):
            some, word = nodes[first : first + NAMES], f"{LABEL}={tier}" if tier else f"{LABEL}-"
            said.append(self._kubectl("label", "--overwrite", "node", *some, word)[1])
        return "; ".join(filter(None, said))

    def _kubectl(self, *arguments: str) -> tuple[str, str]:
        return self._commands.run([*shlex.split(self.command), *arguments], SECONDS)


def label(
    request: Request,
    history: History,
    labels: Labels,
    *,
    ask: Callable[[], bool] | None,
    verbose: bool,
    events_of: Events,
) -> int:
    """Label the chosen nodes of an inventory as they were last found, once it was told how, and `ask` says yes.

    The result is the exit code: 0 where each has the label that it should have (now), which of one with changes to come
    is whatever it has, or none; 2 where one has not and it is not to get it, 1 where kubectl failed, knows no such
    node, or nobody has read it, 130 where somebody left. Raises CannotRun, BrokenOff, NoSuchRun, and what `ask` raises.
    Without `ask` it only looks.
    """
    records = last_found(history, request.inventory, request.data)
    with events_of(request.model_copy(update={"action": "inventory"}), verbose) as events:
        nodes = {each.name: each.kubernetes_node for each in child.inventory_of(events).hosts}
    there = labels.read()
    if strange := sorted(node for node in nodes.values() if node not in there):
        say(
            f"this cluster has no node {text.names(strange)}: a host's name in Kubernetes is kubernetes_node in its "
            "data, and --limit leaves the hosts of other clusters out"
        )
    if unread := sorted(nodes.keys() - records.keys()):
        say(f"no run has read {text.names(unread)}: plan for them")
    other, left, none = dict[str, list[str]](), list[str](), dict[Status, list[str]]()
    for host, node in sorted(nodes.items()):
        if host not in records or node not in there:
            continue
        tier = records[host].label
        if tier is None and there[node]:
            left.append(f"{node} ({there[node]}; {records[host].status})")
        elif (tier or "") != there[node]:
            other.setdefault(tier or "", []).append(node)
        elif not tier and not records[host].is_well:
            none.setdefault(records[host].status, []).append(node)
    if left:
        say(f"left as it is, of {text.names(left)}")
    if none:
        say(f"no label yet: {'; '.join(f'{text.names(names)} ({status})' for status, names in none.items())}")
    well = {host: record for host, record in records.items() if record.is_well}
    if awaits := sorted(node for host, node in nodes.items() if host in well and well[host].awaits_kubelet):
        say(f"no label for {text.names(awaits)}: restart the kubelet there, and plan for them again")
    failed = bool(strange or unread)
    for tier, names in sorted(other.items()):
        print(f"{LABEL}{f'={tier}' if tier else '-'}: {' '.join(names)}", flush=True)
    if not other and not failed:
        labelled = [node for host, node in nodes.items() if there[node] and records[host].label is not None]
        print(f"nothing to do: {text.counted(len(labelled))} labelled as last found")
    agreed = bool(other and ask and ask())
    try:
        for tier, names in sorted(other.items()) if agreed else ():
            if why := labels.write(names, tier):
                say(f"kubectl label failed: {why}")
                failed = True
    except KeyboardInterrupt:
        say("stopped; some of these labels may have been written: the same command writes the others")
        return EXIT_INTERRUPTED
    return 1 if failed else 2 if other and not agreed else 0


def last_found(history: History, inventory: str, data: Mapping[str, object]) -> Mapping[str, Record]:
    """The last record of each node: of the last run over the whole inventory, and of those over a part of it since.

    What a run with other `data` would have done is nothing that was found; what it did is. And what a rollout did while
    a plan was made beside it is newer than what that has read. Raises NoSuchRun.
    """
    since = list[tuple[Run, bool]]()
    for run in history.runs(inventory):
        if run.knows_its_nodes:
            since.append((run, run.had(data)))
            if run.has_all_nodes and since[-1][1]:
                since += rollouts_beside(history, run)
                break
    found = last_words(history, since)
    if not found:
        raise NoSuchRun(f"there is no run over {inventory}{' with the same --data' * bool(since)}: plan one")
    return found
