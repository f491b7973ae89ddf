"""A node where no pod starts at all, whatever its user namespace: this says nothing against the node's readiness."""

from __future__ import annotations

from pathlib import Path

from lab import Lab, cni
from lab.mirror import Mirror
from lab.serving import Served
from tests.node.conftest import BootNode
from tests.node.runs import Operator, image, must
from tests.vm import pods


def test_where_pods_fail_without_a_user_namespace_too_the_level_is_container_and_nothing_is_refused(
    lab: Lab, mirror: Mirror, releases: Served, fresh_node: BootNode, tmp_path: Path
) -> None:
    node = fresh_node()
    operator = Operator(lab, tmp_path, release_url=releases.url, artifact_lock=str(mirror.lock))
    must(operator.deploy(node))
    cni.install(node)
    node.put("/root/pod.tar", image(node, pods.IMAGE, *pods.SLEEP))
    pods.give_pause(node)
    before = pods.look(node)
    # A sandbox may not lower its oom_score_adj here, or finds no cpu controller: the machine's own cgroups decide.
    run = must(operator.prove(node))
    [level] = [line for line in run.said(node) if "proof-level" in line]
    assert "runc: up to container: a container, through ctr, and not more: a pod starts here neither with a" in level
    assert pods.changes({"node": before}, {"node": pods.look(node)}) == []
