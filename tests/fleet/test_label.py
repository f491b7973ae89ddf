"""`fleet.py label`: the labels of a cluster are those of what was last found, and nobody else's are touched."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fleet import label as labelling
from fleet.cli import main
from fleet.label import Labels
from fleet.records import FindingRecord, Record, Status
from tasks.next_step import LABEL
from tests import nodes
from tests.deploy.fleet import CHANGE, PROVE, PROVEN, Fleet, Run
from tests.fleet.kubernetes import Cluster, with_pods
from tests.fleet.runs import fleet_py


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with with_pods(tmp_path) as made:
        for name in ("n3", "n4", "n5"):
            made.add_node(name)
        yield made


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    """Two nodes that are ready, one that is to be changed and two that are refused."""
    made = Fleet(tmp_path)
    made.add("ready", nodes.converged(), kubernetes_node="n1")
    made.add("second", nodes.converged(), kubernetes_node="n2")
    made.add("changes", nodes.bare(), kubernetes_node="n3")
    made.add("refused", nodes.bare(root=False), kubernetes_node="n4")
    made.add("refused-new", nodes.bare(root=False), kubernetes_node="n5", group="more")
    return made


def run(fleet: Fleet, cluster: Cluster, *options: str) -> Run:
    return fleet_py("label", fleet.inventory, "--kubectl", cluster.kubectl, *options, home=fleet.directory)


def done(fleet: Fleet, cluster: Cluster, *options: str) -> Run:
    return run(fleet, cluster, "-y", *options)


def test_each_node_gets_the_label_of_what_was_last_found(fleet: Fleet, cluster: Cluster) -> None:
    for name, tier in (("n2", "chown"), ("n3", "chown"), ("n4", "idmapped")):
        cluster.nodes[name]["metadata"]["labels"] = {LABEL: tier, "zone": "a"}
    assert fleet_py("plan", fleet.inventory, home=fleet.directory).code == 1
    dry = run(fleet, cluster, "--dry")
    assert (dry.code, cluster.log) == (2, [])
    nobody = run(fleet, cluster)
    assert (nobody.code, cluster.log) == (1, [])
    assert "nobody is there to agree: pass -y" in nobody.stderr
    written = done(fleet, cluster)
    assert written.code == 0, written.text
    assert dry.stdout == written.stdout == f"{LABEL}-: n4\n{LABEL}=idmapped: n1 n2\n"
    assert cluster.labels(LABEL) == {"n1": "idmapped", "n2": "idmapped", "n3": "chown"}
    assert cluster.labels("zone") == {"n2": "a", "n3": "a", "n4": "a"}
    assert "left as it is, of n3 (chown; changes)" in written.stderr
    log = [*cluster.log]
    again = done(fleet, cluster)
    assert (again.code, cluster.log) == (0, log)
    assert again.stdout == "nothing to do: 2 nodes labelled as last found\n"
    assert "left as it is, of n3 (chown; changes)" in again.stderr
    assert "no label yet: n4, n5 (refused)" in again.stderr


def test_a_node_without_a_label_is_not_said_to_have_one(tmp_path: Path, cluster: Cluster) -> None:
    fleet = Fleet(tmp_path)
    fleet.add("changes", nodes.bare(), kubernetes_node="n1")
    fleet.add("too", nodes.bare(), kubernetes_node="n2")
    fleet.add_unreachable("127.0.0.9")
    cluster.add_node("127.0.0.9")
    assert fleet_py("plan", fleet.inventory, home=fleet.directory).code == 1
    written = done(fleet, cluster)
    assert (written.code, written.stdout, cluster.log) == (0, "nothing to do: 0 nodes labelled as last found\n", [])
    assert "no label yet: 127.0.0.9 (unreachable); n1, n2 (changes)\n" in written.stderr


def test_what_a_later_run_over_a_part_found_counts(fleet: Fleet, cluster: Cluster) -> None:
    assert fleet_py("plan", fleet.inventory, home=fleet.directory).code == 1
    assert done(fleet, cluster).code == 0
    fleet.hosts["nodes"] = []
    fleet.add("ready", answers={CHANGE: {"success": False, "stderr": "error: no answer"}}, kubernetes_node="n1")
    fleet.add("changes", nodes.converged(), kubernetes_node="n3")
    limited = ("--limit", "@fake/ready", "--limit", "@fake/changes")
    assert fleet_py("apply", fleet.inventory, "-y", *limited, home=fleet.directory).code == 1
    assert done(fleet, cluster).code == 0
    assert cluster.labels(LABEL) == {"n2": "idmapped", "n3": "idmapped"}


def test_a_name_that_the_cluster_does_not_know_is_told_and_the_others_are_labelled(
    fleet: Fleet, cluster: Cluster
) -> None:
    assert fleet_py("plan", fleet.inventory, home=fleet.directory).code == 1
    del cluster.nodes["n1"]
    written = done(fleet, cluster)
    assert written.code == 1
    assert "this cluster has no node n1: a host's name in Kubernetes is kubernetes_node in its data" in written.stderr
    assert cluster.labels(LABEL) == {"n2": "idmapped"}
    fleet.add("later", nodes.converged(), kubernetes_node="n5")
    limited = run(fleet, cluster, "--limit", "@fake/later")
    assert (limited.code, limited.stdout) == (1, "")
    assert "no run has read @fake/later: plan for them" in limited.stderr


def test_a_node_whose_proof_was_accepted_gets_none(fleet: Fleet, cluster: Cluster) -> None:
    fleet.hosts = {}
    answers = {PROVE: PROVEN.replace("idmapped\t65536", "chowned\t65536")}
    fleet.add("accepted", answers=answers, kubernetes_node="n1", allow=["proof-not-idmapped"])
    fleet.add("good", kubernetes_node="n2")
    applied = fleet_py("apply", fleet.inventory, "-y", "--max-unavailable", "2", home=fleet.directory)
    assert applied.code == 0, applied.text
    assert "kubectl label --overwrite node n2 userns-node/tier=idmapped" in applied.stderr
    assert done(fleet, cluster).code == 0
    assert cluster.labels(LABEL) == {"n2": "idmapped"}


def test_a_node_whose_kubelet_has_the_range_of_before_gets_none_and_is_named(
    fleet: Fleet, cluster: Cluster, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster.nodes["n2"]["metadata"]["labels"] = {LABEL: "idmapped"}
    assert fleet_py("plan", fleet.inventory, home=fleet.directory).code == 1
    waits = FindingRecord(id="kubelet-restart-needed", severity="warning", message="")
    found = labelling.last_found

    def with_it(*asked: Any) -> dict[str, Record]:
        records = dict(found(*asked))
        for name in ("@fake/second", "@fake/changes"):  # the latter is to be changed first
            records[name] = records[name].model_copy(update={"findings": (waits,)})
        return records

    monkeypatch.setattr(labelling, "last_found", with_it)
    monkeypatch.setenv("XDG_STATE_HOME", str(fleet.directory))
    assert main(["label", str(fleet.inventory), "-y", "--kubectl", cluster.kubectl]) == 0
    assert cluster.labels(LABEL) == {"n1": "idmapped"}
    assert "no label for n2: restart the kubelet there, and plan for them again" in capsys.readouterr().err


def test_where_nothing_is_known_or_kubectl_fails_nothing_is_labelled(fleet: Fleet, cluster: Cluster) -> None:
    none = done(fleet, cluster)
    assert (none.code, cluster.log) == (1, [])
    assert "there is no run over" in none.stderr
    assert fleet_py("plan", fleet.inventory, home=fleet.directory).code == 1
    failed = fleet_py(
        "label", fleet.inventory, "--kubectl", "sh -c 'echo no such context >&2; exit 1'", home=fleet.directory
    )
    assert (failed.code, failed.stdout) == (1, "")
    assert failed.stderr.endswith("fleet: kubectl get nodes failed: no such context\n")


def test_ctrl_c_between_two_labels_does_not_say_that_there_is_none(
    fleet: Fleet, cluster: Cluster, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster.nodes["n4"]["metadata"]["labels"] = {LABEL: "idmapped"}
    assert fleet_py("plan", fleet.inventory, home=fleet.directory).code == 1
    write = Labels.write

    def left(labels: Labels, names: list[str], tier: str) -> str:
        if tier:
            raise KeyboardInterrupt
        return write(labels, names, tier)

    monkeypatch.setattr(Labels, "write", left)
    monkeypatch.setenv("XDG_STATE_HOME", str(fleet.directory))
    assert main(["label", str(fleet.inventory), "-y", "--kubectl", cluster.kubectl]) == 130
    assert cluster.labels(LABEL) == {}
    assert capsys.readouterr().err.endswith(
        "fleet: stopped; some of these labels may have been written: the same command writes the others\n"
    )


def test_many_names_are_more_than_one_command(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(labelling, "NAMES", 2)
    labels = Labels(cluster.kubectl)
    assert labels.write(["n1", "gone", "n2", "n3", "n4"], "idmapped") == (
        'Error from server (NotFound): nodes "gone" not found'
    )
    assert labels.read() == {"n1": "idmapped", "n2": "idmapped", "n3": "idmapped", "n4": "idmapped", "n5": ""}


@pytest.mark.parametrize(
    ("status", "label"),
    [
        (Status.READY, "chown"),
        (Status.CHANGED, "chown"),
        (Status.REFUSED, ""),
        (Status.FAILED, ""),
        (Status.CHANGES, None),
        (Status.WAITING, None),
        (Status.UNREACHABLE, None),
        (Status.UNKNOWN, None),
    ],
)
def test_only_what_is_proven_has_a_label_and_what_nobody_saw_keeps_it(status: Status, label: str | None) -> None:
    record = Record(name="n", status=status, tier="chown")
    assert record.label == label
    if not record.is_well:
        assert record.model_copy(update={"tier": ""}).label is None
    if record.is_well:
        assert record.model_copy(update={"tier": "unsupported"}).label == ""
        waits = FindingRecord(id="kubelet-restart-needed", severity="warning", message="")
        assert record.model_copy(update={"findings": (waits,)}).label == ""
        accepted = record.model_copy(update={"proof_allowed": True})
        assert accepted.label == ("" if status is Status.CHANGED else None)
