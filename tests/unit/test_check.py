"""The check that stays on the node says what a deploy says, in every shell, and notices what changes."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tasks.files import templates
from tests import nodes
from tests.conftest import program
from tests.unit.check_place import KEYS, Place, asked, place
from userns import check, paths, readiness
from userns.findings import apply_allow
from userns.node import Node, Probe
from userns.policy import Policy
from userns.readiness import Readiness


def rendered(policy: Policy, ready: Readiness, *, metacopy: bool | None = None) -> str:
    return check.text(templates(), policy, ready, check.Expected(metacopy, 16384))


# Findings of the check that are no matter of readiness: the tree has no record.
APART = {"record-missing", "tier-lowered", "slow-chown-not-configured", "overlay-missing"}


def compare(here: Place, node: Node, policy: Policy, shell: list[str] | None = None) -> None:
    here.be(node)
    ready = readiness.of_node(node, policy)
    done = here.run(rendered(policy, ready), shell=shell)
    told = json.loads(done.stdout)
    assert (told["tier"], told["rootfs"], told["volumes"]) == (ready.tier, ready.rootfs, ready.volumes)
    said = {(each["id"], each["severity"]) for each in told["findings"] if each["id"] not in APART}
    expected = {(each.id, each.severity.value) for each in apply_allow(list(ready.findings), policy.allow)}
    graver = {("max-user-namespaces-exhausted", "blocker")} if "max-user-namespaces-exhausted" in dict(said) else set()
    assert said == {each for each in expected if each[0] != "max-user-namespaces-exhausted"} | graver
    not_ready = told["tier"] == "unsupported" or any(each["severity"] == "blocker" for each in told["findings"])
    assert done.returncode == (2 if not_ready else 1), done.stderr  # the record is missing: never 0


# Few, because each takes a table of its own, which the tests above have for many more.
POLICIES: list[dict[str, Any]] = [
    {},
    {"slow_chown": True, "allow": ["kernel-lacks-tmpfs-idmap", "containerd-root-cannot-idmap"]},
    {"slow_chown": False},
    {"snapshotter": "stargz"},
    {"kubernetes_version": "1.26", "containerd_version": "1.7.34"},
    {"kubernetes_version": "1.26"},
]


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(asked(), st.sampled_from(POLICIES))
def test_the_check_says_what_readiness_says(here: Place, node: Node, wanted: dict[str, Any]) -> None:
    compare(here, node, nodes.policy(**wanted))


CASES = {
    "all probed": nodes.bare(),
    "6.1": nodes.bare(
        kernel="6.1.0-50-amd64",
        probes=nodes.bare().probes | {"tmpfs": Probe(result="cannot", step="mount_setattr", errno="EINVAL")},
    ),
    "5.15": nodes.bare(
        kernel="5.15.0-100-generic",
        probes=nodes.bare().probes
        | {
            name: Probe(result="cannot", step="mount_setattr", errno="EINVAL")
            for name in ("tmpfs", "overlay", "containerd-check")
        },
    ),
    "5.10": nodes.bare(
        kernel="5.10.0-32-amd64",
        probes={
            name: Probe(result="cannot", step="open_tree" if "root" in name else "mount_setattr", errno="ENOSYS")
            for name in KEYS
        },
    ),
    "in a user namespace": nodes.bare(
        probes=dict.fromkeys(KEYS, Probe(result="cannot", step="uid_map", errno="EPERM"))
    ),
    "5.14 with an old zfs, not probed": nodes.bare(
        kernel="5.14.0-570.el9",
        probes={},
        zfs_version="2.1.15",
        filesystems=nodes.bare().filesystems | {"containerd-root": place("containerd-root", "zfs")},
    ),
    "nothing probed": nodes.bare(kernel="6.12.5", probes={}),
    "a detail for JSON": nodes.bare(
        probes=nodes.bare().probes | {"tmpfs": Probe(result="cannot", step="owner", detail='a "quoted" \\ one')}
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_every_shell_says_what_readiness_says(here: Place, shell: list[str], name: str) -> None:
    for wanted in ({}, {"allow": ["kernel-lacks-tmpfs-idmap", "kernel-lacks-idmap"]}):
        compare(here, CASES[name], nodes.policy(**wanted), shell)


# Shells that write here-documents into files, where no file can grow.
FULL = ["sh", "-c", "trap '' XFSZ && ulimit -f 0 && BASH_COMPAT=5.0 exec bash --posix \"$@\"", "sh"]


def test_where_tmp_is_full_it_still_answers(here: Place) -> None:
    program("bash")
    compare(here, CASES["a detail for JSON"], nodes.policy(), FULL)


# --- the metrics of its unit ---------------------------------------------------------------------------------------


@pytest.fixture
def collected(here: Place) -> Iterator[Path]:
    """Where a collector looks, on a node that has had a deploy."""
    state = here.root / "var/lib/userns-node"
    state.mkdir(parents=True)
    (here.root / "collected").mkdir()
    here.be(nodes.bare())
    yield here.root / "collected"
    shutil.rmtree(here.root / "collected")
    shutil.rmtree(state)


def by_unit(here: Place, *arguments: str, shell: list[str] | None = None) -> None:
    policy = nodes.policy()
    text = rendered(policy, readiness.of_node(nodes.bare(), policy))
    done = here.run(text, "--write", str(here.root / "readiness.json"), *arguments, shell=shell)
    assert (done.returncode, done.stderr) == (1, "")


def test_metrics_that_the_unit_writes_no_more_are_removed(here: Place, collected: Path, shell: list[str]) -> None:
    file, record = collected / "userns_node.prom", here.root / "var/lib/userns-node/metrics"
    by_unit(here, "--unit", "--metrics", str(collected), shell=shell)
    assert record.read_text() == f"{file}\n"
    by_unit(here, shell=shell)  # by hand: it says nothing of the unit's
    assert file.exists()
    (collected / "other").mkdir()
    by_unit(here, "--unit", "--metrics", str(collected / "other"), shell=shell)
    assert not file.exists()
    assert record.read_text() == f"{collected}/other/userns_node.prom\n"
    by_unit(here, "--unit", shell=shell)
    assert list(collected.rglob("*.prom")) == []
    assert not record.exists()
    by_unit(here, "--unit", shell=shell)


def test_what_others_wrote_under_that_name_stays(here: Place, collected: Path) -> None:
    file = collected / "userns_node.prom"
    by_unit(here, "--unit", "--metrics", str(collected))
    file.write_text("# HELP mine\n")
    by_unit(here, "--unit")
    assert file.read_text() == "# HELP mine\n"
    by_unit(here, "--metrics", str(collected))
    by_unit(here, "--unit")
    assert file.exists()  # written by hand, and so nobody's but the writer's


# --- what it compares with -----------------------------------------------------------------------------------------


def told(
    here: Place, node: Node, was: Node | None = None, metacopy: bool | None = None, **wanted: Any
) -> dict[str, Any]:
    """What is told of `node` by a check that was written when it was like `was`."""
    policy = nodes.policy(**wanted)
    here.be(node)
    done = here.run(rendered(policy, readiness.of_node(was or node, policy), metacopy=metacopy))
    answer: dict[str, Any] = json.loads(done.stdout)
    ids = {each["id"]: each for each in answer["findings"]}
    return answer | {"ids": ids, "code": done.returncode}


def test_a_kernel_that_can_less_is_told(here: Place) -> None:
    said = told(here, CASES["6.1"], nodes.bare(), allow=["kernel-lacks-tmpfs-idmap"])
    assert (said["tier"], said["expected_tier"]) == ("rootfs-only", "idmapped")
    assert said["ids"]["tier-lowered"]["detail"] == "idmapped at the last deploy, rootfs-only now"
    assert said["ids"]["kernel-lacks-tmpfs-idmap"]["known"] is False


def test_a_kernel_that_needs_slow_chown_under_a_config_without_it_is_not_ready(here: Place) -> None:
    allow = ["kernel-lacks-tmpfs-idmap"]
    said = told(here, CASES["5.15"], nodes.bare(), allow=allow)
    assert (said["tier"], said["code"]) == ("chown", 2)
    assert "slow-chown-not-configured" in said["ids"]
    assert "slow-chown-not-configured" not in told(here, CASES["5.15"], allow=allow)["ids"]


def test_what_the_last_deploy_had_already_is_known(here: Place) -> None:
    said = told(here, CASES["5.15"], allow=["kernel-lacks-tmpfs-idmap"])
    assert {id for id, each in said["ids"].items() if not each["known"]} == {"record-missing"}


@pytest.mark.parametrize(
    ("live", "id", "severity"),
    [
        ("16384", "", ""),
        ("16383", "max-user-namespaces-low", "warning"),
        ("0", "max-user-namespaces-too-low", "blocker"),
    ],
)
@pytest.mark.parametrize("container", ["none", "lxc"])
def test_too_few_user_namespaces_are_told(here: Place, live: str, id: str, severity: str, container: str) -> None:
    file = here.root / "proc/sys/user/max_user_namespaces"
    file.write_text(f"{live}\n")
    try:
        ids = told(here, nodes.bare(container=container))["ids"]
    finally:
        file.write_text("63000\n")
    if container != "none":
        assert ids["kernel-shared"]["severity"] == ("warning" if id else "note")
        id = id.replace("max-user-namespaces-low", "")  # its host has to be asked, which kernel-shared says
    assert [name for name in ids if name.startswith("max-user")] == ([id] if id else [])
    assert not id or ids[id]["severity"] == severity


@pytest.mark.parametrize(
    ("node", "severity"), [(nodes.bare(), "warning"), (CASES["5.15"], "blocker")], ids=["idmapped", "chown"]
)
def test_metacopy_that_is_off_matters_most_where_layers_were_chowned(here: Place, node: Node, severity: str) -> None:
    overlay = here.root / "sys/module/overlay/parameters"
    overlay.mkdir(parents=True)
    try:
        for value in ("N", "Y"):
            (overlay / "metacopy").write_text(f"{value}\n")
            ids = told(here, node, metacopy=True, allow=["kernel-lacks-tmpfs-idmap"])["ids"]
            assert ("metacopy-not-set" in ids) is (value == "N")
            assert value == "Y" or ids["metacopy-not-set"]["severity"] == severity
        (overlay / "metacopy").write_text("N\n")
        assert "metacopy-not-set" not in told(here, node, allow=["kernel-lacks-tmpfs-idmap"])["ids"]
        shared = node.model_copy(update={"container": "lxc"})
        ids = told(here, shared, metacopy=True, allow=["kernel-lacks-tmpfs-idmap"])["ids"]
        assert "metacopy-not-set" not in ids
        assert ids["kernel-shared"]["severity"] == "warning"
    finally:
        shutil.rmtree(here.root / "sys")


def test_a_node_that_hangs_is_not_ready_and_the_check_ends(here: Place) -> None:
    here.be(nodes.bare())
    here.program("uname", "exec sleep 600")
    policy = nodes.policy()
    text = rendered(policy, readiness.of_node(nodes.bare(), policy)).replace("seconds=90", "seconds=2")
    done = here.run(text)
    assert done.returncode == 2
    said = json.loads(done.stdout)
    assert (said["tier"], said["verdict"]) == ("unknown", "not-ready")
    assert "check-cut-off" in {each["id"] for each in said["findings"]}


def test_a_systemctl_that_says_nothing_is_not_believed_to_say_active(here: Place) -> None:
    here.program("systemctl", "exit 0")
    try:
        assert told(here, nodes.bare())["ids"]["containerd-not-running"]["severity"] == "blocker"
    finally:
        here.program("systemctl", "echo LoadState=loaded; echo ActiveState=active; echo UnitFileState=enabled")


# --- its text ------------------------------------------------------------------------------------------------------


def test_the_probe_is_the_deploys_own_to_the_letter() -> None:
    policy = nodes.policy()
    text = rendered(policy, readiness.of_node(nodes.bare(), policy))
    for name in ("probe.sh", "node-kernel.sh", "options.sh"):
        assert templates()[name] in text


def test_a_kernel_update_that_changes_nothing_leaves_the_check_alone_and_another_does_not() -> None:
    converged = nodes.converged()
    assert nodes.plan(converged.model_copy(update={"kernel": "6.12.99"})).changes == ()
    slower = converged.model_copy(update={"kernel": "6.1.0", "probes": CASES["6.1"].probes})
    changed = [each.path for each in nodes.plan(slower).changes if hasattr(each, "path")]
    assert changed == [paths.CHECK]


@pytest.mark.parametrize("root", ["/var/lib/containerd", "/mnt/a b", "/mnt/it's", "/mnt/$(reboot)"])
def test_any_root_is_quoted(here: Place, root: str) -> None:
    policy = nodes.policy(containerd_root=root)
    said = told(here, nodes.bare(), containerd_root=root)
    assert said["tier"] == "idmapped"
    assert "shellcheck" not in rendered(policy, readiness.of_node(nodes.bare(), policy))[:200]


def test_shellcheck_finds_nothing() -> None:
    program("shellcheck")
    for wanted in ({}, {"overlay_metacopy": False, "snapshotter": "stargz"}):
        policy = nodes.policy(**wanted)
        text = rendered(policy, readiness.of_node(nodes.bare(), policy), metacopy=True)
        command = ["shellcheck", "--shell=sh", "--severity=warning", "-"]
        said = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
        assert said.stdout == ""


def test_every_finding_of_the_check_is_described() -> None:
    policy = nodes.policy()
    text = rendered(policy, readiness.of_node(nodes.bare(), policy))
    described = text.partition("describe() {")[2].partition("\n}\n")[0]
    for line in text.splitlines():
        words = line.split()
        if (
            "found" in words
            and not line.startswith("#")
            and (after := words[words.index("found") + 1 :])
            and after[0][0].isalpha()
        ):
            assert f"    {after[0].strip(';')}) " in described, line


def test_the_unit_starts_after_the_boot_and_runs_what_is_installed() -> None:
    text = check.service(templates())
    for line in (
        "Type=oneshot",
        "SuccessExitStatus=1",
        "StartLimitIntervalSec=0",  # however often changes follow one another
        "TimeoutStartSec=150",  # for a oneshot the default is none at all
        f"ConditionPathExists={paths.CHECK}",
        "After=containerd.service multi-user.target",
        f"RequiresMountsFor={paths.CHECK}",
        "WantedBy=multi-user.target",
        f"ExecStart=/bin/sh {paths.CHECK} --unit --write {paths.READINESS}",
    ):
        assert line in text.splitlines()
