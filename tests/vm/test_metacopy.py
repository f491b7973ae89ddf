"""Turning metacopy off, on a kernel of the node's own: never under snapshots, and for real where there are none."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.node.runs import Run, start_counter
from tests.vm.boots import MODPROBE
from tests.vm.rollout import METACOPY, Rollout

KERNEL = "6.12"
OFF = "metacopy-off-with-snapshots"


@dataclass(frozen=True)
class TurnedOff:
    """`refused` with a container on the node, `done` without one; and what the node was after each of them."""

    refused: Run
    held: str
    done: Run
    empty: str


@pytest.fixture(scope="module")
def turned_off(rollout: Rollout) -> Iterator[TurnedOff]:
    vm = rollout.vms[KERNEL]
    look = f"{METACOPY}; cat {MODPROBE} 2>/dev/null | grep ^options"
    counter = start_counter(vm)
    refused = rollout.deploy(KERNEL, overlay_metacopy=False)
    held = vm.ssh(look, check=False).stdout
    assert counter.stopped_counting() == ""
    counter.remove()
    vm.ssh("ctr images rm --sync docker.io/lab/counter:1 && ctr namespaces rm default")
    done = rollout.deploy(KERNEL, overlay_metacopy=False)
    yield TurnedOff(refused, held, done, vm.ssh(look, check=False).stdout)
    back = rollout.deploy(KERNEL)
    assert (back.code, vm.ssh(METACOPY).stdout) == (0, "Y\n")


def test_it_is_refused_while_containerd_holds_a_snapshot(rollout: Rollout, turned_off: TurnedOff) -> None:
    vm = rollout.vms[KERNEL]
    assert turned_off.refused.failed == [vm.name]
    assert turned_off.refused.findings(vm)[OFF] == "blocker"
    assert turned_off.held == "Y\noptions overlay metacopy=Y\n"


def test_an_empty_node_is_turned_off_at_once_and_for_every_boot(rollout: Rollout, turned_off: TurnedOff) -> None:
    vm = rollout.vms[KERNEL]
    assert turned_off.done.code == 0, turned_off.done.text
    assert OFF not in turned_off.done.findings(vm)
    assert turned_off.empty == "N\n"
