"""Moving pods away from a node before a change that disturbs them, and letting them back: by kubectl or by hooks."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any

from fleet.commands import Commands

__all__ = ["KUBECTL", "Guard", "Hooks", "Kubectl", "blocked_pods", "matches"]

KUBECTL = "kubectl"
# Beyond what kubectl was given for itself; a connection that hangs must not hold up a rollout.
GRACE_SECONDS = 60
# kubectl 1.20 to 1.37 print this for each attempt; "Cannot evict pod" is the API server's own sentence.
_BLOCKED = re.compile(
    r'evicting pods?/?"?(?P<pod>[\w.-]+)"? (?:in namespace |-n )"?(?P<namespace>[\w-]+)"?.*Cannot evict pod'
)
# What kubectl 1.20 to 1.37 and we say of a time that is over.
_TOO_LATE = re.compile(r"timeout reached|did not complete within|no end within")


# Told of the hosts that are ours to give back from now on.
Begun = Callable[[Iterable[str]], None]


def _nobody(_: Iterable[str]) -> None: ...


@dataclass
class Guard:
    """What is done around a disturbing change: here, nothing.

    `ours`: names in Kubernetes of the nodes that an earlier run of ours has left as `before` leaves them.
    """

    ours: set[str] = field(default_factory=set, kw_only=True)
    given_back: set[str] = field(default_factory=set, kw_only=True)

    def before(self, nodes: Mapping[str, str], say: Callable[[str], None], begun: Begun = _nobody) -> dict[str, str]:
        """Make these nodes (host: its name in Kubernetes) free; the hosts that could not be, each with why.

        `begun` is called with the hosts that are ours to give back, before anything is done to them. A node where
        that failed, and that is as it was, is in `given_back` then.
        """
        return {}

    def after(self, nodes: Mapping[str, str], say: Callable[[str], None]) -> dict[str, str]:
        """Let pods back; the hosts where that failed, each with why."""
        return {}

    def left(self, node: str) -> str:
        """What is to be done about a node that `before` was begun for, and `after` was not."""
        return ""


@dataclass
class Hooks(Guard):
    """Commands of the operator's own, with the node's names in NODE and HOST; exit code 0 means that it worked.

    They are told of by their options: their text may hold a password, and a history is shown to more people.
    """

    before_command: str = ""
    after_command: str = ""
    seconds: float = 600

    def before(self, nodes: Mapping[str, str], say: Callable[[str], None], begun: Begun = _nobody) -> dict[str, str]:
        """Run the one command for each node, one after the other. One that failed may have done half of it."""
        begun(nodes)
        return self._run("--before", self.before_command, nodes, say)

    def after(self, nodes: Mapping[str, str], say: Callable[[str], None]) -> dict[str, str]:
        """Run the other one."""
        return self._run("--after", self.after_command, nodes, say)

    def left(self, node: str) -> str:
        """Name both commands. Without --before nothing moved its pods, unless an earlier run did."""
        if self.before_command:
            return f"the --before command was run for {node}, and --after was not"
        return "" if node in self.ours else f"the --after command was not run for {node}"

    def _run(self, option: str, command: str, nodes: Mapping[str, str], say: Callable[[str], None]) -> dict[str, str]:
        failed = {}
        for host, node in nodes.items() if command else ():
            say(f"{host}: the {option} command")
            if why := Commands().run(["sh", "-c", command], self.seconds, {"NODE": node, "HOST": host})[1]:
                why = why.replace(f"`{command}'", f"<{option}>")  # what bash says of one that it cannot read
                failed[host] = f"the {option} command failed: {why}"
        return failed


@dataclass
class Kubectl(Guard):
    """The operator's own kubectl: `command` is how they call it, `arguments` go to `kubectl drain`.

    A node that somebody else has cordoned stays so: it is in `theirs` from `before` on.
    """

    command: str = KUBECTL
    arguments: tuple[str, ...] = ("--ignore-daemonsets",)
    seconds: int = 300
    parallel: int = 8
    theirs: set[str] = field(default_factory=set)
    _commands: Commands = field(default_factory=Commands, init=False)

    def before(self, nodes: Mapping[str, str], say: Callable[[str], None], begun: Begun = _nobody) -> dict[str, str]:
        """Drain the nodes. One that cannot be drained in time is uncordoned again, if it was not cordoned before."""
        self.given_back -= set(nodes.values())
        failed = self._each(self._look, nodes, say)
        known = {host: node for host, node in nodes.items() if host not in failed}
        begun([host for host, node in known.items() if node not in self.theirs])
        return failed | self._each(self._drain, known, say)

    def after(self, nodes: Mapping[str, str], say: Callable[[str], None]) -> dict[str, str]:
        """Uncordon the nodes, but those that were cordoned before."""
        return self._each(self._give_back, nodes, say)

    def left(self, node: str) -> str:
        """Say how to uncordon it, without the operator's own words: a token may be among them."""
        where = "" if self.command == KUBECTL else " (as --kubectl had it)"
        return f"its pods were moved away, and it may be cordoned still: {KUBECTL} uncordon {node}{where}"

    def _each(
        self, work: Callable[[str, Callable[[str], None]], str], nodes: Mapping[str, str], say: Callable[[str], None]
    ) -> dict[str, str]:
        with ThreadPoolExecutor(self.parallel) as pool:
            try:
                begun = {host: pool.submit(work, node, say) for host, node in nodes.items()}
                # Python hears a signal that comes right before it waits once that wait is over: so none is long.
                while wait(begun.values(), timeout=1).not_done:
                    pass
                done = {host: each.result() for host, each in begun.items()}
            except BaseException:  # somebody leaves, and not after the longest drain
                pool.shutdown(wait=False, cancel_futures=True)
                self._commands.leave()
                raise
        return {host: why for host, why in done.items() if why}

    def _look(self, node: str, say: Callable[[str], None]) -> str:
        """See who has cordoned it, if anybody has."""
        found, why = self._kubectl("get", "node", node, "-o", "json")
        if why:
            return f"kubectl get node {node} failed: {why}"
        try:
            cordoned = bool(json.loads(found).get("spec", {}).get("unschedulable"))
        except (ValueError, AttributeError):
            return f"kubectl get node {node} printed something else than the node: {found[:200]!r}"
        if not cordoned:  # somebody has let pods back meanwhile
            self.ours.discard(node)
        elif node not in self.ours:
            self.theirs.add(node)
            say(f"{node} was cordoned before, and stays so")
        return ""

    def _drain(self, node: str, say: Callable[[str], None]) -> str:
        say(f"draining {node}")
        _, why = self._kubectl(
            "drain", node, f"--timeout={self.seconds}s", *self.arguments, seconds=self.seconds + GRACE_SECONDS
        )
        if not why or self._commands.left:
            return why
        culprits = self._culprits_or_none(why)
        within = f" within {self.seconds} s" if culprits or _TOO_LATE.search(why) else ""
        told = f"{node} could not be drained{within}: {culprits or why}"
        if node in self.theirs or node in self.ours:
            return f"{told}. It was cordoned before, and is still"
        if not (undone := self._uncordon(node, say)):
            self.given_back.add(node)
        return f"{told}. " + (f"And {undone}" if undone else "It was uncordoned again")

    def _give_back(self, node: str, say: Callable[[str], None]) -> str:
        return "" if node in self.theirs else self._uncordon(node, say)

    def _uncordon(self, node: str, say: Callable[[str], None]) -> str:
        say(f"uncordoning {node}")
        why = self._kubectl("uncordon", node)[1]
        return f"kubectl uncordon {node} failed: {why}" if why else ""

    def _culprits_or_none(self, said: str) -> str:
        """The culprits, or "": their names are worth no node that stays cordoned, whatever kubectl prints."""
        try:
            return self._culprits(said)
        except Exception:
            return ""

    def _culprits(self, said: str) -> str:
        """The PodDisruptionBudgets that kept pods, by name, as far as kubectl's words and the API tell."""
        told = []
        for namespace, pod in blocked_pods(said):
            budgets = [
                each["metadata"]["name"]
                for each in self._items("get", "poddisruptionbudgets", "-n", namespace, "-o", "json")
                if matches(each.get("spec", {}).get("selector"), self._labels(namespace, pod))
            ]
            by = (
                f"PodDisruptionBudget {', '.join(f'{namespace}/{name}' for name in budgets)}" if budgets else "a budget"
            )
            told.append(f"{by} keeps pod {namespace}/{pod}")
        return "; ".join(told)

    def _labels(self, namespace: str, pod: str) -> Mapping[str, str]:
        found, why = self._kubectl("get", "pod", pod, "-n", namespace, "-o", "json")
        labels: Mapping[str, str] = {} if why else (_parsed(found).get("metadata") or {}).get("labels") or {}
        return labels

    def _items(self, *arguments: str) -> list[dict[str, Any]]:
        found, why = self._kubectl(*arguments)
        return [] if why else list(_parsed(found).get("items") or [])

    def _kubectl(self, *arguments: str, seconds: float = GRACE_SECONDS) -> tuple[str, str]:
        return self._commands.run([*shlex.split(self.command), *arguments], seconds)


def blocked_pods(said: str) -> list[tuple[str, str]]:
    """The (namespace, pod)s that kubectl says a budget kept, each once."""
    return list(dict.fromkeys((each["namespace"], each["pod"]) for each in _BLOCKED.finditer(said)))


def matches(selector: Mapping[str, Any] | None, labels: Mapping[str, str]) -> bool:
    """Whether a label selector selects these labels; an empty one selects all, and none at all nothing."""
    if selector is None:
        return False
    wanted: Mapping[str, str] = selector.get("matchLabels") or {}
    if any(labels.get(key) != value for key, value in wanted.items()):
        return False
    return all(_holds(each, labels) for each in selector.get("matchExpressions") or ())


def _holds(expression: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    value, values = labels.get(expression["key"]), expression.get("values") or ()
    match expression["operator"]:
        case "In":
            return value in values
        case "NotIn":
            return value not in values
        case "Exists":
            return value is not None
        case _:  # DoesNotExist
            return value is None


def _parsed(text: str) -> dict[str, Any]:
    """The object that kubectl prints; an empty one where a wrapper around it says something else."""
    try:
        parsed = json.loads(text)
    except ValueError:
        return {}
    return parsed if isinstance(parsed, dict) else {}
