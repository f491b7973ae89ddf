"""A change that is cut, wherever: the node ends with all of the old set or all of the new, and a rerun converges."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from lab import Lab, LabNode
from lab.mirror import Mirror
from tasks.operations import activation
from tests.node import releases as made
from tests.node.conftest import BootNode
from tests.node.faults import MARK, RECOVERY, STALE, STATE, UNITS, Deploying, contents, held, program, settle, wait_for
from tests.node.releases import Releases
from tests.node.runs import Operator, leftovers, must

PROGRAMS = "/usr/local/bin/containerd /usr/local/bin/ctr /usr/local/bin/containerd-shim-runc-v2 /usr/local/sbin/runc"
SET = f"sha256sum {PROGRAMS} /etc/containerd/config.toml"


@dataclass(frozen=True)
class Ready:
    """A node with the older set, the settings of the newer one, and the digests of both."""

    lab: Lab
    operator: Operator
    node: LabNode
    releases: Releases
    newer: dict[str, Any]
    older_set: str
    newer_set: str

    def set(self) -> str:
        """What lies on the node."""
        return self.node.ssh(SET).stdout

    def deploying(self, **settings: object) -> Deploying:
        """Begin a deploy of the newer set, or of what the settings say."""
        return Deploying(self.lab, self.operator, self.node, settings or self.newer)

    def assert_runs(self, version: str, digests: str) -> None:
        """One whole set is there, containerd runs the program of it, and nothing is left of the change."""
        assert self.set() == digests
        assert program(self.node) == self.releases.program("containerd", version)
        assert leftovers(self.node) == []
        assert self.node.ssh("systemctl is-system-running").stdout == "running\n"
        assert self.node.ssh(UNITS).stdout == ""


@pytest.fixture(scope="module")
def releases(mirror: Mirror) -> Releases:
    return made.build(mirror)


@pytest.fixture(scope="module")
def operator(lab: Lab, releases: Releases, tmp_path_factory: pytest.TempPathFactory) -> Operator:
    return Operator(lab, tmp_path_factory.mktemp("interrupted"), **releases.settings(lab.serve(releases.mirror).url))


@pytest.fixture(scope="module")
def _ready(lab: Lab, operator: Operator, releases: Releases) -> Iterator[Ready]:
    node = lab.node("ready")
    newer: dict[str, Any] = {
        "containerd_version": releases.newer,
        "runc_version": releases.newer_runc,
        "sandbox_image": "lab.invalid/pause:1",
    }
    must(operator.deploy(node, **newer))
    newer_set = node.ssh(SET).stdout
    must(operator.deploy(node))
    older_set = node.ssh(SET).stdout
    assert not set(older_set.splitlines()) & set(newer_set.splitlines())
    yield Ready(lab, operator, node, releases, newer, older_set, newer_set)
    node.stop()


@pytest.fixture
def ready(_ready: Ready) -> Ready:
    """The node with the older set, whatever the test before left."""
    if _ready.set() != _ready.older_set:
        must(_ready.operator.deploy(_ready.node))
    return _ready


@pytest.mark.parametrize("ends", [Deploying.kill, Deploying.interrupt], ids=["killed", "Ctrl-C"])
def test_the_node_finishes_what_its_controller_began(ready: Ready, ends: Callable[[Deploying], None]) -> None:
    with held(ready.node, "mv", "sbin/runc") as in_the_middle:
        deploying = ready.deploying()
        wait_for(in_the_middle)
        ends(deploying)
        assert ready.set() not in (ready.older_set, ready.newer_set)
    settle(ready.node)
    ready.assert_runs(ready.releases.newer, ready.newer_set)
    again = must(ready.operator.deploy(ready.node, **ready.newer))
    assert [each.partition(":")[0] for each in again.done(ready.node)] == ["Prove"], "which that one did not live to do"
    assert must(ready.operator.deploy(ready.node, **ready.newer)).done(ready.node) == []


@pytest.mark.parametrize("delay", [0.4, 1.0, 1.6])
def test_a_controller_killed_at_any_time_leaves_one_whole_set(ready: Ready, delay: float) -> None:
    deploying = ready.deploying()
    time.sleep(delay)
    deploying.kill()
    settle(ready.node)
    if ready.set() == ready.older_set:
        assert program(ready.node) == ready.releases.program("containerd", ready.releases.containerd)
    else:
        ready.assert_runs(ready.releases.newer, ready.newer_set)
    must(ready.operator.deploy(ready.node, **ready.newer))
    ready.assert_runs(ready.releases.newer, ready.newer_set)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("sync", "containerd.userns-node-new"),  # the new files are being laid beside their targets
        ("mv", "sbin/runc"),  # in the middle of the swap
        ("systemctl", "restart containerd"),  # all is in place, and the old containerd still runs
        ("mv", "/var/lib/userns-node/committed"),  # all is done but the last step
    ],
)
def test_a_boot_undoes_what_a_power_cut_left(ready: Ready, name: str, words: str) -> None:
    before = contents(ready.node)
    with held(ready.node, name, words) as there:
        deploying = ready.deploying()
        wait_for(there)
        ready.node.ssh(f"test -e {MARK} && test -e {RECOVERY}")
        ready.node.cut_power()
        deploying.kill()
    ready.node.start()
    ready.node.wait()
    ready.assert_runs(ready.releases.containerd, ready.older_set)
    assert contents(ready.node) == before
    assert must(ready.operator.deploy(ready.node)).done(ready.node) == []


def test_a_boot_undoes_a_first_deploy_too(
    lab: Lab, operator: Operator, releases: Releases, fresh_node: BootNode
) -> None:
    node = fresh_node()
    before = contents(node)
    with held(node, "systemctl", "restart containerd") as there:
        deploying = Deploying(lab, operator, node, {})
        wait_for(there)
        assert node.ssh("systemctl is-enabled containerd").stdout == "enabled\n"
        node.cut_power()
        deploying.kill()
    node.start()
    node.wait()
    after = contents(node)
    assert {path: what for path, what in after.items() if not path.startswith("var/lib/userns-node")} == before
    assert leftovers(node) == []
    assert node.ssh("systemctl is-system-running; systemctl is-active containerd", check=False).stdout == (
        "running\ninactive\n"
    )
    must(operator.deploy(node))
    assert program(node) == releases.program("containerd", releases.containerd)


KILL = "systemctl kill --signal SIGKILL 'userns-node-activate-*'"


def test_a_killed_change_is_undone_at_once(ready: Ready) -> None:
    before = contents(ready.node)
    with held(ready.node, "systemctl", "restart containerd") as all_is_swapped:
        deploying = ready.deploying()
        wait_for(all_is_swapped)
        with held(ready.node, "flock", "-w 280") as undoing:
            ready.node.ssh(KILL)
            wait_for(undoing)
            ready.node.ssh("rm -f /run/holding-systemctl")  # as the undoing restarts it, too
        run = deploying.end()
    assert run.code == 1
    said = run.said(ready.node)
    assert "error: the change was cut off on the node before its end" in said, run.stderr
    assert "the previous set is back, and containerd runs it" in said
    settle(ready.node)
    ready.assert_runs(ready.releases.containerd, ready.older_set)
    assert contents(ready.node) == before


def cut(ready: Ready) -> None:
    """Kill a change in the middle of its swap, and who undoes it: then nothing does before a boot or the next run."""
    with held(ready.node, "mv", "sbin/runc") as in_the_middle, held(ready.node, "flock", "-w 280") as undoing:
        deploying = ready.deploying()
        wait_for(in_the_middle)
        ready.node.ssh(KILL)
        wait_for(undoing)
        ready.node.ssh("systemctl kill --signal SIGKILL 'userns-node-activate-*-undo.service'")
        run = deploying.end()
    assert run.code == 1
    assert any("the change was cut off on the node before its end" in line for line in run.said(ready.node)), run.stderr
    assert ready.set() not in (ready.older_set, ready.newer_set)


def test_a_rerun_goes_on_where_a_change_was_cut(ready: Ready) -> None:
    cut(ready)
    run = must(ready.operator.deploy(ready.node, **ready.newer))
    assert any("unfinished-change" in line for line in run.said(ready.node))
    ready.assert_runs(ready.releases.newer, ready.newer_set)
    assert must(ready.operator.deploy(ready.node, **ready.newer)).done(ready.node) == []
    previous = "cd /var/lib/userns-node/previous && awk '$1 == \"put\" { print $3 }' restore | xargs sha256sum"
    saved = {line.split()[0] for line in ready.node.ssh(previous).stdout.splitlines()}
    assert {line.split()[0] for line in ready.older_set.splitlines()} <= saved, "the last good set is gone"


def test_a_rerun_that_fails_goes_back_to_the_last_good_set(ready: Ready) -> None:
    before = contents(ready.node)
    cut(ready)
    run = ready.operator.deploy(ready.node, containerd_version=ready.releases.broken)
    assert "the previous set is back, and containerd runs it" in run.said(ready.node), run.stderr
    ready.assert_runs(ready.releases.containerd, ready.older_set)
    assert contents(ready.node) == before


def test_a_plan_made_before_the_cut_is_not_laid_over_half_a_change(ready: Ready) -> None:
    with held(ready.node, "mv", "sbin/runc") as in_the_middle:
        with held(ready.node, "sync", "containerd.userns-node-new") as before_it:
            one = ready.deploying()
            wait_for(before_it)
            unit = ready.node.ssh(f"{UNITS} --state=active").stdout.split()[0]
            late = ready.deploying(sandbox_image="lab.invalid/pause:2")
            wait_for(lambda: len(ready.node.ssh(f"{UNITS} --state=active").stdout.splitlines()) == 2)
        wait_for(in_the_middle)
        with held(ready.node, "flock", "-w 280"):  # who undoes it comes later
            ready.node.ssh(f"systemctl kill --signal SIGKILL {unit}")
            refused = late.end()
        one.end()
    assert STALE in refused.said(ready.node), refused.stderr
    must(ready.operator.deploy(ready.node, **ready.newer))
    ready.assert_runs(ready.releases.newer, ready.newer_set)


WANTS = "/etc/systemd/system/multi-user.target.wants"
WANTED = f"{WANTS}/{RECOVERY.rpartition('/')[2]}"


def with_recovery(node: LabNode) -> LabNode:
    """The node, with the unit that undoes a change at the next boot."""
    makes = re.search(r"^recovery_unit\(\) \{\n.*?^\}$", activation(), re.M | re.S)
    assert makes
    names = f"state=/{STATE} service=containerd.service recovery={RECOVERY} units=/etc/systemd/system"
    node.ssh(
        f"{names} wanted={WANTED}\n{makes[0]}\nrecovery_unit >$recovery; mkdir -p {WANTS}; ln -s $recovery $wanted"
    )
    return node


def test_a_unit_for_a_boot_that_is_alone_is_gone_after_that_boot(fresh_node: BootNode) -> None:
    """A change was cut off between its last two steps: what that boot would run is gone already."""
    node = with_recovery(fresh_node())
    node.reboot()
    assert node.ssh(f"ls {RECOVERY} {WANTED}", check=False).stdout == ""
    assert node.ssh("systemctl list-units --all --plain --no-legend 'userns-node-*'").stdout == ""


@pytest.mark.parametrize("place", [f"/{STATE}", "/usr/local"])
def test_what_a_boot_undoes_a_change_with_and_in_is_mounted_before(fresh_node: BootNode, place: str) -> None:
    """A mount with nofail is waited for by no target. Without it the unit would find nothing, and remove itself."""
    node = with_recovery(fresh_node())
    late = "[Unit]\nDefaultDependencies=no\n[Service]\nType=oneshot\nExecStart=/bin/sleep 5\n"
    node.put("/etc/systemd/system/late.service", late.encode())
    fstab = f"/srv/mounted {place} none bind,nofail,x-systemd.requires=late.service 0 0\n"
    node.put("/etc/fstab", fstab.encode())
    script = f"findmnt --noheadings --output TARGET {place} >/root/mounted; echo $1 >>/root/mounted\n"
    node.put(f"{'/srv/mounted' if place == f'/{STATE}' else f'/{STATE}'}/activate.sh", script.encode())
    node.ssh(f"mkdir -p /srv/mounted /{STATE}")
    node.reboot()
    assert node.ssh("cat /root/mounted").stdout.split() == [place, "--recover"]
    assert node.ssh(f"ls {RECOVERY}").stdout == f"{RECOVERY}\n"
