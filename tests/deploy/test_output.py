"""What an operator sees: what each node is, what would change and why, once for a fleet, and never a secret."""

from __future__ import annotations

from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest

from lab.paths import REPO
from tasks import next_step
from tests import nodes
from tests.deploy.fleet import CHANGE, FETCH, PROVE, PROVEN, READ, TEXT, Fleet, pyinfra
from userns import paths, proof
from userns.node import Node, Overlay, Unit

HOSTS = ("first", "same", "other", "alone")
MODES = [["--dry"], ["--dry", "--diff"], ["-y"], ["--dry", "--json"], ["-y", "--json"]]


def one(directory: Path, name: str, node: Node | None = None, **how: Any) -> Fleet:
    made = Fleet(directory)
    made.add(name, node, **how)
    return made


@pytest.mark.parametrize("options", [["-y"], ["-y", "--json"], ["-y", "-vvv"]], ids=" ".join)
def test_who_seals_a_machine_is_told_what_to_do_next(tmp_path: Path, options: list[str]) -> None:
    last = "sealed: switch this machine off now, and copy its disk"
    made = one(tmp_path, "template", answers={"seal.sh": {"stdout": ["warning: what stays", last]}})
    run = pyinfra(made.inventory, "tasks.image.seal", *options)
    assert run.code == 0, run.text
    assert sum(last in line for line in run.stderr.splitlines()) == 1


# --- a node that is as it should be --------------------------------------------------------------------------------


@pytest.mark.parametrize("options", MODES, ids=" ".join)
def test_a_converged_node_says_so_and_gets_no_operation(tmp_path: Path, options: list[str]) -> None:
    run = one(tmp_path, "done", nodes.converged()).deploy(*options)
    said = run.said("@fake/done")
    assert run.code == 0
    assert said[0].startswith("tier idmapped: ")
    assert said[-1] == "nothing to do"
    assert run.will("@fake/done") == []
    if "--json" in options:
        assert run.json["plan"] == []


def test_it_shows_warnings_and_no_notes(tmp_path: Path) -> None:
    made = one(tmp_path, "done", nodes.converged(nodes.bare(gpu_hooks=("nvidia-ctk",))))
    said = made.deploy("-y").said("@fake/done")
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


def test_each_change_is_a_line_with_its_reason(tmp_path: Path) -> None:
    drifted = nodes.converged().model_copy(
        update={"files": {**nodes.converged().files, paths.PRE_START: nodes.file_state("edited", "755")}}
    )
    run = one(tmp_path, "drifted", drifted).deploy("--dry")
    assert run.will("@fake/drifted") == [
        f"write {paths.PRE_START}: its text differs (loads overlay and sets metacopy before containerd mounts anything)"
        f"; what is there was not written by a deploy, and is kept as {paths.REPLACED}/pre-start.{EDITED[:12]}"
    ]


def test_what_is_to_be_written_elsewhere_is_told_line_by_line(tmp_path: Path) -> None:
    run = one(tmp_path, "old", kubernetes_version="1.32", max_pods=50).deploy("--dry")
    mark = "[@fake/old]"
    told = [line.partition(mark)[2] for line in run.stderr.splitlines() if mark in line]
    start = next(number for number, line in enumerate(told) if "note kubernetes-feature-gates: " in line)
    lines = ["featureGates:", "  UserNamespacesSupport: true", "maxPods: 50"]
    assert told[start + 1 : start + 4] == [f"     {line}" for line in lines]


def test_diff_shows_each_file_and_every_decision(tmp_path: Path) -> None:
    drifted = nodes.converged().model_copy(
        update={"files": {**nodes.converged().files, paths.MODPROBE: nodes.file_state("options overlay metacopy=N\n")}}
    )
    text = "=" + b64encode(b"options overlay metacopy=N\n").decode()
    said = one(tmp_path, "drifted", drifted, answers={TEXT: text}).deploy("--dry", "--diff").said("@fake/drifted")
    assert f"--- {paths.MODPROBE}" in said
    assert "-options overlay metacopy=N" in said
    assert "+options overlay metacopy=Y" in said
    assert [line for line in said if line.startswith("decided metacopy Y: ")]


def test_what_a_node_has_written_cannot_play_with_the_terminal(tmp_path: Path) -> None:
    drifted = nodes.converged().model_copy(
        update={"files": {**nodes.converged().files, paths.MODPROBE: nodes.file_state("\x1b[2J")}}
    )
    text = "=" + b64encode(b"\x1b[2J\n").decode()
    run = one(tmp_path, "drifted", drifted, answers={TEXT: text}).deploy("--dry", "--diff")
    assert "\x1b" not in run.text
    assert "-\\x1b[2J" in run.said("@fake/drifted")


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
def test_converged_nodes_are_not_told_of_each_operation_of_others(tmp_path: Path, options: list[str]) -> None:
    made = Fleet(tmp_path)
    made.add("fresh")
    done = made.add("done", nodes.converged())
    run = made.deploy(*options)
    assert len(run.said(done)) <= 4
    assert "Skipped" not in run.text


# --- after it ------------------------------------------------------------------------------------------------------


def test_proven_nodes_are_told_how_to_go_on(tmp_path: Path) -> None:
    made = Fleet(tmp_path)
    made.add("b")
    made.add("a")
    made.add("done", nodes.converged())
    run = made.deploy("-y")
    assert "    kubectl label --overwrite node @fake/a @fake/b userns-node/tier=idmapped\n" in run.stderr
    assert f"    kubectl apply -f {REPO}/templates/test-pod.yaml\n" in run.stderr
    assert "hostUsers: false" in run.stderr


def test_the_proof_alone_changes_nothing_and_says_what_differs(tmp_path: Path) -> None:
    made = Fleet(tmp_path)
    fresh, done = made.add("fresh"), made.add("done", nodes.converged())
    run = pyinfra(made.inventory, "tasks.verify.user_namespace", "-y", "--json")
    assert run.code == 0
    assert [each["name"] for each in run.json["plan"]] == ["Prove: start a container in a user namespace with runc"]
    assert "not as the settings say: a deploy would enable containerd.service: it is not there yet" in run.said(fresh)
    assert "runc: proven" in "\n".join(run.said(done))


@pytest.mark.parametrize(("allow", "code"), [([], 1), (["proof-owner"], 1), (["proof-failed"], 0)])
def test_a_failed_proof_fails_the_host_unless_its_finding_is_accepted(
    tmp_path: Path, allow: list[str], code: int
) -> None:
    failed = f"{proof.BEGIN}\t{proof.FORMAT}\trunc\nfailed\trunc\t0.10\tno space left on device\n{proof.END}\t0\n"
    made = Fleet(tmp_path)
    host = made.add("node", nodes.converged(), answers={PROVE: failed}, allow=allow)
    run = pyinfra(made.inventory, "tasks.verify.user_namespace", "-y", "--json")
    assert run.code == code
    assert any("proof-failed" in line and "no space left on device" in line for line in run.said(host))
    assert "kubectl label" not in run.text  # it is accepted, not proven


@pytest.mark.parametrize(("allow", "code"), [([], 1), (["crio-runs"], 0)])
def test_a_node_that_is_refused_is_not_proven_though_its_containers_start(
    tmp_path: Path, allow: list[str], code: int
) -> None:
    crio = nodes.bare(units={**nodes.bare().units, "crio": Unit(load="loaded", active="active")})
    made = Fleet(tmp_path)
    host = made.add("node", nodes.converged(crio), allow=allow)
    made.add("done", nodes.converged())
    run = pyinfra(made.inventory, "tasks.verify.user_namespace", "-y", "--json")
    said = run.said(host)
    assert run.code == code
    assert [line for line in said if line.startswith("runc: proven")]  # it is looked at all the same
    why = "containers start in user namespaces here, but this node is refused: crio-runs"
    assert (why in said, "tier idmapped is proven" in said) == (bool(code), not code)
    labelled = "@fake/done" if code else "@fake/done @fake/node"
    assert f"kubectl label --overwrite node {labelled} userns-node/tier=idmapped\n" in run.stderr


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


# --- secrets -------------------------------------------------------------------------------------------------------

MIRROR, REGISTRY, OLD = "mirr0r-pa55word", "reg1stry-pa55word", "0ld-pa55word"
SECRETS: dict[str, Any] = {
    "release_url": f"https://user:{MIRROR}@mirror.example/github",
    "containerd_config": {
        "plugins": {
            "io.containerd.cri.v1.images": {"registry": {"configs": {"r.example": {"auth": {"password": REGISTRY}}}}}
        }
    },
}


def secretive(directory: Path, **answers: object) -> Fleet:
    """A node with a password in its config.toml, which is to get others; and the same node, bare."""
    base = nodes.converged()
    drifted = base.model_copy(
        update={"files": {**base.files, paths.CONFIG: nodes.file_state("old"), paths.UNIT: nodes.file_state("old")}}
    )
    config = f'version = 2\n[x.auth]\npassword = "{OLD}"\n'
    unit = f"[Service]\nEnvironment=HTTPS_PROXY=http://u:{OLD}@proxy.example:3128\n"
    texts = "\n".join("=" + b64encode(text.encode()).decode() for text in (config, unit))
    made = Fleet(directory)
    made.add("drifted", drifted, answers={TEXT: texts, **answers}, **SECRETS)
    made.add("fresh", answers=answers, **SECRETS)
    made.add("refused", **SECRETS, max_pods="many")
    return made


@pytest.mark.parametrize(
    "options",
    [
        ["--dry", "--diff", "-vvv"],
        ["--dry", "--diff", "--json"],
        ["--dry", "--diff", "--debug"],
        ["--dry", "--debug-operations"],
        ["--dry", "--debug-operations", "--json"],
        ["-y", "--diff", "-vvv"],
        ["-y", "--json", "-vvv"],
    ],
    ids=" ".join,
)
def test_no_option_shows_a_secret(tmp_path: Path, options: list[str]) -> None:
    run = secretive(tmp_path).deploy(*options)
    assert "drifted" in run.text
    for secret in (MIRROR, REGISTRY, OLD):
        assert secret not in run.text
        assert b64encode(secret.encode()).decode()[1:-4] not in run.text


def test_a_changed_secret_shows_as_changed(tmp_path: Path) -> None:
    said = secretive(tmp_path).deploy("--dry", "--diff").said("@fake/drifted")
    assert '-password = "<secret 1>"' in said
    assert '+password = "<secret 2>"' in said


def test_debug_masks_what_pyinfra_logs_of_the_data_of_groups(tmp_path: Path) -> None:
    made = one(tmp_path, "one")
    (tmp_path / "group_data").mkdir()
    (tmp_path / "group_data" / "all.py").write_text(
        f"release_url = {SECRETS['release_url']!r}\nssh_password = {OLD!r}\n"
    )
    run = made.deploy("--dry", "--debug")
    assert "Adding data to group all" in run.text
    assert MIRROR not in run.text
    assert OLD not in run.text


@pytest.mark.parametrize("script", [FETCH, CHANGE])
def test_nor_does_a_failure(tmp_path: Path, script: str) -> None:
    run = secretive(tmp_path, **{script: {"success": False, "stderr": "could not"}}).deploy("-y", "-vv")
    assert run.code == 1
    for secret in (MIRROR, REGISTRY, OLD):
        assert secret not in run.text


@pytest.mark.parametrize(
    "url", [f"https://u:{MIRROR}@", f"ftp://u:{MIRROR}@x", f"https://u:{MIRROR}@x/?a", f"u:{MIRROR}@x"]
)
def test_nor_does_a_refusal_of_the_very_setting(tmp_path: Path, url: str) -> None:
    run = one(tmp_path, "one", release_url=url).deploy("--dry", "-vvv")
    assert run.refused("@fake/one")[0].startswith("release_url = ")
    assert MIRROR not in run.text


def test_a_config_that_cannot_be_written_is_refused_without_its_values(tmp_path: Path) -> None:
    config = {"plugins": {"x": {"password": REGISTRY, "none": None}}, "version": 3}
    run = one(tmp_path, "one", containerd_config=config).deploy("--dry", "-vvv")
    assert run.code == 1
    assert run.refused("@fake/one")
    assert REGISTRY not in run.text


def test_reading_a_node_prints_no_script(tmp_path: Path) -> None:
    run = one(tmp_path, "one").deploy("--dry", "-vv")
    assert READ in run.stderr
    assert "read_machine" not in run.stderr


WRAPPED = "wr4pped-under-no-name"


def wrapped(directory: Path, **answers: object) -> Path:
    """An inventory as an operator writes it, with wrapped secrets in settings and in the data of somebody else."""
    path = directory / "wrapped.py"
    played: dict[str, Any] = {"fake_delay": 0, "fake_delay_jitter": 0, "fake_responses": {}}
    played["fake_responses"] = {READ: nodes.answer(nodes.bare()), PROVE: PROVEN, **answers}
    path.write_text(
        "from userns.secret import Secret\n"
        f"one = ([('@fake/one', {played!r})], dict(\n"
        f"    release_url=Secret('https://m.example/{WRAPPED}'),\n"
        f"    containerd_config={{'x': {{'plain': Secret({WRAPPED!r}), 'password': {REGISTRY!r}}}}},\n"
        f"    somebody_elses=Secret({WRAPPED!r}), ssh_password={OLD!r},\n"
        "))\n"
    )
    return path


@pytest.mark.parametrize(
    "words",
    [
        ["debug-inventory"],
        ["debug-inventory", "--json"],
        ["deploy.py", "--dry", "--diff", "-vvv"],
        ["deploy.py", "--dry", "--debug", "--debug-operations"],
        ["deploy.py", "--dry", "--debug-operations", "--json"],
        ["deploy.py", "-y", "--json", "-vvv"],
    ],
    ids=" ".join,
)
def test_a_wrapped_secret_is_shown_by_nothing(tmp_path: Path, words: list[str]) -> None:
    run = pyinfra(wrapped(tmp_path), *words)
    assert run.code == 0
    assert "@fake/one" in run.text
    for secret in (WRAPPED, REGISTRY, OLD):
        assert secret not in run.text
    if "--json" in words:
        assert run.json


@pytest.mark.parametrize("options", [["-y"], ["-y", "--json"], ["-y", "-vvv"]], ids=" ".join)
def test_nor_by_what_a_program_on_the_node_says_of_it(tmp_path: Path, options: list[str]) -> None:
    said = {"success": False, "stdout": f"error: level {WRAPPED}", "stderr": f"{REGISTRY} is no number"}
    run = pyinfra(wrapped(tmp_path, **{CHANGE: said}), "deploy.py", *options)
    assert run.code == 1
    assert "error: level <secret>" in run.text
    assert "<secret> is no number" in run.text
    assert WRAPPED not in run.text
    assert REGISTRY not in run.text
