"""The check that stays on the node: it says what a deploy would say, notices what changes, and runs after a boot."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from lab import Lab, LabNode
from lab.mirror import Mirror
from lab.serving import Served
from tests import boot
from tests.node.runs import Operator, differences, must, tree

CHECK = "/usr/local/libexec/userns-node/check"
CONFIG = "/etc/containerd/config.toml"
RUNC = "/usr/local/sbin/runc"
CTR = "/usr/local/bin/ctr"
SNAPSHOTS = "/var/lib/containerd/io.containerd.snapshotter.v1.overlayfs"
READINESS = "/run/userns-node/readiness.json"
# What a node in a container always has: this machine's kernel has metacopy as its owner wants it.
ALWAYS = "kernel-shared"


@pytest.fixture(scope="module")
def operator(lab: Lab, mirror: Mirror, _releases: Served, tmp_path_factory: pytest.TempPathFactory) -> Operator:
    return Operator(lab, tmp_path_factory.mktemp("check"), release_url=_releases.url, artifact_lock=str(mirror.lock))


@pytest.fixture(scope="module")
def node(lab: Lab, operator: Operator) -> Iterator[LabNode]:
    """A node that was deployed to once."""
    node = lab.node("checked")
    must(operator.deploy(node))
    yield node
    node.stop()


@dataclass(frozen=True)
class Said:
    """One run of the check."""

    code: int
    told: dict[str, Any]

    @property
    def ids(self) -> list[str]:
        """The findings, but for the one that every node in a container has."""
        return [each["id"] for each in self.told["findings"] if each["id"] != ALWAYS]

    def detail(self, id: str) -> str:
        """What is told of a finding beside its meaning."""
        details: list[str] = [each["detail"] for each in self.told["findings"] if each["id"] == id]
        return details[0]


def check(node: LabNode, *, before: str = ":", after: str = ":", shell: str = "") -> Said:
    """Run the check after a change of the node, which is undone again."""
    run = f"{before}; {shell} {CHECK}; code=$?; {after}; echo; echo $code"
    told, code = node.ssh(f"({run}) 2>/dev/null").stdout.rstrip().rsplit("\n", 1)
    return Said(int(code), json.loads(told))


def test_a_node_as_the_deploy_left_it_is_ready(node: LabNode, mirror: Mirror) -> None:
    said = check(node)
    assert (said.code, said.told["verdict"], said.ids) == (0, "ready", [])
    assert said.told["containerd"] == {"active": "active", "enabled": "enabled"}
    assert said.told["versions"] == {name: mirror.versions(name)[0] for name in ("containerd", "runc")}
    assert said.told["tier"] == said.told["expected_tier"]


def test_a_deploy_leaves_a_fresh_answer_for_whoever_watches_the_node(node: LabNode) -> None:
    assert json.loads(node.ssh(f"cat {READINESS}").stdout)["verdict"] == "ready"


def test_it_says_what_the_plan_says(node: LabNode, operator: Operator) -> None:
    """The same fact decided by the controller, and the probes that it was decided by."""
    fact = must(operator.pyinfra(operator.inventory({"nodes": {node: {}}}), "--json", "fact", "tasks.node.Node"))
    (by_host,) = fact.json.values()
    planned = by_host[node.name]["probes"]
    said = check(node).told
    assert {name: each["result"] for name, each in said["probes"].items()} == {
        name: each["result"] for name, each in planned.items()
    }
    dry = must(operator.dry(node))
    assert f"tier {said['tier']}: " in "\n".join(dry.said(node))
    assert dry.will(node) == []


def test_every_shell_says_the_same(node: LabNode) -> None:
    expected = check(node).told | {"time": 0}
    for shell in ("sh", "bash --posix"):
        assert check(node, shell=shell).told | {"time": 0} == expected


def test_it_leaves_no_trace(node: LabNode) -> None:
    look = "ls -A /run /tmp /var/lib/containerd; cat /proc/mounts; ps -e -o comm= | grep -c perl"
    before, seen = tree(node), node.ssh(look, check=False).stdout
    check(node)
    assert differences(before, tree(node)) == []
    assert node.ssh(look, check=False).stdout == seen


DROP_INS = "/etc/systemd/system/containerd.service.d"
CHANGES = {
    "config edited": (f"cp -p {CONFIG} /root/c; echo '# mine' >>{CONFIG}", f"mv /root/c {CONFIG}", 1, "file-changed"),
    "check edited": (f"cp -p {CHECK} /root/c; echo >>{CHECK}", f"mv /root/c {CHECK}", 1, "file-changed"),
    "ctr replaced": (f"mv {CTR} {CTR}.x; cp /bin/true {CTR}", f"mv {CTR}.x {CTR}", 1, "program-changed"),
    "runc gone": (f"mv {RUNC} {RUNC}.x", f"mv {RUNC}.x {RUNC}", 2, "program-missing"),
    "containerd disabled": (
        "systemctl disable containerd",
        "systemctl enable containerd",
        1,
        "containerd-not-enabled",
    ),
    "containerd stopped": ("systemctl stop containerd", "systemctl start containerd", 2, "containerd-not-running"),
    "another config in a drop-in": (
        f"printf '[Service]\\nExecStart=\\nExecStart=/usr/local/bin/containerd --root /var/lib/containerd/ -c /x\\n' "
        f">{DROP_INS}/x.conf && systemctl daemon-reload",
        f"rm {DROP_INS}/x.conf && systemctl daemon-reload",
        2,
        "containerd-ignores-config",
    ),
    "a change that was cut off": (
        "echo x >/var/lib/userns-node/activation",
        "rm /var/lib/userns-node/activation",
        1,
        "unfinished-change",
    ),
    "record gone": (
        "mv /var/lib/userns-node/manifest /root/m",
        "mv /root/m /var/lib/userns-node/manifest",
        1,
        "record-missing",
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_changed_since_the_deploy_is_told(node: LabNode, name: str) -> None:
    before, after, code, id = CHANGES[name]
    said = check(node, before=before, after=after)
    assert (said.code, said.ids) == (code, [id])
    assert said.told["verdict"] == {1: "degraded", 2: "not-ready"}[code]


def test_a_program_that_was_only_touched_has_not_changed(node: LabNode) -> None:
    assert check(node, before=f"touch {RUNC}").code == 0


def test_a_file_system_that_cannot_idmap_is_not_ready_as_the_plan_says(node: LabNode, operator: Operator) -> None:
    said = check(node, before=f"mount -t ramfs none {SNAPSHOTS}")
    refused = operator.dry(node)
    node.ssh(f"umount {SNAPSHOTS}")
    assert (said.code, said.told["tier"]) == (2, "unsupported")
    assert said.ids == ["containerd-root-cannot-idmap", "tier-lowered"]
    assert said.detail("tier-lowered").endswith(", unsupported now")
    assert "blocker containerd-root-cannot-idmap" in refused.text
    assert said.told["probes"]["containerd-root"]["errno"] == "EINVAL"


def test_without_perl_another_way_is_found_or_versions_decide(node: LabNode) -> None:
    hide = "mount --bind /bin/false /usr/bin/perl"
    said = check(node, before=f"{hide}; umask 077", after="umount /usr/bin/perl")
    assert (said.code, said.told["tier"]) == (0, "idmapped")
    hide_both = f"{hide}; mount --bind /bin/false /usr/bin/unshare"
    said = check(node, before=hide_both, after="umount /usr/bin/unshare /usr/bin/perl")
    assert (said.code, said.ids) == (0, ["idmap-not-probed"])
    assert {each["result"] for each in said.told["probes"].values()} <= {"unknown"}


def metrics(node: LabNode, *, before: str = ":", after: str = ":") -> dict[str, str]:
    """The values that the check writes after a change of the node, which is undone again."""
    read = "cat metrics/userns_node.prom; rm -r metrics"
    told = node.ssh(
        f"cd /root && mkdir metrics; {before}; {CHECK} --metrics metrics >/dev/null; {after}; {read}"
    ).stdout
    lines = told.splitlines()
    values = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    typed = [line.split()[2] for line in lines if line.startswith("# TYPE")]
    assert len(typed) == len(set(typed))
    assert {name.partition("{")[0] for name in values} <= set(typed)
    return values


def test_metrics_say_that_a_node_is_ready_and_with_what(node: LabNode, mirror: Mirror) -> None:
    values = metrics(node)
    assert (values["userns_node_ready"], values["userns_node_degraded"]) == ("1", "0")
    assert values['userns_node_tier_info{tier="idmapped",expected="idmapped"}'] == "1"
    components = {name for name in values if name.startswith("userns_node_component_info")}
    assert components == {
        f'userns_node_component_info{{component="{name}",version="{mirror.versions(name)[0]}"}}'
        for name in ("containerd", "runc")
    }
    now = int(node.ssh("date +%s").stdout)
    assert 0 <= now - int(values["userns_node_check_timestamp_seconds"]) < 600


@pytest.mark.parametrize("name", ["ctr replaced", "containerd stopped"])
def test_metrics_say_that_a_node_is_degraded_or_not_ready_and_why(node: LabNode, name: str) -> None:
    before, after, code, id = CHANGES[name]
    values = metrics(node, before=before, after=after)
    assert (values["userns_node_ready"], values["userns_node_degraded"]) == {1: ("1", "1"), 2: ("0", "0")}[code]
    severity = {1: "warning", 2: "blocker"}[code]
    assert values[f'userns_node_finding{{id="{id}",severity="{severity}"}}'] == "1"


def test_metrics_are_written_at_once_and_readable(node: LabNode) -> None:
    node.ssh("mkdir /root/metrics")
    try:
        node.ssh(f"cd /root && {CHECK} --metrics metrics >/dev/null")
        listed = node.ssh("stat -c '%n %a' /root/metrics/* /root/metrics/.[a-z]* 2>/dev/null", check=False).stdout
        assert listed == "/root/metrics/userns_node.prom 644\n"
    finally:
        node.ssh("rm -r /root/metrics")


def test_a_drop_in_of_the_unit_names_the_directory_for_metrics(node: LabNode) -> None:
    """As the unit's own text says."""
    drop_in, directory = "/etc/systemd/system/userns-node-check.service.d", "/root/metrics"
    text = f"[Service]\nEnvironment=USERNS_NODE_METRICS={directory}\n"
    node.ssh(f"mkdir {directory} {drop_in} && cat >{drop_in}/metrics.conf && systemctl daemon-reload", input=text)
    try:
        node.ssh("systemctl start userns-node-check")
        assert "userns_node_ready 1\n" in node.ssh(f"cat {directory}/userns_node.prom").stdout
        node.ssh(f"rm -r {directory}")
        done = node.ssh(f"rm {READINESS}; systemctl start userns-node-check", check=False)
        assert done.returncode == 1  # and still the answer is there for all who ask
        assert json.loads(node.ssh(f"cat {READINESS}").stdout)["verdict"] == "ready"
    finally:
        node.ssh(f"rm -rf {directory} {drop_in}; systemctl daemon-reload; systemctl reset-failed userns-node-check")


def test_a_deploy_removes_metrics_that_the_unit_writes_no_more(node: LabNode, operator: Operator) -> None:
    drop_in, directory = "/etc/systemd/system/userns-node-check.service.d", "/root/metrics"
    text = f"[Service]\nEnvironment=USERNS_NODE_METRICS={directory}\n"
    node.ssh(f"mkdir {directory} {drop_in} && cat >{drop_in}/metrics.conf && systemctl daemon-reload", input=text)
    try:
        node.ssh(f"systemctl start userns-node-check; echo mine >{directory}/other.prom")
        assert must(operator.dry(node)).will(node) == []
        node.ssh(f"rm -r {drop_in}; systemctl daemon-reload")
        removal = f"remove {directory}/userns_node.prom: userns-node-check.service no longer writes it"
        assert must(operator.dry(node)).will(node) == [removal]
        assert must(operator.deploy(node)).will(node) == [removal]
        assert node.ssh(f"ls {directory}").stdout.split() == ["other.prom"]
        assert "metrics" not in node.ssh("ls /var/lib/userns-node").stdout.split()
        assert must(operator.deploy(node)).will(node) == []
    finally:
        node.ssh(f"rm -rf {directory} {drop_in}; systemctl daemon-reload")


@pytest.mark.parametrize("arguments", ["--write", "what"])
def test_what_cannot_be_understood_is_told(node: LabNode, arguments: str) -> None:
    done = node.ssh(f"{CHECK} {arguments}", check=False)
    assert (done.returncode, done.stdout) == (64, "")
    assert "usage: check" in done.stderr


def test_without_a_place_for_its_metrics_it_still_answers(node: LabNode) -> None:
    done = node.ssh(f"{CHECK} --metrics /nowhere", check=False)
    assert (done.returncode, json.loads(done.stdout)["verdict"]) == (73, "ready")
    assert done.stderr == "check: /nowhere/userns_node.prom cannot be written\n"
    done = node.ssh(
        f"cd /root && {CHECK} --metrics /nowhere --write answer.json; echo $?; cat answer.json; rm answer.json"
    )
    journal, code, *answer = done.stdout.splitlines()
    assert (journal.startswith("userns-node: ready, tier "), code) == (True, "73")
    assert json.loads("".join(answer))["verdict"] == "ready"


def test_without_a_place_for_its_answer_it_still_writes_the_metrics(node: LabNode) -> None:
    done = node.ssh(
        f"cd /root && {CHECK} --write /proc/x/y --metrics .; echo $?; cat userns_node.prom; rm userns_node.prom"
    )
    assert done.stdout.splitlines()[1] == "73"
    assert "userns_node_ready 1\n" in done.stdout
    assert done.stderr == "check: /proc/x/y cannot be written\n"


def test_after_a_boot_it_has_run_by_itself_and_the_boot_did_not_wait_for_it(node: LabNode) -> None:
    assert node.ssh("systemctl is-enabled userns-node-check").stdout == "enabled\n"
    node.reboot()  # /run is empty then
    told = boot.told(node)
    assert node.ssh(f"stat -c '%a %u:%g' {READINESS}").stdout == "644 0:0\n"
    assert told["verdict"] == "ready"
    reached, started = boot.times(node)
    assert 0 < reached <= started
    [said] = boot.journal(node).splitlines()
    assert said.startswith("userns-node: ready, tier idmapped")


def test_a_node_that_is_not_ready_is_a_failed_unit_and_a_degraded_one_is_not(node: LabNode) -> None:
    run = "systemctl start userns-node-check"
    disabled = node.ssh(f"systemctl disable containerd 2>/dev/null; {run}", check=False)
    node.ssh("systemctl enable containerd 2>/dev/null")
    assert disabled.returncode == 0
    stopped = node.ssh(f"systemctl stop containerd; {run}; echo $?; systemctl start containerd", check=False)
    assert stopped.stdout.split()[-1] == "1"
    assert json.loads(node.ssh(f"cat {READINESS}").stdout)["verdict"] == "not-ready"
    node.ssh(f"systemctl reset-failed userns-node-check; {run}")


def test_a_deploy_has_nothing_to_do_on_a_node_that_is_ready(node: LabNode, operator: Operator) -> None:
    """Whatever the tests above did to it."""
    assert check(node).code == 0
    assert operator.deploy(node).will(node) == []
