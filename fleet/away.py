"""Whose pods were moved away for a change, so that nobody forgets to let them back, whatever becomes of the change."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from fleet.drain import Guard

__all__ = ["Away"]


@dataclass
class Away:
    """`nodes` are the hosts' names in Kubernetes; `hosts` those whose pods are away, or are being moved."""

    guard: Guard
    say: Callable[[str], None]
    nodes: Mapping[str, str] = field(default_factory=dict)
    hosts: set[str] = field(default_factory=set)

    def found(self, hosts: Iterable[str]) -> None:
        """An earlier run moved the pods of these away, and did not let them back."""
        self.hosts |= (found := set(hosts))
        self.guard.ours |= {self.nodes[host] for host in found}

    def leave(self, hosts: Iterable[str], write: Callable[[Iterable[str]], object]) -> dict[str, str]:
        """Move the pods of these away; the hosts where that failed, each with why.

        `write` is called with those that are ours to give back, right before something is done to them. One stays ours
        where that failed, unless the guard has given it back.
        """

        def begun(ours: Iterable[str]) -> None:
            self.hosts |= set(ours)
            write(ours)

        failed = self.guard.before({host: self.nodes[host] for host in hosts}, self.say, begun)
        self.hosts -= {host for host in failed if self.nodes[host] in self.guard.given_back}
        return failed

    def back(self, hosts: Iterable[str]) -> dict[str, str]:
        """Let pods back to these; the hosts where that failed, each with why."""
        nodes = {host: self.nodes[host] for host in hosts}
        failed = self.guard.after(nodes, self.say)
        self.hosts -= nodes.keys() - failed.keys()
        return failed

    def told(self, host: str) -> str:
        """What somebody has to do about a host whose pods are away still."""
        return self.guard.left(self.nodes[host])
