"""The change-over: it goes all the way, or the node is as it was, containerd runs, and no container has noticed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from lab import Lab, LabNode
from lab.mirror import Mirror
from lab.network import CONTROLLER
from tests.node import releases as made
from tests.node.conftest import BootNode
from tests.node.faults import STALE, UNITS, Deploying, contents, held, program, settle, wait_for
from tests.node.releases import Releases
from tests.node.runs import Counter, Operator, Run, leftovers, must, start_counter

RUNTIME = "io.containerd.cri.v1.runtime"
IMAGES = "io.containerd.cri.v1.images"
# To containerd that is a text; its CRI plugin takes it for a duration, and fails when it starts.
NO_CRI = {"image_pull_progress_timeout": "soon"}


@dataclass(frozen=True)
class Ready:
    """A node that was deployed to, with a container that must never stop."""

    operator: Operator
    node: LabNode
    counter: Counter


@pytest.fixture(scope="module")
def releases(mirror: Mirror) -> Releases:
    return made.build(mirror)


@pytest.fixture(scope="module")
def operator(lab: Lab, releases: Releases, tmp_path_factory: pytest.TempPathFactory) -> Operator:
    return Operator(lab, tmp_path_factory.mktemp("change-over"), **releases.settings(lab.serve(releases.mirror).url))


@pytest.fixture(scope="module")
def ready(lab: Lab, operator: Operator) -> Iterator[Ready]:
    node = lab.node("ready")
    must(operator.deploy(node))
    yield Ready(operator, node, start_counter(node))
    node.stop()


NEEDS_CONTAINERD = b"""[Unit]
Requires=containerd.service
After=containerd.service
[Service]
ExecStart=/bin/sleep infinity
"""


def assert_untouched(ready: Ready, before: dict[str, str], running: str) -> None:
    """All files as they were, containerd runs and starts at boot, and the container counts on."""
    assert contents(ready.node) == before
    assert leftovers(ready.node) == []
    assert program(ready.node) == running
    assert ready.node.ssh("systemctl is-active containerd; systemctl is-enabled containerd").stdout == (
        "active\nenabled\n"
    )
    assert ready.counter.stopped_counting() == ""


@pytest.mark.parametrize(
    ("tables", "tells"),
    [
        ({"oom_score": "high"}, "cannot decode TOML string into struct field config.Config.OOMScore of type int"),
        ({"plugins": {RUNTIME: {"max_container_log_line_size": "long"}}}, "MaxContainerLogLineSize of type int"),
    ],
)
def test_a_config_that_containerd_refuses_changes_nothing(ready: Ready, tables: dict[str, object], tells: str) -> None:
    before, running = contents(ready.node), program(ready.node)
    started = ready.node.ssh("systemctl show --property MainPID containerd").stdout
    run = ready.operator.deploy(ready.node, containerd_config=tables)
    assert run.code == 1
    said = run.said(ready.node)
    assert any(tells in line for line in said), run.stderr
    assert "error: the new config.toml is refused by /usr/local/bin/containerd itself" in said
    assert "nothing was changed" in said
    assert ready.node.ssh("systemctl show --property MainPID containerd").stdout == started
    assert_untouched(ready, before, running)


def test_where_a_file_cannot_be_written_nothing_was_changed_and_nothing_is_to_be_made_up_for(ready: Ready) -> None:
    """Nor brought back: that would be written there, too."""
    before, running = contents(ready.node), program(ready.node)
    mount = "mount --bind /etc/containerd /etc/containerd && mount -o remount,bind,ro /etc/containerd"
    ready.node.ssh(mount)
    try:
        run = ready.operator.deploy(ready.node, sandbox_image="lab.invalid/pause:2")
        said = "\n".join(run.said(ready.node))
        assert run.code == 1
        assert "nothing was changed" in said
        assert "brought back" not in said
        assert ready.node.ssh("ls /var/lib/userns-node/activation", check=False).returncode == 2
    finally:
        ready.node.ssh("umount /etc/containerd")
    assert_untouched(ready, before, running)


def test_a_containerd_that_does_not_start_makes_way_for_the_one_before(ready: Ready, releases: Releases) -> None:
    before, running = contents(ready.node), program(ready.node)
    # As the kubelet of some distributions: it stops with containerd, and systemd gives it up where that does not start.
    ready.node.put("/run/systemd/system/needs.service", NEEDS_CONTAINERD)
    ready.node.ssh("systemctl daemon-reload && systemctl start needs")
    try:
        run = ready.operator.deploy(
            ready.node,
            containerd_version=releases.broken,
            runc_version=releases.newer_runc,
            containerd_config={"debug": {"level": "info"}},
        )
        assert ready.node.ssh("systemctl is-active needs", check=False).stdout == "active\n"
    finally:
        ready.node.ssh("systemctl stop needs; rm /run/systemd/system/needs.service; systemctl daemon-reload")
    assert run.code == 1
    said = run.said(ready.node)
    assert "error: containerd.service did not start" in said, run.stderr
    assert "journal: this containerd was made to fail" in said
    assert "the previous set is back, and containerd runs it" in said
    assert_untouched(ready, before, running)


def test_a_containerd_without_cri_makes_way_too(ready: Ready) -> None:
    before, running = contents(ready.node), program(ready.node)
    run = ready.operator.deploy(ready.node, containerd_config={"plugins": {IMAGES: NO_CRI}})
    assert run.code == 1
    said = "\n".join(run.said(ready.node))
    assert f'error: containerd is not healthy: the status of its plugin {IMAGES} is "error"' in said, run.stderr
    assert "invalid image pull progress timeout" in said
    assert "the previous set is back, and containerd runs it" in said
    assert_untouched(ready, before, running)


def test_a_failed_start_on_a_bare_node_leaves_a_bare_node(
    operator: Operator, releases: Releases, fresh_node: BootNode
) -> None:
    node = fresh_node()
    before = contents(node)
    run = operator.deploy(node, containerd_version=releases.broken)
    assert run.code == 1
    assert "the previous set is back (containerd was not running before)" in run.said(node), run.stderr
    after = contents(node)
    own = {path for path in after if path.startswith("var/lib/userns-node")}
    assert {path: about for path, about in after.items() if path not in own} == before
    assert leftovers(node) == []
    assert "var/lib/userns-node/manifest" not in own
    assert node.ssh("systemctl is-enabled containerd; systemctl --failed --no-legend", check=False).stdout.split() in (
        [],
        ["not-found"],
    )
    must(operator.deploy(node))


def test_the_way_back_needs_no_space_where_the_programs_have_a_file_system_of_their_own(
    operator: Operator, releases: Releases, fresh_node: BootNode
) -> None:
    node = fresh_node()
    node.ssh("mount -t tmpfs -o size=250m tmpfs /usr/local && mkdir /usr/local/bin /usr/local/sbin")
    must(operator.deploy(node, allow=["no-space"]))
    before, running = node.ssh("find /usr/local -type f | xargs sha256sum").stdout, program(node)
    fill = "[Service]\nExecStartPre=-/bin/sh -c 'cat /dev/zero >/usr/local/fill'\n"
    (node.root / "etc/systemd/system/containerd.service.d/fill.conf").write_text(fill)
    versions = {"containerd_version": releases.broken, "runc_version": releases.newer_runc}
    run = operator.deploy(node, allow=["no-space"], **versions)
    assert "the previous set is back, and containerd runs it" in run.said(node), run.stderr
    assert node.ssh("rm /usr/local/fill; find /usr/local -type f | xargs sha256sum").stdout == before
    assert program(node) == running
    assert leftovers(node) == []
    assert node.ssh("find /usr/local -name '.*'").stdout == ""


def test_packages_go_back_too(
    lab: Lab, mirror_with_stable: Mirror, releases: Releases, fresh_node: BootNode, tmp_path: Path
) -> None:
    node, served = fresh_node(), lab.serve(mirror_with_stable)
    (node.root / "etc/apt/sources.list").write_text(f"deb [trusted=yes] {served.url}/debian ./\n")
    operator = Operator(lab, tmp_path, artifact_lock=str(mirror_with_stable.lock), install_from="package")
    containerd, runc = (mirror_with_stable.versions(name)[1] for name in ("containerd", "runc"))
    must(operator.deploy(node, kubernetes_version="1.26", containerd_version=containerd, runc_version=runc))
    packages = "dpkg-query -W containerd runc; apt-mark showhold; dpkg --verify containerd runc | grep -v config.toml"
    before, running, installed = contents(node), program(node), node.ssh(packages, check=False).stdout
    newer = {"containerd_version": releases.containerd, "runc_version": releases.runc}
    run = operator.deploy(node, containerd_config={"oom_score": "high"}, **newer)
    assert "error: the new config.toml is refused by /usr/bin/containerd itself" in run.said(node), run.stderr
    assert "the previous set is back, and containerd runs it" in run.said(node)
    assert node.ssh(packages, check=False).stdout == installed
    assert contents(node) == before
    assert program(node) == running


def test_containers_run_on_while_their_runtime_is_upgraded(ready: Ready, releases: Releases) -> None:
    newer = {"containerd_version": releases.newer, "runc_version": releases.newer_runc}
    must(ready.operator.deploy(ready.node, **newer))
    assert program(ready.node) == releases.program("containerd", releases.newer)
    assert ready.counter.stopped_counting() == ""
    assert must(ready.operator.deploy(ready.node, **newer)).done(ready.node) == []
    saved = ready.node.ssh("cd /var/lib/userns-node/previous && sha256sum [0-9]*").stdout
    assert releases.program("containerd", releases.containerd) in saved
    must(ready.operator.deploy(ready.node))
    assert program(ready.node) == releases.program("containerd", releases.containerd)
    assert ready.counter.stopped_counting() == ""
    # And containerd, after two restarts and two shims, still knows it.
    assert "counter" in ready.node.ssh("ctr tasks ls").stdout


def test_keys_that_containerd_does_not_know_are_warned_of(ready: Ready) -> None:
    run = must(ready.operator.deploy(ready.node, containerd_config={"plugins": {RUNTIME: {"no_such_key": 1}}}))
    warnings = [
        line for line in run.said(ready.node) if line.startswith("warning: config-unknown-key: containerd says: ")
    ]
    assert len(warnings) == 1, run.stderr
    assert "no_such_key" in warnings[0]
    must(ready.operator.deploy(ready.node))


@pytest.mark.parametrize("same", [True, False], ids=["the same settings", "other settings"])
def test_of_two_controllers_one_wins_and_the_other_plans_again(
    lab: Lab, ready: Ready, releases: Releases, same: bool
) -> None:
    ones = {"containerd_version": releases.newer}
    others = ones if same else {"runc_version": releases.newer_runc}
    with held(ready.node, "systemctl", "restart containerd") as one_holds:
        one = Deploying(lab, ready.operator, ready.node, ones)
        wait_for(one_holds)
        other = Deploying(lab, ready.operator, ready.node, others)
        wait_for(lambda: len(ready.node.ssh(f"{UNITS} --state=active").stdout.splitlines()) == 2)
    must(one.end())
    refused = other.end()
    assert refused.code == 1
    assert STALE in refused.said(ready.node), refused.stderr
    assert program(ready.node) == releases.program("containerd", releases.newer)
    assert leftovers(ready.node) == []
    assert (must(ready.operator.deploy(ready.node, **others)).done(ready.node) == []) is same
    must(ready.operator.deploy(ready.node))


# --- the node can't get what it needs --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def hanging(lab: Lab, operator: Operator, releases: Releases) -> Iterator[tuple[LabNode, dict[str, str], Deploying]]:
    """A deploy that waits for a mirror which has stopped in the middle of a file: half a minute, so begun early."""
    node = lab.node("hanging")
    (node.root / "root/.curlrc").write_text("retry-max-time = 1\n")
    served = lab.serve(releases.mirror)
    served.misbehave(releases.mirror.asset("containerd", releases.containerd).path, "hang")
    yield node, contents(node), Deploying(lab, operator, node, {"release_url": served.url})
    node.stop()


@pytest.fixture(scope="module", autouse=True)
def _begin_early(hanging: object) -> None:
    """The other tests run while it hangs."""


def refused(run: Run, node: LabNode) -> str:
    assert run.code == 1, run.text
    assert run.failed == [node.name]
    return "\n".join(run.said(node))


def test_a_mirror_that_is_down_fails_its_host(operator: Operator, fresh_node: BootNode) -> None:
    node = fresh_node()
    before = contents(node)
    assert "could not download" in refused(operator.deploy(node, release_url=f"http://{CONTROLLER}:9"), node)
    assert contents(node) == before


@pytest.mark.parametrize("directory", ["/var/lib/userns-node", "/usr/local"])
def test_a_full_disk_fails_its_host(operator: Operator, fresh_node: BootNode, directory: str) -> None:
    node = fresh_node()
    node.ssh(f"mkdir -p {directory} && mount -t tmpfs -o size=1m,mode=700 tmpfs {directory}")
    before = contents(node)
    said = refused(operator.deploy(node), node)
    assert "no-space" in said
    # It may also fill up after the plan was made.
    said = refused(operator.deploy(node, allow=["no-space"]), node)
    assert "No space left on device" in said or "could not download" in said
    assert contents(node) == before or directory == "/usr/local"
    assert leftovers(node) == []
    assert node.ssh("find /usr/local /etc/containerd -type f", check=False).stdout == ""
    assert node.ssh("ls /var/lib/userns-node/staged", check=False).stdout == ""


def test_a_stage_that_cannot_be_filled_is_not_left(ready: Ready) -> None:
    broken = ready.node.root / "usr/local/sbin/base64"
    broken.write_text("#!/bin/sh\nexit 1\n")
    broken.chmod(0o755)
    before, running = contents(ready.node), program(ready.node)
    try:
        refused(ready.operator.deploy(ready.node, sandbox_image="lab.invalid/pause:1"), ready.node)
        assert_untouched(ready, before, running)
    finally:
        broken.unlink()


def test_a_mirror_that_hangs_fails_its_host_in_bounded_time(hanging: tuple[LabNode, dict[str, str], Deploying]) -> None:
    node, before, deploying = hanging
    assert "could not download" in refused(deploying.end(60), node)
    assert contents(node) == before
    settle(node)


def test_nothing_of_all_this_was_left_on_the_node(ready: Ready) -> None:
    settle(ready.node)
    assert leftovers(ready.node) == []
    assert ready.node.ssh("ls /run/userns-node-activate* 2>/dev/null", check=False).stdout == ""
    assert must(ready.operator.deploy(ready.node)).done(ready.node) == []
    assert ready.counter.stopped_counting() == ""
