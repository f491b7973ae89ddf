"""What an operator sees: what each node is, what would change and why, and once for a fleet."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from lab.paths import REPO
from tasks import next_step
from tests import nodes
from tests.deploy.fleet import PROVE, TEXT, Fleet, Run, answered, pyinfra
from userns import paths, proof
from userns.node import Node, Overlay, Unit

HOSTS = ("first", "same", "other", "alone")
MODES = [["--dry"], ["--dry", "--diff"], ["-y"], ["--dry", "--json"], ["-y", "--json"]]


def one(directory: Path, name: str, node: Node | None = None, **how: Any) -> Fleet:
    made = Fleet(directory)
    made.add(name, node, **how)
    return made


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Run]:
    """One run with these options over hosts of many kinds, for all tests that ask for it: they differ in one host."""
    made = Fleet(tmp_path_factory.mktemp("mixed"))
    made.add("fresh")
    made.add("done", nodes.converged())
    made.add("gpu", nodes.converged(nodes.bare(gpu_hooks=("nvidia-ctk",))))
    made.add("edited", nodes.drifted(paths.PRE_START, "edited", "755"), answers={TEXT: answered("edited")})
    made.add("hostile", nodes.drifted(paths.MODPROBE, "\x1b[2J"), answers={TEXT: answered("\x1b[2J\n")})
    made.add("old-kubernetes", kubernetes_version="1.32", max_pods=50)  # the longest name, so that nothing is before it
    return cache(made.deploy)


@pytest.mark.parametrize("options", [["-y"], ["-y", "--json"], ["-y", "-vvv"]], ids=" ".join)
def test_who_seals_a_machine_is_told_what_to_do_next(tmp_path: Path, options: list[str]) -> None:
    last = "sealed: switch this machine off now, and copy its disk"
    made = one(tmp_path, "template", answers={"seal.sh": {"stdout": ["warning: what stays", last]}})
    run = pyinfra(made.inventory, "tasks.image.seal", *options)
    assert run.code == 0, run.text
    assert sum(last in line for line in run.stderr.splitlines()) == 1


# --- a node that is as it should be --------------------------------------------------------------------------------


@pytest.mark.parametrize("options", MODES, ids=" ".join)
def test_where_all_goes_well_the_exit_code_is_0(mixed: Callable[..., Run], options: list[str]) -> None:
    assert mixed(*options).code == 0


@pytest.mark.parametrize("options", MODES, ids=" ".join)
def test_a_converged_node_says_so_and_gets_no_operation(mixed: Callable[..., Run], options: list[str]) -> None:
    run = mixed(*options)
    said = run.said("@fake/done")
    assert said[0].startswith("tier idmapped: ")
    assert said[-1] == "nothing to do"
    assert run.will("@fake/done") == []
    if "--json" in options:
        assert "@fake/fresh" in run.stdout
        assert "@fake/done" not in run.stdout


def test_it_shows_warnings_and_no_notes(mixed: Callable[..., Run]) -> None:
    said = mixed("-y").said("@fake/gpu")
    assert [line for line in said if line.startswith("warning gpu-hooks: ")]
    assert not [line for line in said if line.startswith(("note ", "decided "))]


def test_verbose_shows_notes_and_every_decision(tmp_path: Path) -> None:
    said = one(tmp_path, "done", nodes.converged()).deploy("-y", "-v").said("@fake/done")
    assert [line for line in said if line.startswith("note kubernetes-feature-gates: ")]
    assert [line for line in said if line.startswith("decided slow_chown false: ")]
    assert [line for line in said if line.startswith("because ")]


def test_one_remote_command_is_all_that_it_costs(tmp_path: Path) -> None:
    run = one(tmp_path, "done", nodes.converged()).deploy("--dry", "--diff", "-vv")
    assert run.stderr.count(">>> ") == 1


# --- a node that changes -------------------------------------------------------------------------------------------


EDITED = nodes.file_state("edited").sha256


def test_each_change_is_a_line_with_its_reason(mixed: Callable[..., Run]) -> None:
    assert mixed("--dry").will("@fake/edited") == [
        f"write {paths.PRE_START}: its text differs (loads overlay and sets metacopy before containerd mounts anything)"
        f"; what is there was not written by a deploy, and is kept as {paths.REPLACED}/pre-start.{EDITED[:12]}"
    ]


def test_what_is_to_be_written_elsewhere_is_told_line_by_line(mixed: Callable[..., Run]) -> None:
    run = mixed("--dry")
    mark = "[@fake/old-kubernetes]"
    told = [line.partition(mark)[2] for line in run.stderr.splitlines() if mark in line]
    start = next(number for number, line in enumerate(told) if "note kubernetes-feature-gates: " in line)
    lines = ["featureGates:", "  UserNamespacesSupport: true", "maxPods: 50"]
    assert told[start + 1 : start + 4] == [f"     {line}" for line in lines]


def test_diff_shows_each_file_and_every_decision(tmp_path: Path) -> None:
    off = "options overlay metacopy=N\n"
    made = one(tmp_path, "off", nodes.drifted(paths.MODPROBE, off), answers={TEXT: answered(off)})
    said = made.deploy("--dry", "--diff").said("@fake/off")
    assert f"--- {paths.MODPROBE}" in said
    assert "-options overlay metacopy=N" in said
    assert "+options overlay metacopy=Y" in said
    assert [line for line in said if line.startswith("decided metacopy Y: ")]


def test_what_a_node_has_written_cannot_play_with_the_terminal(mixed: Callable[..., Run]) -> None:
    run = mixed("--dry", "--diff")
    assert "\x1b" not in run.text
    assert "-\\x1b[2J" in run.said("@fake/hostile")


# --- a fleet -------------------------------------------------------------------------------------------------------


def test_what_nodes_have_in_common_is_told_once(tmp_path: Path) -> None:
    made = Fleet(tmp_path)
    hosts = [made.add(f"node-{number}") for number in range(9)]
    run = made.deploy("--dry", "--diff")
    first = [host for host in hosts if "--- /dev/null" in run.said(host)]
    assert len(first) == 1
    for host in set(hosts) - set(first):
        said = run.said(host)
        assert f"decided all as for {first[0]}" in said
        assert f"{paths.CONFIG} changes as shown of {first[0]}" in said
        assert len(run.will(host)) == 13
        assert len(said) <= 25


def test_why_a_node_is_refused_is_told_in_full_each_time(tmp_path: Path) -> None:
    made = Fleet(tmp_path)
    hosts = [made.add(f"node-{number}", nodes.bare(root=False)) for number in range(3)]
    run = made.deploy("--dry")
    for host in hosts:
        assert [line for line in run.said(host) if line.startswith("blocker not-root: this connection is not root's")]


@pytest.mark.parametrize("options", [["-y"], ["-y", "--json"]], ids=" ".join)
def test_converged_nodes_are_not_told_of_each_operation_of_others(
    mixed: Callable[..., Run], options: list[str]
) -> None:
    run = mixed(*options)
    assert len(run.said("@fake/done")) <= 4
    assert "Skipped" not in run.text


# --- after it ------------------------------------------------------------------------------------------------------


def test_proven_nodes_are_told_how_to_go_on(tmp_path: Path) -> None:
    made = Fleet(tmp_path)
    made.add("b")
    made.add("a")
    made.add("done", nodes.converged())
    run = made.deploy("-y")
    assert "    kubectl label --overwrite node @fake/a @fake/b userns-node/tier=idmapped\n" in run.stderr
    assert f"    kubectl apply -f {shlex.quote(f'{REPO}/templates/test-pod.yaml')}\n" in run.stderr
    assert "hostUsers: false" in run.stderr


FAILED = f"{proof.BEGIN}\t{proof.FORMAT}\trunc\nfailed\trunc\t0.10\tno space left on device\n{proof.END}\t0\n"
WHY = "containers start in user namespaces here, but this node is refused: crio-runs"


def proofs(directory: Path, **allow: list[str]) -> Run:
    """The proof alone of good nodes, and of some whose container does not start, or which are refused, by name."""
    made = Fleet(directory)
    made.add("fresh")
    made.add("done", nodes.converged())
    crio = nodes.bare(units={**nodes.bare().units, "crio": Unit(load="loaded", active="active")})
    for name, accepted in allow.items():
        if name.startswith("failed"):
            made.add(name, nodes.converged(), answers={PROVE: FAILED}, allow=accepted)
        else:
            made.add(name, nodes.converged(crio), allow=accepted)
    return pyinfra(made.inventory, "tasks.verify.user_namespace", "-y", "--json")


@pytest.fixture(scope="module")
def accepted(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return proofs(tmp_path_factory.mktemp("accepted"), failed=["proof-failed"], refused=["crio-runs"])


@pytest.fixture(scope="module")
def unaccepted(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return proofs(tmp_path_factory.mktemp("unaccepted"), failed=[], failed_otherwise=["proof-owner"], refused=[])


def test_the_proof_alone_changes_nothing_and_says_what_differs(accepted: Run) -> None:
    said = accepted.said("@fake/fresh")
    assert [each["name"] for each in accepted.json["plan"]] == [
        "Prove: start a container in a user namespace with runc"
    ]
    assert "not as the settings say: a deploy would enable containerd.service: it is not there yet" in said
    assert "runc: proven" in "\n".join(accepted.said("@fake/done"))


def test_a_failed_proof_fails_the_host_unless_its_finding_is_accepted(accepted: Run, unaccepted: Run) -> None:
    assert (accepted.code, accepted.json["results"]["failed_hosts"]) == (0, [])
    assert unaccepted.code == 1
    bad = {"@fake/failed", "@fake/failed_otherwise", "@fake/refused"}
    assert set(unaccepted.json["results"]["failed_hosts"]) == bad
    for run, host in ((accepted, "failed"), (unaccepted, "failed"), (unaccepted, "failed_otherwise")):
        said = run.said(f"@fake/{host}")
        assert any("proof-failed" in line and "no space left on device" in line for line in said)


def test_a_node_that_is_refused_is_not_proven_though_its_containers_start(accepted: Run, unaccepted: Run) -> None:
    for run, proven in ((accepted, True), (unaccepted, False)):
        said = run.said("@fake/refused")
        assert [line for line in said if line.startswith("runc: proven")]  # it is looked at all the same
        assert (WHY in said, "tier idmapped is proven" in said) == (not proven, proven)


def test_only_a_proven_node_is_labelled_and_not_one_whose_failure_is_accepted(accepted: Run, unaccepted: Run) -> None:
    for run, proven in ((accepted, "@fake/done @fake/fresh @fake/refused"), (unaccepted, "@fake/done @fake/fresh")):
        assert f"kubectl label --overwrite node {proven} userns-node/tier=idmapped\n" in run.stderr
        assert run.text.count("kubectl label") == 1


def test_nodes_of_one_group_that_differ_in_metacopy_are_told(tmp_path: Path) -> None:
    made = Fleet(tmp_path)
    off = nodes.bare(overlay=Overlay(state="loaded", metacopy="N"))
    for group, host, settings in (
        ("workers", "first", {}),
        ("workers", "same", {}),
        ("workers", "other", {"overlay_metacopy": "auto"}),
        ("builders", "alone", {"overlay_metacopy": False}),
    ):
        made.add(host, off, group=group, **settings)
    run = made.deploy("--dry")
    told = {host: [line for line in run.said(f"@fake/{host}") if "metacopy-differs" in line] for host in HOSTS}
    # Which of them comes first is pyinfra's affair.
    assert [host for host, lines in told.items() if lines] in (["other"], ["first", "same"])
    assert "of the same group workers" in "".join(line for lines in told.values() for line in lines)


def test_the_fact_alone_asks_of_the_roots_that_the_data_names(tmp_path: Path) -> None:
    made = Fleet(tmp_path)
    made.add("node", kubelet_root="/data/kubelet")
    made.data["nodes"] = {"containerd_root": "/data/containerd", "kubelet_root": "/not/this"}
    run = pyinfra(made.inventory, "-vv", "fact", "tasks.node.Node")
    assert "node.sh /data/containerd /data/kubelet no" in run.text


def test_a_tier_has_one_label_command_for_all_its_nodes() -> None:
    assert next_step.label_commands({"b": "idmapped", "c": "chown", "a": "idmapped"}) == [
        "kubectl label --overwrite node c userns-node/tier=chown",
        "kubectl label --overwrite node a b userns-node/tier=idmapped",
    ]


@pytest.mark.parametrize(
    ("tiers", "start"),
    [
        ({"a": "idmapped", "b": "chown"}, "kubectl apply -f "),
        ({"a": "chown"}, "sed 's/tier: idmapped/tier: chown/' "),
    ],
)
def test_the_test_pod_is_sent_to_a_tier_that_was_proven(tiers: dict[str, str], start: str) -> None:
    assert next_step.pod_commands(tiers)[0].startswith(start)
    assert f"{next_step.LABEL}: {next_step.TEST_POD_TIER}" in next_step.TEST_POD.read_text()
