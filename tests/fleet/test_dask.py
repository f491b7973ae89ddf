"""fleet.py on a Dask cluster: what one process tells, and what is not sent. test_dask_broken.py breaks it."""

from __future__ import annotations

import os
import shutil
import signal
from collections import Counter, deque
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest
from distributed import Client

import fleet.cluster
from fleet.events import RecordEvent, Request
from fleet.shards import Board, Shard
from lab.paths import REPO
from tests import nodes
from tests.deploy.fleet import READ, Run
from tests.fleet.clusters import Cluster, Controller, Relay, Traced, apply, nobody_left, on
from tests.fleet.runs import fleet_py, statuses
from tests.node.faults import wait_for

BUSY = "is busy with another run: it is waited for"
SECRET = "correct-horse-battery"
REGISTRY = {"r.example": {"auth": {"password": SECRET}}}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Two workers, of which one serves a region."""
    with Cluster(tmp_path_factory.mktemp("cluster") / "dask") as begun:
        begun.start_scheduler()
        begun.start("w1")
        begun.start("w2", "--resources", "north=1")
        wait_for(lambda: "Registered to" in begun.log("w1") and "Registered to" in begun.log("w2"))
        yield begun


def mixed(home: Path) -> Traced:
    """A node of each kind, with passwords in the inventory."""
    fleet = Traced(home)
    fleet.add("fresh", group="workers", ssh_password=SECRET)
    fleet.add("done", nodes.converged(), group="gpu")
    fleet.add("docker", nodes.bare(root=False), group="old")
    fleet.add("typo", group="old", max_pods="many")
    fleet.add("silent", group="old", answers={READ: {"success": False, "stderr": "sh: not found"}})
    fleet.add_unreachable("gone", group="workers")
    fleet.add(
        "private",
        group="workers",
        containerd_config={"plugins": {"io.containerd.cri.v1.images": {"registry": {"configs": REGISTRY}}}},
    )
    return fleet


@pytest.fixture(scope="module")
def planned(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Run, bytes]:
    """A plan in one process, the same one on the cluster, and what went to and from the scheduler for that."""
    fleet = mixed(tmp_path_factory.mktemp("mixed"))
    words = ["plan", str(fleet.inventory), "--json", "--diff"]
    plain = fleet_py(*words, home=fleet.directory)
    with Relay(cluster.port) as relay:
        spread = fleet_py(*words, *on(f"tcp://127.0.0.1:{relay.port}"), "--shard", "2", home=fleet.directory)
        return plain, spread, bytes(relay.passed)


def test_a_plan_is_the_one_of_a_single_process(planned: tuple[Run, Run, bytes]) -> None:
    plain, spread, _ = planned
    assert spread.code == plain.code == 1, spread.text
    assert spread.json == plain.json
    assert spread.json["totals"] == {"changes": 2, "ready": 1, "refused": 2, "failed": 1, "unreachable": 1}


def test_no_key_and_no_secret_passes_the_scheduler(planned: tuple[Run, Run, bytes]) -> None:
    passed = planned[2]
    assert b"@fake/private" in passed  # it is what we take it for, and can be read
    assert b"<secret 1>" in passed
    assert SECRET.encode() not in passed
    assert b"fake_responses" not in passed  # no data of a host


def test_a_setting_on_the_command_line_is_not_sent_but_refused(cluster: Cluster, tmp_path: Path) -> None:
    fleet = mixed(tmp_path)
    run = fleet_py("plan", fleet.inventory, *on(cluster.address), "--data", f"ssh_password={SECRET}", home=tmp_path)
    assert run.code == 1
    assert "--data does not go with a cluster" in run.stderr
    assert SECRET not in run.text


def test_waves_and_the_canary_stay_with_the_controller(cluster: Cluster, tmp_path: Path) -> None:
    fleet = Traced(tmp_path)
    for number in range(1, 5):
        fleet.add(f"n{number}")
    with apply(cluster.address, fleet, "--max-unavailable", "2", "--shard", "1") as controller:
        run = controller.end()
    assert run.code == 0, run.text
    assert [len(wave["nodes"]) for wave in run.json["waves"]] == [1, 2, 1]
    assert set(statuses(run).values()) == {"changed"}
    assert all("proven: root is host uid 65536" in node["proof"][0] for node in run.json["nodes"].values())
    assert {worker for _, worker, _, _ in fleet.touches} == {"w1", "w2"}
    assert fleet.overlaps() == []
    shown = fleet_py("show", str(run.json["run"]), "--json", home=tmp_path).json
    assert {name: each["status"] for name, each in shown["nodes"].items()} == statuses(run)
    nobody_left(fleet)


def test_nodes_are_worked_on_by_the_workers_of_their_region(cluster: Cluster, tmp_path: Path) -> None:
    fleet = Traced(tmp_path)
    for number in range(1, 5):
        fleet.add(f"n{number}", fleet_region="north")
    run = fleet_py("plan", fleet.inventory, "--json", *on(cluster.address), "--shard", "2", home=tmp_path)
    assert run.code == 2, run.text
    assert {worker for _, worker, _, _ in fleet.touches} == {"w2"}
    fleet.add("far", fleet_region="south")
    for patience in ("3", "10", "30"):  # workers of a slow machine take longer to say who they are
        none = fleet_py("plan", fleet.inventory, *on(cluster.address), "--patience", patience, home=tmp_path)
        if " serves " in none.stderr:
            break
    assert none.code == 1
    assert f"the cluster at {cluster.address} has no worker that serves south (--resources)" in none.stderr


def test_a_worker_that_works_for_somebody_else_is_waited_for(tmp_path: Path) -> None:
    fleet = Traced(tmp_path)
    fleet.add("n1")
    with Cluster(tmp_path / "dask").begin("w1") as cluster, Client(cluster.address, set_as_default=False) as other:
        wait_for(lambda: "Registered to" in cluster.log("w1"))
        gate = tmp_path / "gate"
        os.mkfifo(gate)
        held = other.submit(Path.read_bytes, gate, pure=False)  # until somebody has opened it for writing, and closed
        wait_for(lambda: held.key in {key for keys in other.processing().values() for key in keys})
        words = ["plan", str(fleet.inventory), "--json", *on(cluster.address)]
        with Controller.begin(*words, home=tmp_path) as controller:
            wait_for(lambda: BUSY in controller.said or controller.process.poll() is not None)
            gate.write_bytes(b"")
            run = controller.end()
    assert list(statuses(run).values()) == ["changes"], run.text
    assert run.stderr.count(BUSY) == 1
    assert "tried again" not in run.stderr


def test_a_worker_that_hangs_at_the_beginning_holds_up_nobody(tmp_path: Path) -> None:
    fleet = Traced(tmp_path)
    fleet.add("n1")
    with Cluster(tmp_path / "dask").begin("w1", "w2") as cluster:
        wait_for(lambda: all("Registered to" in cluster.log(name) for name in ("w1", "w2")))
        os.kill(cluster.processes["w2"].pid, signal.SIGSTOP)
        run = fleet_py("plan", fleet.inventory, "--json", *on(cluster.address), home=tmp_path)
    assert list(statuses(run).values()) == ["changes"], run.text
    assert {worker for _, worker, _, _ in fleet.touches} == {"w1"}


@pytest.mark.parametrize("other", ["code", "inventory", "unreadable", "nothing"])
def test_a_worker_with_another_checkout_is_refused_by_name_before_anything_is_begun(tmp_path: Path, other: str) -> None:
    fleet = Traced(tmp_path)
    fleet.add("n1")
    checkout = tmp_path / "checkout"
    for name in ("fleet", "tasks", "userns", "templates", "artifacts", "inventories"):
        shutil.copytree(REPO / name, checkout / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("deploy.py", "config.py"):
        shutil.copy(REPO / name, checkout / name)
    inventory = fleet.inventory
    if other == "code":
        with (checkout / "tasks" / "verify.py").open("a") as code:
            code.write("# another line\n")
    elif other == "inventory":
        inventory = REPO / "inventories" / "example.py"  # each machine's own
        (checkout / "inventories" / "example.py").write_text("hosts = ['@fake/other']\n")
    elif other == "unreadable":
        inventory = REPO / "inventories" / "example.py"
        (checkout / "inventories" / "example.py").unlink()
        (checkout / "inventories" / "example.py").symlink_to("/proc/self/mem")  # root may read any other file
    elif other == "nothing":
        shutil.rmtree(checkout / "fleet")
    with Cluster(tmp_path / "dask") as cluster:
        cluster.begin("good")
        cluster.start("other", checkout=checkout)
        wait_for(lambda: "Registered to" in cluster.log("other") and "Registered to" in cluster.log("good"))
        run = fleet_py("apply", inventory, "-y", *on(cluster.address), home=tmp_path)
    assert run.code == 1, run.text
    why = {
        "code": "other code: its checkout",
        "inventory": "another inventory",
        "unreadable": f"{checkout}/inventories/example.py cannot be read: Input/output error",
        "nothing": "it has no checkout",
    }
    assert f": {why[other]}" in run.stderr
    assert run.stderr.count("tcp://127.0.0.1:") == 1  # the good one is not blamed
    assert fleet.touches == []


def test_the_same_checkout_may_be_elsewhere(tmp_path: Path) -> None:
    """The inventory of a checkout is the one at the same place in the worker's."""
    from fleet import checkout

    assert checkout.portable(str(REPO / "inventories" / "demo.py")) == "inventories/demo.py"
    assert checkout.portable("a,b") == "a,b"
    outside = tmp_path / "prod.py"
    outside.write_text("hosts = []\n")
    assert checkout.portable(str(outside)) == str(outside)
    before = checkout.here(str(outside))
    (tmp_path / "group_data").mkdir()
    (tmp_path / "group_data" / "all.py").write_text("max_pods = 50\n")
    after = checkout.here(str(outside))
    assert (before.code, before.inventory != after.inventory) == (after.code, True)


def test_over_tls_with_certificates_on_both_sides(tmp_path: Path) -> None:
    from distributed.security import Security

    made = Security.temporary()
    ca, key = tmp_path / "ca.pem", tmp_path / "key.pem"
    ca.write_text(made.tls_ca_file)
    key.write_text(made.tls_client_key + made.tls_client_cert)
    options = ["--tls-ca-file", str(ca), "--tls-cert", str(key), "--tls-key", str(key)]
    fleet = Traced(tmp_path)
    fleet.add("n1")
    with Cluster(tmp_path / "dask", "tls", options) as cluster:
        cluster.begin("w1")
        client = {"CA_FILE": ca, "CLIENT__CERT": key, "CLIENT__KEY": key}
        mine = {f"DASK_DISTRIBUTED__COMM__TLS__{name}": str(path) for name, path in client.items()}
        words = ["plan", str(fleet.inventory), "--json", *on(cluster.address)]
        run = fleet_py(*words, home=tmp_path, cwd=REPO, **mine)
        assert run.code == 2, run.text
        stranger = fleet_py(*words, "--patience", "1", home=tmp_path)
    assert stranger.code == 1
    assert "Traceback" not in stranger.stderr


def test_without_a_scheduler_there_is_one_process_for_each_core(tmp_path: Path) -> None:
    fleet = Traced(tmp_path)
    for number in range(1, 3):
        fleet.add(f"n{number}", fleet_region="north")  # its workers are all in one place, and serve any
    run = fleet_py("plan", fleet.inventory, "--json", "--scheduler", "local", "--shard", "1", home=tmp_path)
    assert run.code == 2, run.text
    assert list(statuses(run).values()) == ["changes", "changes"]
    assert Counter(host for _, _, host, _ in fleet.touches) == {"n1": 1, "n2": 1}
    assert len({pid for pid, *_ in fleet.touches}) == 2


@pytest.mark.parametrize(
    ("action", "tried", "said"),
    [
        ("plan", ("w1",), "given up: it was not read"),
        ("apply", ("w1",), "given up; what had begun there goes on by itself, and finishes or undoes itself"),
        ("apply", (), "given up: nothing was done there"),
    ],
)
def test_what_was_given_up_is_told_with_what_may_go_on_there(
    action: Literal["plan", "apply"], tried: tuple[str, ...], said: str
) -> None:
    on = fleet.cluster.Cluster("tcp://127.0.0.1:1", fleet.cluster.Settings(), print)
    run = fleet.cluster._Run(on, Request(action=action, inventory="n1,"), None)
    run.board = Board(deque(), on.leases, given_up=[Shard(("n1",), tried=tried, why=("w1: it broke",))])
    (event,) = run._given_up()
    assert isinstance(event, RecordEvent)
    assert event.record.reasons == (said, "w1: it broke")


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("scheduler:8786", "expected tcp://HOST:PORT"),
        ("tcp://127.0.0.1:1", "no scheduler answers at tcp://127.0.0.1:1"),
    ],
)
def test_an_address_where_nobody_is_changes_nothing(tmp_path: Path, address: str, said: str) -> None:
    fleet = Traced(tmp_path)
    fleet.add("n1")
    run = fleet_py("apply", fleet.inventory, "-y", "--scheduler", address, "--patience", "1", home=tmp_path)
    assert run.code == 1
    assert said in run.stderr
    assert "Traceback" not in run.stderr
    assert fleet.touches == []


def test_a_controller_without_dask_says_what_to_install(tmp_path: Path) -> None:
    fleet = Traced(tmp_path)
    fleet.add("n1")
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "sitecustomize.py").write_text(
        "import importlib.util as u\n_find = u.find_spec\n"
        "u.find_spec = lambda name, *more: None if name == 'distributed' else _find(name, *more)\n"
    )
    without = {"PYTHONPATH": str(tmp_path / "none")}
    run = fleet_py("plan", fleet.inventory, "--scheduler", "local", home=tmp_path, cwd=REPO, **without)
    assert run.code == 1
    assert "requirements/dask.txt" in run.stderr
    assert fleet_py("plan", fleet.inventory, home=tmp_path, cwd=REPO, **without).code == 2
