"""fleet.py on a Dask cluster that breaks: nodes are tried again elsewhere, never by two at a time, and told of once."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import fleet.cluster
from fleet.events import RecordEvent, Request
from fleet.records import Record
from tests.deploy.fleet import Run
from tests.fleet.clusters import LEASE, SECONDS, Cluster, Controller, Relay, Traced, apply, nobody_left
from tests.fleet.runs import fleet_py, statuses
from tests.node.faults import wait_for

NAMES = ("n1", "n2", "n3", "n4")


@pytest.fixture(scope="module")
def scheduler(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A scheduler that goes on; the workers come and go with the tests."""
    with Cluster(tmp_path_factory.mktemp("scheduler") / "dask") as begun:
        begun.start_scheduler()
        yield begun


@pytest.fixture
def cluster(scheduler: Cluster) -> Iterator[Cluster]:
    """It, and at the end of a test no workers."""
    yield scheduler
    for name in set(scheduler.processes) - {"scheduler"}:
        scheduler.kill(name)


@pytest.fixture
def nodes(tmp_path: Path) -> Traced:
    """A canary, and then three nodes that can be held."""
    made = Traced(tmp_path)
    for name in NAMES:
        made.add(name)
    return made


@contextmanager
def held(cluster: Cluster, nodes: Traced, *options: str) -> Iterator[Controller]:
    """A rollout that has come to the nodes after the canary: the only worker has them in hand, and cannot go on."""
    more = ("--lease", str(LEASE), "--max-unavailable", "2", "--max-failures", "9", *options)
    with apply(cluster.address, nodes, *more) as controller:
        wait_for(lambda: "wave 2: @fake/n2, @fake/n3" in controller.said or controller.process.poll() is not None)
        nodes.hold("w1")
        done = len(nodes.touches)
        wait_for(lambda: {"n2", "n3"} <= {host for _, _, host, _ in nodes.touches[done:]})
        assert nodes.runners  # else a test that finds none after it would say nothing
        yield controller


def every_node_once(controller: Controller, nodes: Traced) -> None:
    """Each is told of once, as changed, in the report and in the history; no two worked on one at a time."""
    run = controller.end()
    assert run.code == 0, run.text
    assert statuses(run) == {f"@fake/{name}": "changed" for name in NAMES}
    assert [name for wave in run.json["waves"] for name in wave["nodes"]] == [f"@fake/{name}" for name in NAMES]
    assert in_the_history(run, nodes) == statuses(run)
    assert nodes.overlaps() == []
    assert [nodes.workers_of(name)[-1] for name in NAMES] == ["w1", "w2", "w2", "w2"]
    nobody_left(nodes)


class Work:
    """Two nodes to be changed on a cluster, begun: its only worker has them in hand, and cannot go on."""

    def __init__(self, cluster: Cluster, nodes: Traced, *, slow: float | None = None, patience: float = 120) -> None:
        self._nodes = nodes
        self._said: list[str] = []
        self._records: list[Record] = []
        self._on = fleet.cluster.Cluster(
            cluster.address, fleet.cluster.Settings(lease=LEASE, slow=slow, patience=patience), self._said.append
        )
        self._request = Request(action="apply", inventory=str(nodes.inventory), hosts=("@fake/n2", "@fake/n3"))
        self._thread = threading.Thread(target=self._run, daemon=True)

    @property
    def said(self) -> str:
        return "\n".join(self._said)

    def end(self) -> list[Record]:
        """What became of the nodes."""
        self._thread.join(SECONDS)
        assert not self._thread.is_alive(), self.said
        return self._records

    def done_by_the_second(self) -> None:
        """Both were told of once, as changed by the second worker, which did not begin before the first had ended."""
        records = self.end()
        assert [(each.name, each.status) for each in records] == [("@fake/n2", "changed"), ("@fake/n3", "changed")]
        assert self._nodes.overlaps() == []
        assert [self._nodes.workers_of(name) for name in ("n2", "n3")] == [["w1", "w2"], ["w1", "w2"]]
        nobody_left(self._nodes)

    def _run(self) -> None:
        with self._on.events(self._request) as events:
            self._records.extend(sorted((each.record for each in events if isinstance(each, RecordEvent)), key=_name))

    def __enter__(self) -> Work:
        self._nodes.hold("w1")
        self._thread.start()
        wait_for(lambda: {"n2", "n3"} <= {host for _, _, host, _ in self._nodes.touches} or not self._thread.is_alive())
        assert self._nodes.runners
        return self

    def __exit__(self, *_: object) -> None:
        self._on.close()


def _name(record: Record) -> str:
    return record.name


def in_the_history(run: Run, nodes: Traced) -> dict[str, str]:
    return statuses(fleet_py("show", str(run.json["run"]), "--json", home=nodes.directory))


def test_a_worker_that_is_killed(cluster: Cluster, nodes: Traced) -> None:
    cluster.start("w1")
    with held(cluster, nodes) as controller:
        cluster.start("w2")
        cluster.kill("w1")
        every_node_once(controller, nodes)
    assert "its worker was lost" in controller.said


def test_a_worker_that_nobody_hears_of_any_more(cluster: Cluster, nodes: Traced) -> None:
    """It lives, and so would what it began: that ends by itself before others begin."""
    with Relay(cluster.port) as relay:
        cluster.start("w1", through=relay.port)
        with Work(cluster, nodes) as work:
            cluster.start("w2")
            relay.hold()
            work.done_by_the_second()
        assert cluster.processes["w1"].poll() is None
    assert "its worker cannot be heard" in work.said


def test_a_worker_that_hangs(cluster: Cluster, nodes: Traced) -> None:
    cluster.start("w1")
    with Work(cluster, nodes) as work:
        cluster.start("w2")
        os.kill(cluster.processes["w1"].pid, signal.SIGSTOP)
        work.done_by_the_second()


def test_a_shard_that_is_slow(cluster: Cluster, nodes: Traced) -> None:
    cluster.start("w1")
    with Work(cluster, nodes, slow=40) as work:
        cluster.start("w2")
        work.done_by_the_second()
    assert "nothing was heard of it for 40 s" in work.said


def test_a_scheduler_that_dies_and_comes_back(tmp_path: Path, nodes: Traced) -> None:
    with Cluster(tmp_path / "dask") as cluster:
        cluster.begin("w1")
        with Work(cluster, nodes) as work:
            cluster.kill("scheduler")
            wait_for(lambda: "trying to reach it again" in work.said)
            cluster.begin("w2")
            work.done_by_the_second()


def test_a_scheduler_that_does_not_come_back(tmp_path: Path, nodes: Traced) -> None:
    with Cluster(tmp_path / "dask") as cluster:
        cluster.begin("w1")
        wait_for(lambda: "Registered to" in cluster.log("w1"))
        with Work(cluster, nodes, patience=10) as work:
            cluster.kill("scheduler")
            records = work.end()
        nobody_left(nodes)
    assert [(each.name, each.status) for each in records] == [("@fake/n2", "unknown"), ("@fake/n3", "unknown")]
    told = " ".join(records[0].reasons)
    assert "finishes or undoes itself" in told
    assert "there was no scheduler for 10 s" in told


def test_a_controller_that_is_killed_leaves_nobody_behind(cluster: Cluster, nodes: Traced) -> None:
    cluster.start("w1")
    with held(cluster, nodes) as controller:
        controller.process.kill()
        nobody_left(nodes)


def test_ctrl_c_finishes_the_nodes_in_flight(cluster: Cluster, nodes: Traced) -> None:
    cluster.start("w1")
    with held(cluster, nodes) as controller:
        controller.process.send_signal(signal.SIGINT)
        wait_for(lambda: "stopping: the nodes in flight are finished" in controller.said)
        nodes.hold("w1").unlink()
        run = controller.end()
    assert run.code == 130
    assert run.json["outcome"] == "interrupted: the nodes in flight were finished"
    assert list(statuses(run).values()) == ["changed", "changed", "changed", "waiting"]


def test_a_second_ctrl_c_leaves_nobody_behind(cluster: Cluster, nodes: Traced) -> None:
    cluster.start("w1")
    with held(cluster, nodes) as controller:
        controller.process.send_signal(signal.SIGINT)
        wait_for(lambda: "stopping: the nodes in flight are finished" in controller.said)
        controller.process.send_signal(signal.SIGINT)
        run = controller.end()
    assert run.code == 130
    assert run.json["outcome"] == "interrupted: nodes were left in flight"
    assert list(statuses(run).values()) == ["changed", "unknown", "unknown", "waiting"]
    assert nodes.overlaps() == []
    nobody_left(nodes)
