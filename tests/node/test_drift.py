"""Drift on a real node: whatever somebody changed is repaired, nothing else is touched, and containers run on."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from lab import Lab, LabNode
from lab.mirror import Mirror
from lab.serving import Served
from tests.node.runs import Operator, differences, leftovers, must, start_counter, tree

CONFIG = "/etc/containerd/config.toml"
UNIT = "/etc/systemd/system/containerd.service"
DROP_IN = "/etc/systemd/system/containerd.service.d/50-userns-node.conf"
MODPROBE = "/etc/modprobe.d/overlay-metacopy.conf"
SYSCTL = "/etc/sysctl.d/90-userns-node.conf"
HOOK = "/usr/local/libexec/userns-node/pre-start"
CHECK = "/usr/local/libexec/userns-node/check"
CHECK_UNIT = "/etc/systemd/system/userns-node-check.service"
CONTAINERD = ["/usr/local/bin/containerd", "/usr/local/bin/containerd-shim-runc-v2", "/usr/local/bin/ctr"]
RUNC, CRUN = "/usr/local/sbin/runc", "/usr/local/bin/crun"
MANIFEST = "/var/lib/userns-node/manifest"

# More pods than any machine's kernel allows user namespaces for by itself, so that the sysctl file is needed.
MAX_PODS = 60000

LIVE = Path("/proc/sys/user/max_user_namespaces")
LIVE_BEFORE = LIVE.read_text()
NODES = 4

# Changes at every restart and with every container; the record of a change and what it replaced.
OWN = ("var/lib/containerd/", "var/lib/userns-node/")


@dataclass(frozen=True)
class Drift:
    """What somebody did on the node, how the plan has to put it right, and which files that touches."""

    name: str
    done: str
    will: list[str]
    touches: list[str] = field(default_factory=list)
    restarts: bool = False


def rewrite(path: str, why: str, restarts: bool = False) -> list[str]:
    """The changes that write a managed file again."""
    return [f"write {path}: {why} (", *([f"restart containerd.service: new {path}"] if restarts else [])]


DRIFTS = [
    Drift(
        "config edited",
        f"sed -i 's/slow_chown = .*/slow_chown = true/' {CONFIG}",
        rewrite(CONFIG, "its text differs", restarts=True),
        [CONFIG],
        restarts=True,
    ),
    Drift("config's mode", f"chmod 666 {CONFIG}", rewrite(CONFIG, "its mode is 666, expected 644"), [CONFIG]),
    Drift(
        "config's owner",
        f"chown 1000:1000 {CONFIG}",
        rewrite(CONFIG, "its owner is 1000:1000, expected 0:0"),
        [CONFIG],
    ),
    Drift("config removed", f"rm {CONFIG}", rewrite(CONFIG, "new", restarts=True), [CONFIG], restarts=True),
    Drift(
        "config a symlink",
        f"mv {CONFIG} /root/mine.toml && ln -s /root/mine.toml {CONFIG}",
        rewrite(CONFIG, "it is a link, not a file", restarts=True),
        [CONFIG, "/root/mine.toml"],
        restarts=True,
    ),
    Drift(
        "unit edited",
        f"sed -i s/RestartSec=5/RestartSec=50/ {UNIT} && systemctl daemon-reload",
        rewrite(UNIT, "its text differs", restarts=True),
        [UNIT],
        restarts=True,
    ),
    Drift(
        "drop-in removed",
        f"rm {DROP_IN} && systemctl daemon-reload",
        rewrite(DROP_IN, "new"),
        [DROP_IN],
    ),
    Drift("modprobe option off", f"sed -i s/=Y/=N/ {MODPROBE}", rewrite(MODPROBE, "its text differs"), [MODPROBE]),
    Drift("hook's mode", f"chmod 644 {HOOK}", rewrite(HOOK, "its mode is 644, expected 755"), [HOOK]),
    Drift(
        "sysctl lowered",
        f"echo user.max_user_namespaces=0 > {SYSCTL}",
        rewrite(SYSCTL, "its text differs"),
        [SYSCTL],
    ),
    Drift(
        "runc another program",
        f"printf '#!/bin/sh\\necho runc version 0.0.1\\n' > {RUNC}.new && chmod 755 {RUNC}.new && mv {RUNC}.new {RUNC}",
        [
            f"install runc VERSION: {RUNC} is not as recorded, in content, mode or owner (it calls itself 0.0.1)",
            "restart containerd.service: new runc",
        ],
        [RUNC],
        restarts=True,
    ),
    Drift(
        "ctr removed",
        f"rm {CONTAINERD[2]}",
        [f"install containerd VERSION: {CONTAINERD[2]} is missing", "restart containerd.service: new containerd"],
        [*CONTAINERD],
        restarts=True,
    ),
    Drift(
        "unit disabled",
        "systemctl disable containerd 2>/dev/null",
        ["enable containerd.service: it is disabled"],
    ),
    Drift(
        "check edited and disabled",
        f"sed -i '$d' {CHECK} && systemctl disable userns-node-check 2>/dev/null",
        [*rewrite(CHECK, "its text differs"), "enable userns-node-check.service: it is disabled"],
        [CHECK],
    ),
    Drift(
        "containerd stopped",
        "systemctl stop containerd",
        ["restart containerd.service: it is inactive"],
        restarts=True,
    ),
    Drift(
        "containerd down with a broken config",
        f"echo '[[[' > {CONFIG}; systemctl restart containerd; :",
        [f"write {CONFIG}: its text differs (", "restart containerd.service: it is "],
        [CONFIG],
        restarts=True,
    ),
    Drift(
        "runc may be written by anybody",
        f"chmod 777 {RUNC}",
        [
            f"install runc VERSION: {RUNC} is not as recorded, in content, mode or owner",
            "restart containerd.service: new runc",
        ],
        [RUNC],
        restarts=True,
    ),
    Drift(
        "ctr can't be executed",
        f"chmod 644 {CONTAINERD[2]}",
        [
            f"install containerd VERSION: {CONTAINERD[2]} is not as recorded, in content, mode or owner",
            "restart containerd.service: new containerd",
        ],
        list(CONTAINERD),
        restarts=True,
    ),
    Drift(
        "record removed",
        f"rm {MANIFEST}",
        [
            f"install containerd VERSION: {CONTAINERD[0]} is not as recorded, in content, mode or owner (it calls",
            f"install runc VERSION: {RUNC} is not as recorded, in content, mode or owner (it calls",
            f"install crun VERSION: {CRUN} is not as recorded, in content, mode or owner (it calls",
            "restart containerd.service: new containerd, runc, crun",
        ],
        [*CONTAINERD, RUNC, CRUN],
        restarts=True,
    ),
]


@dataclass(frozen=True)
class Repair:
    """What one deploy did about one drift, and what the next deploy then did."""

    drifted: bool
    failed: bool
    said: str
    will: list[str]
    is_as_before: bool
    touched: list[str]
    restarted: bool
    leftovers: list[str]
    again: list[str]
    said_again: list[str]
    container_lost: str


@dataclass(frozen=True)
class Look:
    """A node at one moment: its managed files and unit in its own words, containerd's process, every file's stat."""

    state: str
    pid: str
    files: dict[str, str]


def look(node: LabNode) -> Look:
    """Look at a node, by other means than the deploy's."""
    files = " ".join([CONFIG, UNIT, DROP_IN, MODPROBE, SYSCTL, HOOK, CHECK, CHECK_UNIT, *CONTAINERD, RUNC, CRUN])
    # Without the times at which the unit's commands were run.
    unit = "systemctl show --property UnitFileState,ActiveState,ExecStartPre,RestartUSec,NeedDaemonReload containerd"
    enabled = "systemctl is-enabled userns-node-check"
    pid = "systemctl show --property MainPID --value containerd"
    state = f"sha256sum {files}; stat -c '%n %F %a %u:%g' {files}; {unit} | sed 's/ ; .*//'; {enabled}; {pid}"
    lines = node.ssh(state, check=False).stdout.splitlines()
    return Look("\n".join(lines[:-1]), lines[-1], tree(node))


def shortened(change: str, versions: dict[str, str]) -> str:
    """A change in words without its versions and digests."""
    for component, version in versions.items():
        change = change.replace(f"install {component} {version} (sha256 ", f"install {component} VERSION (sha256 ")
        change = change.replace(f"calls itself {version})", "calls itself VERSION)")
    head, found, rest = change.partition(" (sha256 ")
    return head + rest.partition(")")[2] if found else change


@pytest.fixture(scope="module")
def repairs(
    lab: Lab, mirror: Mirror, _releases: Served, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Repair]]:
    """Every drift by itself on a node that needs nothing else, with a container that was started before all of them.

    A node takes several drifts, one after the other: each of them is repaired before the next.
    """
    versions = {name: mirror.versions(name)[0] for name in ("containerd", "runc", "crun")}
    operator = Operator(
        lab,
        tmp_path_factory.mktemp("drift"),
        release_url=_releases.url,
        artifact_lock=str(mirror.lock),
        crun_version=versions["crun"],
        max_pods=MAX_PODS,
    )
    # What a thread of the pool started ends with that thread: the nodes live as long as the pool.
    with ThreadPoolExecutor(NODES) as pool:
        nodes = list(pool.map(lab.node, [f"drifting{number}" for number in range(NODES)]))
        must(operator.deploy(*nodes))
        counters = dict(zip(nodes, pool.map(start_counter, nodes), strict=True))
        found: dict[str, Repair] = {}
        for start in range(0, len(DRIFTS), NODES):
            pairs = list(zip(nodes, DRIFTS[start : start + NODES], strict=False))
            some = [node for node, _ in pairs]
            before = list(pool.map(look, some))
            drifted = list(pool.map(lambda pair: pair[0].ssh(pair[1].done) and look(pair[0]), pairs))
            repair = operator.deploy(*some)
            after = list(pool.map(look, some))
            left = list(pool.map(leftovers, some))
            again = operator.deploy(*some)
            lost = list(pool.map(lambda node: counters[node].stopped_counting() + counters[node].unknown(), some))
            for number, (node, drift) in enumerate(pairs):
                touched = differences(before[number].files, after[number].files)
                found[drift.name] = Repair(
                    drifted=before[number] != drifted[number],
                    failed=node.name in repair.failed + again.failed,
                    said="\n".join(repair.said(node)),
                    will=[shortened(change, versions) for change in repair.will(node)],
                    is_as_before=after[number].state == before[number].state,
                    touched=[path for path in touched if not path.startswith(OWN)],
                    restarted=after[number].pid != before[number].pid,
                    leftovers=left[number],
                    again=again.done(node),
                    said_again=again.said(node),
                    container_lost=lost[number],
                )
        yield found
        list(pool.map(LabNode.stop, nodes))


@pytest.mark.parametrize("drift", DRIFTS, ids=lambda drift: drift.name.replace(" ", "-"))
def test_one_drift_is_repaired_and_nothing_else_is_touched(repairs: dict[str, Repair], drift: Drift) -> None:
    repair = repairs[drift.name]
    assert repair.drifted
    assert not repair.failed, repair.said
    assert len(repair.will) == len(drift.will), repair.will
    for told, start in zip(repair.will, drift.will, strict=True):
        assert told.startswith(start)
    assert repair.is_as_before
    assert repair.touched == sorted(path.lstrip("/") for path in drift.touches)
    assert repair.restarted == drift.restarts
    assert repair.leftovers == []


@pytest.mark.parametrize("drift", DRIFTS, ids=lambda drift: drift.name.replace(" ", "-"))
def test_after_a_repair_there_is_nothing_to_do_and_containers_run_on(repairs: dict[str, Repair], drift: Drift) -> None:
    repair = repairs[drift.name]
    assert repair.again == []
    assert repair.said_again.count("nothing to do") == 1
    assert repair.container_lost == ""


def test_no_repair_writes_a_value_of_the_shared_kernel(repairs: dict[str, Repair]) -> None:
    assert not any("set user.max_user_namespaces" in repair.said for repair in repairs.values())
    assert any("write /etc/sysctl.d/90-userns-node.conf" in repair.said for repair in repairs.values())
    assert LIVE.read_text() == LIVE_BEFORE
