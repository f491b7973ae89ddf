"""Rollback: the set before a change comes back with one command, and the node is never left with a mixture."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from lab import Lab, LabNode
from lab.mirror import Mirror
from tests.node import releases as made
from tests.node.faults import Deploying, contents, held, program, wait_for
from tests.node.releases import BROKEN, Releases
from tests.node.runs import Counter, Operator, Run, differences, leftovers, must, start_counter, tree

PROGRAMS = "/usr/local/bin/containerd /usr/local/bin/ctr /usr/local/bin/containerd-shim-runc-v2 /usr/local/sbin/runc"
STATE = "/var/lib/userns-node"
NEEDS_CONTAINERD = b"""\
[Unit]
Requires=containerd.service
After=containerd.service
[Service]
ExecStart=/bin/sleep infinity
[Install]
WantedBy=multi-user.target
"""


@dataclass(frozen=True)
class Rolling:
    """A node with a container that must never stop, and the settings of sets that it goes through."""

    lab: Lab
    operator: Operator
    node: LabNode
    releases: Releases
    counter: Counter
    newer: dict[str, Any]
    newest: dict[str, Any]

    def set(self) -> str:
        """What lies on the node now."""
        return self.node.ssh(f"sha256sum {PROGRAMS} /etc/containerd/config.toml").stdout

    def saved(self, path: str) -> str:
        """Where the last kept set has this file."""
        number = self.node.ssh(f"awk '$2 == \"{path}\" {{ print $3 }}' {STATE}/previous/restore").stdout.strip()
        return f"{STATE}/previous/{number}"

    def assert_runs(self, version: str, **settings: Any) -> None:
        """One whole set is there: a deploy of its settings finds nothing to do, and the container counts on."""
        assert program(self.node) == self.releases.program("containerd", version)
        assert must(self.operator.deploy(self.node, **settings)).done(self.node) == []
        assert leftovers(self.node) == []
        assert self.counter.stopped_counting() == ""
        assert self.counter.unknown() == ""
        assert self.counter.gap() == ""

    def older_then_newer(self) -> None:
        """A deploy of the older set, then one of the newer."""
        must(self.operator.deploy(self.node))
        must(self.operator.deploy(self.node, **self.newer))


@pytest.fixture(scope="module")
def releases(mirror: Mirror) -> Releases:
    return made.build(mirror)


@pytest.fixture(scope="module")
def operator(lab: Lab, releases: Releases, tmp_path_factory: pytest.TempPathFactory) -> Operator:
    return Operator(lab, tmp_path_factory.mktemp("rollback"), **releases.settings(lab.serve(releases.mirror).url))


@pytest.fixture(scope="module")
def bare(lab: Lab) -> Iterator[LabNode]:
    node = lab.node("rolling")
    yield node
    node.stop()


@pytest.fixture(scope="module")
def on_a_bare_node(operator: Operator, bare: LabNode) -> tuple[Run, list[str]]:
    before = tree(bare)
    run = operator.rollback(bare)
    return run, differences(before, tree(bare))


@pytest.fixture(scope="module")
def after_one_deploy(operator: Operator, bare: LabNode, on_a_bare_node: object) -> tuple[Run, list[str]]:
    must(operator.deploy(bare, overlay_metacopy="auto"))
    before = tree(bare)
    run = operator.rollback(bare)
    return run, differences(before, tree(bare))


@pytest.fixture(scope="module")
def rolling(lab: Lab, operator: Operator, bare: LabNode, releases: Releases, after_one_deploy: object) -> Rolling:
    newer = {
        "containerd_version": releases.newer,
        "runc_version": releases.newer_runc,
        "sandbox_image": "lab.invalid/pause:1",
    }
    newest = newer | {"sandbox_image": "lab.invalid/pause:2"}
    return Rolling(lab, operator, bare, releases, start_counter(bare), newer, newest)


def test_a_node_without_a_kept_set_is_refused(bare: LabNode, on_a_bare_node: tuple[Run, list[str]]) -> None:
    run, changed = on_a_bare_node
    assert (run.code, run.failed) == (1, [bare.name])
    assert run.findings(bare) == {"rollback-nothing-kept": "blocker"}
    assert changed == []


def test_a_first_deploy_is_not_taken_back(bare: LabNode, after_one_deploy: tuple[Run, list[str]]) -> None:
    run, changed = after_one_deploy
    assert (run.code, run.failed) == (1, [bare.name])
    assert "rollback-without-containerd" in run.findings(bare), run.stderr
    assert changed == []


def test_the_dry_run_says_what_would_come_back(rolling: Rolling) -> None:
    rolling.older_then_newer()
    before = contents(rolling.node)
    run = must(rolling.operator.rollback(rolling.node, flags=["--dry"]))
    releases = rolling.releases
    programs = PROGRAMS.split()
    assert run.will(rolling.node) == [
        f"bring back containerd {releases.containerd} (now {releases.newer}): {', '.join(programs[:3])}",
        f"bring back runc {releases.runc} (now {releases.newer_runc}): {programs[3]}",
        "bring back /etc/containerd/config.toml",
        "restart containerd.service and check its health",
    ], run.stderr
    assert contents(rolling.node) == before


def test_the_set_before_comes_back_and_a_second_rollback_goes_forward_again(rolling: Rolling) -> None:
    rolling.older_then_newer()
    newer = rolling.set()
    must(rolling.operator.rollback(rolling.node))
    assert rolling.set() != newer
    rolling.assert_runs(rolling.releases.containerd)
    must(rolling.operator.rollback(rolling.node))
    assert rolling.set() == newer
    rolling.assert_runs(rolling.releases.newer, **rolling.newer)


def test_two_sets_are_kept_and_the_older_one_comes_back_whole(rolling: Rolling) -> None:
    rolling.older_then_newer()
    older_runc = rolling.releases.runc
    must(rolling.operator.deploy(rolling.node, **rolling.newest))
    must(rolling.operator.deploy(rolling.node, **rolling.newest | {"runc_version": older_runc}))
    kept = rolling.node.ssh(f"ls {STATE}").stdout.split()
    assert sorted(each for each in kept if each.startswith("previous")) == ["previous", "previous.2"]
    must(rolling.operator.rollback(rolling.node, to="older_set"))
    rolling.assert_runs(rolling.releases.newer, **rolling.newer)
    must(rolling.operator.rollback(rolling.node))
    rolling.assert_runs(rolling.releases.newer, **rolling.newest | {"runc_version": older_runc})
    must(rolling.operator.rollback(rolling.node, to="older_set"))
    rolling.assert_runs(rolling.releases.newer, **rolling.newest)


def test_a_broken_node_and_broken_settings_are_no_hindrance(rolling: Rolling) -> None:
    rolling.older_then_newer()
    node = rolling.node
    node.put("/usr/local/bin/containerd.new", BROKEN, 0o755)
    node.ssh("mv /usr/local/bin/containerd.new /usr/local/bin/containerd; echo '[' >/etc/containerd/config.toml")
    node.put("/etc/systemd/system/needs.service", NEEDS_CONTAINERD)
    node.ssh("systemctl daemon-reload; systemctl enable --now needs")
    node.ssh("rm /usr/local/sbin/runc; systemctl stop containerd")
    settings: dict[str, Any] = {"kubernetes_version": "no such", "containerd_version": 5}
    assert rolling.operator.deploy(node, **settings).code == 1
    run = must(rolling.operator.rollback(node, **settings))
    assert run.failed == []
    # It stopped with containerd, before anybody could see that it ran.
    (told,) = [line for line in run.said(node) if "needs.service" in line]
    assert told.endswith("systemctl start needs.service")
    assert node.ssh("systemctl is-active needs", check=False).stdout.strip() == "inactive"
    node.ssh("systemctl disable --now needs; rm /etc/systemd/system/needs.service; systemctl daemon-reload")
    rolling.assert_runs(rolling.releases.containerd)


def test_a_kept_set_that_is_unhealthy_too_makes_way_again(rolling: Rolling) -> None:
    rolling.older_then_newer()
    node, newer = rolling.node, rolling.set()
    saved = rolling.saved("/etc/containerd/config.toml")
    node.ssh(f"echo '[[[ broken' >{saved}.new; mv {saved}.new {saved}")
    run = rolling.operator.rollback(node)
    assert run.code == 1
    assert run.findings(node)["rollback-brings-edited"] == "warning"
    said = run.said(node)
    assert "error: containerd.service did not start with the kept set" in said, run.stderr
    assert any(line.startswith("journal: ") and "toml" in line for line in said), run.stderr
    assert "the set from before the rollback is back, and containerd runs it" in said
    assert rolling.set() == newer
    rolling.assert_runs(rolling.releases.newer, **rolling.newer)
    # And where what is there now is broken as well, it is told.
    node.ssh(
        "echo '[' >/etc/containerd/config.toml; systemctl stop containerd; systemctl start containerd", check=False
    )
    run = rolling.operator.rollback(node)
    assert run.code == 1
    assert any("is back" in line and "was not running before" in line for line in run.said(node)), run.stderr
    assert "systemd goes on trying to start it. Why it does not start: journalctl -u containerd.service" in run.said(
        node
    )
    assert node.ssh("systemctl is-active containerd", check=False).stdout.strip() == "activating"
    must(rolling.operator.deploy(node, **rolling.newer))


def test_a_program_that_was_cut_short_in_the_kept_set_is_not_brought_back(rolling: Rolling) -> None:
    rolling.older_then_newer()
    node = rolling.node
    saved = rolling.saved("/usr/local/sbin/runc")
    node.ssh(f"head -c 4096 {saved} >{saved}.new && chmod 755 {saved}.new && mv {saved}.new {saved}")
    before = contents(node)
    run = rolling.operator.rollback(node)
    assert run.code == 1
    assert run.findings(node)["rollback-set-damaged"] == "blocker"
    assert contents(node) == before


def test_an_edit_that_a_deploy_puts_right_is_in_no_kept_set(rolling: Rolling) -> None:
    rolling.older_then_newer()
    node = rolling.node
    must(rolling.operator.deploy(node, **rolling.newest))
    kept = node.ssh(f"cd {STATE}; sha256sum previous/* previous.2/*").stdout
    node.ssh("echo '[[[ broken' >>/etc/containerd/config.toml")
    run = must(rolling.operator.rollback(node, to="older_set", flags=["--dry"]))
    assert "rollback-leaves-edited" not in run.findings(node)  # both sets have another
    must(rolling.operator.deploy(node, **rolling.newest))
    assert node.ssh(f"cd {STATE}; sha256sum previous/* previous.2/*").stdout == kept
    must(rolling.operator.rollback(node, to="older_set"))
    rolling.assert_runs(rolling.releases.containerd)


def test_metacopy_is_not_turned_off(rolling: Rolling) -> None:
    node = rolling.node
    must(rolling.operator.deploy(node, overlay_metacopy="auto"))
    node.ssh("test ! -e /etc/modprobe.d/overlay-metacopy.conf", check=False)
    node.ssh("rm -f /etc/modprobe.d/overlay-metacopy.conf")
    must(rolling.operator.deploy(node, overlay_metacopy="auto"))
    must(rolling.operator.deploy(node, **rolling.newer))
    files = "/etc/modprobe.d/overlay-metacopy.conf /usr/local/libexec/userns-node/pre-start"
    before = node.ssh(f"sha256sum {files}").stdout
    run = must(rolling.operator.rollback(node))
    assert run.findings(node)["rollback-stays"] == "note"
    assert node.ssh(f"sha256sum {files}").stdout == before
    assert program(node) == rolling.releases.program("containerd", rolling.releases.containerd)
    # The node check that came back was made for a node without metacopy, so that a deploy has that to say anew.
    assert rolling.counter.stopped_counting() == ""


def rolling_back(rolling: Rolling) -> Deploying:
    return Deploying(rolling.lab, rolling.operator, rolling.node, {}, "tasks.rollback.previous_set")


def test_a_rollback_that_is_cut_is_taken_further_by_the_next(rolling: Rolling) -> None:
    rolling.older_then_newer()
    with held(rolling.node, "mv", "sbin/runc") as in_the_middle:
        running = rolling_back(rolling)
        wait_for(in_the_middle)
        rolling.node.ssh("systemctl kill --signal SIGKILL 'userns-node-activate-*'")
        assert running.end().code == 1
    run = must(rolling.operator.rollback(rolling.node))
    assert run.failed == []
    rolling.assert_runs(rolling.releases.containerd)
    must(rolling.operator.rollback(rolling.node))
    rolling.assert_runs(rolling.releases.newer, **rolling.newer)


def test_a_deploy_that_was_cut_is_undone(rolling: Rolling) -> None:
    rolling.older_then_newer()
    must(rolling.operator.deploy(rolling.node))
    before = contents(rolling.node)
    with held(rolling.node, "flock", "-w 280"):  # the node would undo it by itself: here it comes too late
        with held(rolling.node, "mv", "sbin/runc") as in_the_middle:
            running = Deploying(rolling.lab, rolling.operator, rolling.node, rolling.newer)
            wait_for(in_the_middle)
            rolling.node.ssh("systemctl kill --signal SIGKILL 'userns-node-activate-*'")
        run = must(rolling.operator.rollback(rolling.node))
        assert any("a change was cut off on this node" in line for line in run.said(rolling.node)), run.stderr
        now = contents(rolling.node)
        del now["usr/local/sbin/flock"]  # which is held
        assert now == before
    run = running.end()
    assert run.code == 1
    assert "and nothing of it is left: run again" in run.text
    assert contents(rolling.node) == before
    rolling.assert_runs(rolling.releases.containerd)


def test_a_boot_undoes_a_rollback_that_a_power_cut_ended(rolling: Rolling) -> None:
    rolling.counter.remove()
    rolling.older_then_newer()
    before, newer = contents(rolling.node), rolling.set()
    with held(rolling.node, "systemctl", "restart containerd") as there:
        running = rolling_back(rolling)
        wait_for(there)
        assert rolling.set() != newer
        rolling.node.cut_power()
        running.kill()
    rolling.node.start()
    rolling.node.wait()
    assert contents(rolling.node) == before
    assert program(rolling.node) == rolling.releases.program("containerd", rolling.releases.newer)
    assert leftovers(rolling.node) == []


def test_a_set_comes_back_where_the_state_has_a_file_system_of_its_own(
    lab: Lab, operator: Operator, releases: Releases, rolling: Rolling
) -> None:
    """As where /var is one: what is saved is a copy then, and not a link to the file."""
    node = lab.node("apart")
    try:
        node.ssh(f"mkdir -p {STATE} && mount -t tmpfs -o mode=700 none {STATE}")
        must(operator.deploy(node))
        older = node.ssh(f"sha256sum {PROGRAMS} /etc/containerd/config.toml").stdout
        must(operator.deploy(node, **rolling.newer))
        must(operator.rollback(node))
        assert node.ssh(f"sha256sum {PROGRAMS} /etc/containerd/config.toml").stdout == older
        assert program(node) == releases.program("containerd", releases.containerd)
        assert must(operator.deploy(node)).done(node) == []
        must(operator.rollback(node))
        assert program(node) == releases.program("containerd", releases.newer)
        assert must(operator.deploy(node, **rolling.newer)).done(node) == []
        assert leftovers(node) == []
    finally:
        node.stop()
