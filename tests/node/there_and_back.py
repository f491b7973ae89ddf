"""The main job in short, for a kind of node that is like none of the other tests': all that changes it, once."""

from __future__ import annotations

from typing import Any

from lab import LabNode
from tests.node.faults import contents
from tests.node.releases import Releases
from tests.node.runs import Operator, leftovers, must, start_counter


def run(operator: Operator, node: LabNode, releases: Releases, **login: Any) -> None:
    """A deploy, one that is undone, an upgrade and a rollback, under a container that counts.

    `operator` deploys the older ones of `releases`; `login` is how somebody comes to the node, where not as root.
    """
    planned = must(operator.dry(node, **login)).will(node)
    first = must(operator.deploy(node, **login))
    assert first.will(node) == planned
    assert "tier idmapped is proven" in first.said(node)
    assert must(operator.deploy(node, **login)).done(node) == []
    counter = start_counter(node)
    before = contents(node)
    broken = operator.deploy(node, containerd_version=releases.broken, **login)
    assert broken.failed == [node.name]
    assert contents(node) == before
    newer = {"containerd_version": releases.newer, "runc_version": releases.newer_runc}
    assert "tier idmapped is proven" in must(operator.deploy(node, **newer, **login)).said(node)
    must(operator.rollback(node, **login))
    assert must(operator.deploy(node, **login)).done(node) == []
    node.ssh("/usr/local/libexec/userns-node/check")
    assert leftovers(node) == []
    assert counter.trouble() == []
