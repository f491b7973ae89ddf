"""fleet.py on real nodes: a canary, a wave that fails on one of them, the rest after its repair, and nothing to do."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lab import Lab, LabNode
from lab.mirror import Mirror
from lab.paths import REPO
from lab.serving import Served
from tests.deploy.fleet import Run
from tests.fleet.runs import statuses
from tests.node.runs import Operator

NAMES = ("wave1", "wave2", "wave3")


@dataclass(frozen=True)
class Fleet:
    """Three real nodes, and fleet.py run from the controller's side of their network."""

    lab: Lab
    home: Path
    inventory: Path
    nodes: dict[str, LabNode]

    def run(self, command: str, *options: str) -> Run:
        argv: list[str | Path] = [sys.executable, REPO / "fleet.py", command, *options]
        argv += ["--history", self.home / "history.db"]
        done = self.lab.run(argv, check=False, cwd=REPO, timeout=900)
        return Run(done.returncode, done.stdout, done.stderr)

    def over_all(self, command: str, *options: str) -> Run:
        return self.run(command, str(self.inventory), "--json", *options)


@pytest.fixture(scope="module")
def fleet(lab: Lab, mirror: Mirror, _releases: Served, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    home = tmp_path_factory.mktemp("fleet")
    nodes = {name: lab.node(name, wait=False) for name in NAMES}
    for node in nodes.values():
        node.wait()
    operator = Operator(lab, home, release_url=_releases.url, artifact_lock=str(mirror.lock))
    inventory = operator.inventory({"workers": {node: {} for node in nodes.values()}})
    yield Fleet(lab, home, inventory, nodes)
    for node in nodes.values():
        node.stop()


@pytest.fixture(scope="module")
def rolled_out(fleet: Fleet) -> dict[str, Run]:
    """The story: a plan, a rollout in which the second node cannot change over, its repair, the rest, another plan."""
    runs = {"plan": fleet.over_all("plan")}
    broken = fleet.nodes["wave2"]
    broken.ssh("mkdir -p /var/lib/userns-node && touch /var/lib/userns-node/staged")  # where a directory has to be
    runs["stopped"] = fleet.over_all("apply", "-y", "--max-unavailable", "1")
    broken.ssh("rm /var/lib/userns-node/staged")
    runs["resumed"] = fleet.over_all("apply", "-y", "--max-unavailable", "100%", "--resume")
    runs["after"] = fleet.over_all("plan")
    return runs


def test_a_plan_says_that_new_nodes_would_change(rolled_out: dict[str, Run]) -> None:
    run = rolled_out["plan"]
    assert run.code == 2, run.text
    assert set(statuses(run).values()) == {"changes"}


def test_a_node_that_fails_stops_the_rollout_behind_the_proven_canary(rolled_out: dict[str, Run]) -> None:
    run = rolled_out["stopped"]
    assert run.code == 1, run.text
    assert statuses(run) == {"wave1": "changed", "wave2": "failed", "wave3": "waiting"}
    assert [wave["nodes"] for wave in run.json["waves"]] == [["wave1"], ["wave2"]]
    assert "proven: root is host uid 65536" in run.json["nodes"]["wave1"]["proof"][0]
    assert run.json["nodes"]["wave2"]["reasons"]


def test_the_node_that_waited_was_not_touched(rolled_out: dict[str, Run]) -> None:
    waited = rolled_out["resumed"].json["nodes"]["wave3"]
    assert "write /etc/containerd/config.toml: new" in "\n".join(waited["changes"])


def test_a_resumed_rollout_does_the_rest_and_every_node_is_proven(rolled_out: dict[str, Run]) -> None:
    run = rolled_out["resumed"]
    assert run.code == 0, run.text
    assert set(statuses(run).values()) == {"changed"}
    assert [sorted(wave["nodes"]) for wave in run.json["waves"]] == [["wave2", "wave3"]]


def test_then_there_is_nothing_to_do(rolled_out: dict[str, Run]) -> None:
    assert rolled_out["after"].code == 0, rolled_out["after"].text
    assert set(statuses(rolled_out["after"]).values()) == {"ready"}


def test_each_node_says_so_itself(fleet: Fleet, rolled_out: dict[str, Run]) -> None:
    for node in fleet.nodes.values():
        assert node.ssh("systemctl is-active containerd").stdout.strip() == "active"


def test_the_history_has_it_all(fleet: Fleet, rolled_out: dict[str, Run]) -> None:
    runs: list[dict[str, Any]] = json.loads(fleet.run("history", "--json").stdout)
    assert [(each["kind"], each["exit_code"]) for each in reversed(runs)] == [
        *(("plan", 2), ("apply", 1)),
        *(("apply", 0), ("plan", 0)),
    ]
