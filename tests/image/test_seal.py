"""A running machine whose disk is to be copied loses what must not be cloned, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab import Lab
from tests.node.runs import Operator

# What must be gone, and how it is put there where a node of the lab has none of it.
GONE = {
    "/root/.bash_history": "echo secret >/root/.bash_history",
    "/var/log/some.log": "echo secret >/var/log/some.log",
    "/var/lib/dhcp/dhclient.leases": "mkdir -p /var/lib/dhcp && echo secret >/var/lib/dhcp/dhclient.leases",
    "/var/lib/kubelet/pki/key": "mkdir -p /var/lib/kubelet/pki && echo secret >/var/lib/kubelet/pki/key",
    "/tmp/file": "echo secret >/tmp/file",
    **{
        f"/var/lib/userns-node/{kept}/0": f"mkdir -p /var/lib/userns-node/{kept} && : >/var/lib/userns-node/{kept}/0"
        for kept in ("previous", "previous.2")
    },
    "/var/lib/systemd/random-seed": "echo secret >/var/lib/systemd/random-seed",
}
KEPT = "/root/.ssh/authorized_keys /etc/hostname /etc/passwd"


def test_a_sealed_machine_has_nothing_of_its_own(lab: Lab, tmp_path: Path) -> None:
    node = lab.node("template")
    try:
        node.ssh("; ".join(GONE.values()))
        before = node.ssh(f"cat {KEPT}").stdout
        operator = Operator(lab, tmp_path)
        run = operator.pyinfra(operator.inventory({"nodes": {node: {}}}), "tasks.image.seal", "--json", "-y")
        assert run.code == 0, run.text
        assert "warning: this machine has no cloud-init" in run.text
        # Not over SSH: its sshd has no key any more for a new connection.
        for path in GONE:
            left = node.root / path.lstrip("/")
            assert not left.exists() or (left.read_text() == "" and "userns-node" not in path), path
        assert (node.root / "etc/machine-id").read_text() == ""
        assert [*(node.root / "etc/ssh").glob("ssh_host_*"), *(node.root / "var/log/journal").glob("*")] == []
        assert "".join((node.root / path.lstrip("/")).read_text() for path in KEPT.split()) == before
    finally:
        node.stop()


@pytest.mark.parametrize("unit", ["kubelet.service"])
def test_a_node_of_a_cluster_is_not_sealed(lab: Lab, tmp_path: Path, unit: str) -> None:
    node = lab.node("member")
    try:
        node.put(f"/run/systemd/system/{unit}", b"[Service]\nExecStart=/bin/sleep 600\n")
        identity = node.ssh(f"systemctl start {unit} && cat /etc/machine-id").stdout
        operator = Operator(lab, tmp_path)
        run = operator.pyinfra(operator.inventory({"nodes": {node: {}}}), "tasks.image.seal", "--json", "-y")
        assert run.code == 1
        assert "the kubelet runs" in run.text
        assert node.ssh("cat /etc/machine-id && ls /etc/ssh/ssh_host_ed25519_key").stdout.startswith(identity)
    finally:
        node.stop()
