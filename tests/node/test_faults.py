"""A sample of the fault harness (tests.faults), and whether it sees what is wrong: `make test-faults` runs it all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from random import SystemRandom

import pytest

from lab import Lab
from lab.mirror import Mirror
from tests.conftest import in_ci
from tests.faults import catalogue
from tests.faults.running import Worker
from tests.faults.verdict import Verdict
from tests.node import releases as made

SAMPLE = 5
# A draw of CI's own would fail somebody's change for what was there before; `make test-faults` finds new ones. These
# five strike at a step: no clock decides what they prove.
CI_SEED = 2278


@pytest.fixture(scope="module")
def worker(lab: Lab, mirror: Mirror, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    worker = Worker(lab, made.build(mirror), tmp_path_factory.mktemp("faults"))
    yield worker
    worker.end()


def test_whatever_breaks_the_node_has_one_whole_set(worker: Worker, capsys: pytest.CaptureFixture[str]) -> None:
    seed = int(os.environ.get("FAULTS_SEED") or (CI_SEED if in_ci() else SystemRandom().randrange(10**6)))
    lengths = {change: worker.length(change) for change in ("config", "containerd")}
    cases = catalogue.sample(seed, SAMPLE, lengths)
    with capsys.disabled():
        print(f"\nFAULTS_SEED={seed}: {', '.join(map(str, cases))}")
    outcomes = [worker.run(case, seed) for case in cases]
    assert len({case.fault for case in cases}) == SAMPLE
    bad = [str(outcome) for outcome in outcomes if outcome.problems or outcome.dead or not outcome.struck]
    assert not bad, f"FAULTS_SEED={seed}\n" + "\n".join(bad)


def test_a_fault_that_does_not_strike_takes_back_what_it_prepared(worker: Worker) -> None:
    case = catalogue.Case.of("clock-in-the-past@config:999")
    there_and_back = [worker.run(case, 0) for _ in range(2)]  # to files that are known, the second time
    assert [(each.struck, each.problems, each.dead) for each in there_and_back] == [(False, (), "")] * 2


def test_a_node_that_is_worse_off_is_seen_to_be(worker: Worker) -> None:
    ground = worker.ground()
    before = ground.look()
    broken = (
        "cp /usr/bin/true /usr/local/sbin/.true && mv /usr/local/sbin/.true /usr/local/sbin/runc",
        "touch /etc/containerd/.config.toml.userns-node-new",
        "sed -i 's/debug-/debug-other-/' /etc/containerd/config.toml",
        f"kill -KILL {ground.counter.pid}",
    )
    ground.node.ssh("; ".join(broken))
    assert ground.counter.stopped_counting()
    verdict = Verdict(ground, before)
    verdict.judge([], ground.settings)
    seen = "\n".join(verdict.problems)
    assert "after the fault there is left: /etc/containerd/.config.toml.userns-node-new" in seen
    assert "after the fault containerd has read another config than the one on the disk" in seen
    assert "neither the old set nor the new one: " in seen
    assert "usr/local/sbin/runc" in seen
    worker.drop()
