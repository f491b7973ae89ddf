"""A node on which fapolicyd runs, as on RHEL under STIG: each new program is a stranger to it."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from lab import Lab, LabNode, debs
from lab.mirror import Mirror
from tests.node import releases as made
from tests.node.faults import contents
from tests.node.releases import Releases
from tests.node.runs import Counter, Operator, leftovers, must, start_counter

# Its rules are those that upstream calls known-libs, RHEL's default, but for 30-patterns.rules: that one forbids the
# sealed copies of themselves that runc and crun start, where they are linked dynamically. Debian's are; upstream's
# releases are not. Trusted is all that lies in /usr now, as where a package manager's database has it. As root: to
# change its user, it wants a capability that a lab may lack.
SET_UP = """
    set -e
    for deb in /root/debs/*.deb; do dpkg --extract "$deb" /; done
    ldconfig
    mkdir -p /etc/fapolicyd/rules.d /var/lib/fapolicyd
    cd /usr/share/fapolicyd/sample-rules
    cp 10-* 20-* 21-* 40-* 41-* 42-* 70-* 72-* 90-* 95-* /etc/fapolicyd/rules.d
    sed -i 's/^[ug]id .*//; s/^trust .*/trust = file/' /etc/fapolicyd/fapolicyd.conf
    printf 'uid = root\\ngid = root\\n' >>/etc/fapolicyd/fapolicyd.conf
    for place in bin sbin lib local; do fapolicyd-cli --file add "/usr/$place/"; done >/dev/null 2>&1
"""
START = """
    set -e
    systemctl restart fapolicyd
    for try in $(seq 300); do
        ! journalctl --quiet --unit fapolicyd --invocation 0 --grep 'Starting to listen' >/dev/null || exit 0
        sleep 0.1
    done
    exit 1
"""
RULES = "/etc/fapolicyd/rules.d/25-userns-node.rules"


@dataclass(frozen=True)
class Guarded:
    """Such a node, which had a deploy before it was guarded."""

    node: LabNode
    operator: Operator
    releases: Releases
    counter: Counter


@pytest.fixture(scope="module")
def guarded(lab: Lab, mirror: Mirror, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    releases = made.build(mirror)
    served = lab.serve(releases.mirror)
    operator = Operator(
        lab,
        tmp_path_factory.mktemp("guarded"),
        **releases.settings(served.url),
        crun_version=releases.mirror.versions("crun")[0],
    )
    node = lab.node("guarded")
    must(operator.deploy(node))
    shutil.copytree(debs.for_a_node("fapolicyd"), node.root / "root/debs")
    node.ssh(SET_UP)
    counter = start_counter(node)
    node.ssh(START)
    yield Guarded(node, operator, releases, counter)
    node.stop()
    served.stop()


def test_a_containerd_that_may_start_nothing_is_found_before_anything_changes(guarded: Guarded) -> None:
    node, before = guarded.node, contents(guarded.node)
    run = guarded.operator.deploy(node, containerd_version=guarded.releases.newer)
    assert run.failed == [node.name]
    assert "containerd: operation not permitted" in run.said(node)
    assert "error: this node does not let containerd start /usr/local/bin/containerd-shim-runc-v2. " in run.stderr
    assert "nothing was changed" in run.said(node)
    assert (contents(node), leftovers(node)) == (before, [])
    assert guarded.counter.trouble() == []


def test_a_runtime_that_a_trusted_containerd_starts_is_let_in(guarded: Guarded) -> None:
    run = must(guarded.operator.deploy(guarded.node, runc_version=guarded.releases.newer_runc))
    assert "tier idmapped is proven" in run.said(guarded.node)


def test_with_the_rule_that_the_error_names_it_runs(guarded: Guarded) -> None:
    node, newer = guarded.node, {"containerd_version": guarded.releases.newer}
    rule = re.search(rf"{RULES}: (allow perm=.*?)\)", guarded.operator.deploy(node, **newer).stderr)
    assert rule
    node.put(RULES, f"{rule[1]}\n".encode())
    node.ssh(START)
    run = must(guarded.operator.deploy(node, **newer))
    assert "tier idmapped is proven" in run.said(node)
    assert must(guarded.operator.deploy(node, **newer)).done(node) == []
    assert guarded.counter.trouble() == []
