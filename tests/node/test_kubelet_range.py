"""The kubelet's range of user ids, asked for as the kubelet asks: getsubids, and one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lab import Lab
from lab.mirror import Mirror
from lab.serving import Served
from tests.node.conftest import BootNode
from tests.node.faults import Deploying, held, wait_for
from tests.node.runs import Operator, must
from userns import paths

PLAYED = "systemd-run --quiet --unit=kubelet sleep infinity"
START, COUNT = 65536 * 1024, 65536 * 110


def test_the_kubelet_gets_one_range_and_other_users_keep_theirs(
    lab: Lab, mirror: Mirror, releases: Served, fresh_node: BootNode, tmp_path: Path
) -> None:
    node = fresh_node()
    # useradd gives an ordinary user a range by itself, as it would give the kubelet one that stops it from starting.
    node.ssh("useradd --create-home builder && grep -q builder /etc/subuid")
    others = node.ssh("cat /etc/subuid").stdout
    operator = Operator(
        lab,
        tmp_path,
        release_url=releases.url,
        artifact_lock=str(mirror.lock),
        kubelet_id_range=(START, COUNT),
    )
    first = must(operator.deploy(node))
    assert any("system user kubelet" in line for line in first.will(node))
    expected = f"0: kubelet {START} {COUNT}\n"
    assert node.ssh("getsubids kubelet").stdout == expected
    assert node.ssh("getsubids -g kubelet").stdout == expected
    assert node.ssh("cat /etc/subuid").stdout.startswith(others)
    assert node.ssh("getent passwd kubelet | cut -d: -f7").stdout.strip() == "/usr/sbin/nologin"
    assert must(operator.deploy(node)).done(node) == []

    node.ssh("echo kubelet:100000:65536 >>/etc/subuid")
    repaired = must(operator.deploy(node))
    assert [line.split(":")[0] for line in repaired.will(node)] == ["write /etc/subuid"]
    assert node.ssh("getsubids kubelet").stdout == expected

    # Somebody adds a user after the node was read: the planned text does not have that line.
    node.ssh("echo kubelet:100000:65536 >>/etc/subuid")
    with held(node, "systemd-run", "userns-node: change") as waits:
        deploying = Deploying(lab, operator, node, {})
        wait_for(waits, 300)
        node.ssh("echo late:500000:65536 >>/etc/subuid")
    late = deploying.end(300)
    assert late.code == 1
    assert "/etc/subuid has changed since the plan was made; nothing was changed, run again" in late.text
    must(operator.deploy(node))
    assert node.ssh("getsubids kubelet").stdout == expected
    assert "late:500000:65536\n" in node.ssh("cat /etc/subuid").stdout

    # A kubelet that runs keeps the range that it started with, until somebody restarts it.
    moved: dict[str, Any] = {"kubelet_id_range": (START * 2, COUNT)}
    needed = "warning kubelet-restart-needed: "
    node.ssh(PLAYED)
    changed = must(operator.deploy(node, **moved))
    assert any(line.startswith(f"{needed}the kubelet runs") for line in changed.said(node)), changed.text
    assert f"--> Restart the kubelet (systemctl restart kubelet) of {node.name}" in changed.text
    assert "kubectl label" not in changed.text
    still = must(operator.deploy(node, **moved))
    assert still.done(node) == []
    assert any(line.startswith(f"{needed}the kubelet that runs was started before") for line in still.said(node))
    node.ssh(f"systemctl stop kubelet && {PLAYED}")
    assert needed not in must(operator.deploy(node, **moved)).text


def pod_file(start: int) -> str:
    """The record that a kubelet makes of a pod with a user namespace."""
    ids = [{"hostId": start, "containerId": 0, "length": 65536}]
    return json.dumps({"uidMappings": ids, "gidMappings": ids})


def test_what_stands_in_the_way_of_the_range_is_named_and_then_a_bad_one_is_replaced(
    lab: Lab, mirror: Mirror, releases: Served, fresh_node: BootNode, tmp_path: Path
) -> None:
    node = fresh_node()
    operator = Operator(lab, tmp_path, release_url=releases.url, artifact_lock=str(mirror.lock))
    pod = "/var/lib/kubelet/pods/0f6e"
    # useradd gives an ordinary user a range by itself; this one has another under its number.
    node.ssh("useradd kubelet && echo $(id -u kubelet):65536:65536 >>/etc/subuid")
    before = node.ssh("cat /etc/subuid /etc/subgid").stdout
    node.ssh(f"""
        mkdir -p {pod}/volumes/ram {pod}/volumes/tmp && printf %s '{pod_file(65536 * 3)}' >{pod}/userns
        mount -t ramfs none {pod}/volumes/ram && mount -t tmpfs none {pod}/volumes/tmp
        useradd --uid {START} big && echo builder:{START + 65536}:65536 >>/etc/subgid
        mv /usr/bin/getsubids /usr/bin/was""")

    refused = operator.deploy(node, kubelet_id_range=(START, COUNT))
    assert refused.code == 1
    said = "\n".join(refused.said(node))
    assert "blocker getsubids-missing: " in said
    assert "Install the package uidmap" in said
    assert "blocker kubelet-id-range-overlaps: " in said
    assert f"user big ({START})" in said
    assert "to builder" in said
    assert "blocker kubelet-id-range-in-use: " in said
    assert "1 pod (0f6e)" in said
    assert f"{pod}/volumes/ram (ramfs: never)" in said
    assert "volumes/tmp" not in said
    assert node.ssh("ls /etc/containerd /var/lib/userns-node", check=False).stdout == ""

    node.ssh(f"mv /usr/bin/was /usr/bin/getsubids && userdel big && sed -i /builder/d /etc/subgid && rm {pod}/userns")
    assert node.ssh("cat /etc/subuid /etc/subgid").stdout == before
    invalid = "\n".join(operator.dry(node).said(node))
    assert "blocker kubelet-id-range-invalid: " in invalid
    assert "its range of UIDs (kubelet 100000 65536; kubelet 65536 65536) is not that of GIDs" in invalid

    must(operator.deploy(node, kubelet_id_range=(START, COUNT)))
    expected = f"0: kubelet {START} {COUNT}\n"
    assert node.ssh("getsubids kubelet").stdout == expected
    assert node.ssh("getsubids -g kubelet").stdout == expected

    # What the kubelet has given out now stays inside the range that it will have.
    node.ssh(f"printf %s '{pod_file(START + 65536)}' >{pod}/userns")
    assert must(operator.deploy(node, kubelet_id_range=(START, COUNT))).done(node) == []
    moved = operator.dry(node, kubelet_id_range=(START * 2, COUNT))
    assert any(line.startswith("blocker kubelet-id-range-in-use: ") for line in moved.said(node)), moved.text
    grown = operator.dry(node, kubelet_id_range=(START, COUNT * 2))
    changes = {"write /etc/subuid", "write /etc/subgid", f"write {paths.CHECK}"}
    assert {line.split(":")[0] for line in grown.will(node)} == changes

    # A kubelet that is another than the one which the settings are for.
    node.ssh("""
        mkdir -p /srv/kubelet /etc/kubelet.d && echo 'maxPods: 50' >/etc/kubelet.d/10-small.conf
        printf '#!/bin/sh\\nsleep infinity\\n' >/opt/kubelet && chmod 755 /opt/kubelet
        systemd-run --quiet --unit=played /opt/kubelet --root-dir=/srv/kubelet --config-dir /etc/kubelet.d \
            --container-runtime-endpoint=unix:///run/crio/crio.sock""")
    other = operator.dry(node, kubelet_id_range=(START, COUNT))
    assert other.code == 1
    said = "\n".join(other.said(node))
    assert "blocker kubelet-root-differs: the kubelet that runs here has its root in /srv/kubelet" in said
    assert "blocker kubelet-uses-another-runtime: the kubelet that runs here uses unix:///run/crio/crio.sock" in said
    assert "warning kubelet-config-differs: the kubelet's configuration has maxPods 50" in said
    moves = ["kubelet-uses-another-runtime"]
    same = operator.dry(node, kubelet_id_range=(START, COUNT), kubelet_root="/srv/kubelet", max_pods=50, allow=moves)
    assert same.code == 0, same.text
    assert "kubelet-root-differs" not in same.text
    assert "kubelet-config-differs" not in same.text
