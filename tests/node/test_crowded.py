"""A node as full as real ones are: as many containers as the kubelet runs pods, with their mounts and networks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from lab import Lab, LabNode
from lab.mirror import Mirror
from tests.node import releases as made
from tests.node.releases import Releases
from tests.node.runs import Operator, image, leftovers, must

PODS = 110  # the kubelet's default
IMAGE = "docker.io/lab/crowd:1"
# Each with a user namespace of its own, and with what the kubelet mounts and the network plugin makes for it.
CROWD = f"""
    set -e
    ctr images import --no-unpack /root/crowd.tar >/dev/null
    rm /root/crowd.tar
    for pod in $(seq {PODS}); do
        for volume in projected/token secret/key; do
            mkdir -p "/var/lib/kubelet/pods/$pod/volumes/kubernetes.io~$volume"
            mount -t tmpfs -o size=64k tmpfs "/var/lib/kubelet/pods/$pod/volumes/kubernetes.io~$volume"
        done
        ip netns add "pod-$pod"
        map=0:$((65536 * pod)):65536
        ctr run -d --runc-binary /usr/local/sbin/runc --remap-labels --uidmap $map --gidmap $map --cpu-shares 0 \\
            --cgroup "/pod-$pod" {IMAGE} "pod-$pod" /bin/sh -c 'while :; do sleep 60; done' >/dev/null 2>&1 </dev/null
    done"""


@dataclass(frozen=True)
class Crowded:
    """Such a node, deployed to, and what there is to install."""

    node: LabNode
    operator: Operator
    releases: Releases

    def running(self) -> set[str]:
        """The processes of the containers, as the containerd of now knows them."""
        lines = self.node.ssh("ctr tasks ls").stdout.splitlines()[1:]
        return {line for line in lines if line.split()[2] == "RUNNING"}


@pytest.fixture(scope="module")
def crowded(lab: Lab, mirror: Mirror, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crowded]:
    releases = made.build(mirror)
    served = lab.serve(releases.mirror)
    crun = releases.mirror.versions("crun")[0]
    operator = Operator(lab, tmp_path_factory.mktemp("crowded"), **releases.settings(served.url), crun_version=crun)
    node = lab.node("crowded")
    must(operator.deploy(node))
    node.put("/root/crowd.tar", image(node, IMAGE))
    node.ssh(CROWD)
    found = Crowded(node, operator, releases)
    assert len(found.running()) == PODS
    yield found
    node.stop()
    served.stop()


def test_a_plan_finds_it_as_it_was_left(crowded: Crowded) -> None:
    run = must(crowded.operator.dry(crowded.node))
    assert run.will(crowded.node) == []
    assert "volumes-cannot-idmap" not in run.findings(crowded.node)


def test_why_a_new_containerd_did_not_start_is_told_and_not_lost_among_the_shims(crowded: Crowded) -> None:
    before = crowded.running()
    run = crowded.operator.deploy(crowded.node, containerd_version=crowded.releases.broken)
    assert run.failed == [crowded.node.name]
    said = run.said(crowded.node)
    assert "journal: this containerd was made to fail" in said
    assert [line for line in said if "containerd-shim" in line] == []
    assert crowded.running() == before


def test_an_upgrade_and_a_rollback_leave_every_container_as_it_was(crowded: Crowded) -> None:
    node, releases, before = crowded.node, crowded.releases, crowded.running()
    newer = {"containerd_version": releases.newer, "runc_version": releases.newer_runc}
    assert "tier idmapped is proven" in must(crowded.operator.deploy(node, **newer)).said(node)
    assert crowded.running() == before
    must(crowded.operator.rollback(node))
    assert crowded.running() == before
    node.ssh("/usr/local/libexec/userns-node/check")
    assert leftovers(node) == []
