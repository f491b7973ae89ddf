"""A running machine whose disk is to be copied loses what must not be cloned, and nothing else."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import Lab, LabNode, cgroups
from tasks import image
from tasks.files import script
from tests.node.runs import Operator

# What must be gone, and how it is put there where a node of the lab has none of it.
GONE = {
    "/root/.bash_history": "echo secret >/root/.bash_history",
    "/var/log/some.log": "echo secret >/var/log/some.log",
    **{
        path: f"mkdir -p {os.path.dirname(path)} && echo secret >{path}"
        for path in (
            *("/var/lib/dhcp/dhclient.leases", "/var/lib/NetworkManager/secret_key"),
            *("/var/lib/dhcpcd/duid", "/var/lib/dhcpcd/secret", "/var/lib/dhcpcd/eth0.lease", "/etc/dhcpcd.duid"),
            *("/var/lib/dhcpcd/eth0-lab.lease6", "/var/lib/dhcpcd5/dhcpcd-eth0.lease", "/var/lib/wicked/duid.xml"),
            *("/efi/loader/random-seed", "/boot/efi/loader/random-seed"),
            *("/var/lib/kubelet/pki/key", "/tmp/directory/file", "/tmp/.hidden", "/var/tmp/a-unix"),
        )
    },
    **{
        f"/var/lib/userns-node/{kept}/0": f"mkdir -p /var/lib/userns-node/{kept} && : >/var/lib/userns-node/{kept}/0"
        for kept in ("previous", "previous.2")
    },
    "/var/lib/systemd/random-seed": "echo secret >/var/lib/systemd/random-seed",
}
KEPT = "/root/.ssh/authorized_keys /root/.ssh/known_hosts /etc/hostname /etc/passwd /srv/logs/log"
# Where the script is on the nodes of the tests below, which run it without pyinfra.
SEAL = "/usr/local/lib/seal.sh"
CTR = "/usr/local/bin/ctr"
# As systemd's own, which containers do not run: it saves a seed when it is stopped, which is when a machine goes off.
SEED = b"""[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/true
ExecStop=/bin/sh -c 'echo secret >/var/lib/systemd/random-seed'
"""


def put_seal(node: LabNode) -> None:
    node.put(SEAL, "".join(script(name) for name in (*image.SEALING, "seal.sh")).encode())


def switch_off(node: LabNode) -> None:
    """As its power button does: not every sshd lets somebody in who could say it."""
    os.kill(node.leader, signal.SIGRTMIN + 4)
    end = time.monotonic() + node.patience
    while cgroups.processes(node.cgroup):
        assert time.monotonic() < end, "it is still on"
        time.sleep(0.05)


def rotate_journal(node: LabNode) -> None:
    """What journald does by itself once it sees that its files are gone."""
    (journald,) = (
        pid for pid in cgroups.processes(node.cgroup) if Path(f"/proc/{pid}/comm").read_text() == "systemd-journal\n"
    )
    os.kill(journald, signal.SIGUSR2)
    time.sleep(1)  # whether it makes one is seen when it is over


def test_a_sealed_machine_has_nothing_of_its_own(lab: Lab, tmp_path: Path) -> None:
    node = lab.node("template")
    try:
        node.put("/run/systemd/system/systemd-random-seed.service", SEED)
        node.put("/run/systemd/system/kubelet.service", b"[Service]\nExecStart=/bin/false\n")
        node.ssh(f"""
            set -e
            systemctl daemon-reload
            systemctl start systemd-random-seed.service kubelet.service
            systemctl is-active systemd-random-seed.service
            until systemctl is-failed --quiet kubelet.service; do sleep 0.1; done
            mkdir -p /srv/logs '/var/log/an [app]' && echo kept >/srv/logs/log
            mount --bind /srv/logs '/var/log/an [app]'
            echo kept >/root/.ssh/known_hosts
            {"; ".join(GONE.values())}""")
        before = node.ssh(f"cat {KEPT}").stdout
        operator = Operator(lab, tmp_path)
        run = operator.pyinfra(operator.inventory({"nodes": {node: {}}}), "tasks.image.seal", "--json", "-y")
        assert run.code == 0, run.text
        assert "warning: this machine has no cloud-init" in run.text
        assert r"warning: /var/log/an\040[app] is mounted" in run.text
        rotate_journal(node)
        switch_off(node)
        for path in GONE:
            left = node.root / path.lstrip("/")
            assert not left.exists() or (left.read_text() == "" and path.startswith("/var/log/")), path
        assert (node.root / "etc/machine-id").read_text() == ""
        assert [*(node.root / "etc/ssh").glob("ssh_host_*"), *(node.root / "var/log/journal").glob("*")] == []
        assert "".join((node.root / path.lstrip("/")).read_text() for path in KEPT.split()) == before
    finally:
        node.stop()


def test_what_can_not_be_taken_away_is_told_and_the_rest_is_gone(lab: Lab) -> None:
    node = lab.node("stubborn")
    try:
        put_seal(node)
        node.put("/usr/local/bin/cloud-init", b"#!/bin/sh\necho no network; [ -e /run/willing ]\n", 0o755)
        # Nobody can write to a program that runs, nor remove a mount point.
        said = node.ssh(f"""
            echo secret >/root/.bash_history; mount --bind /root/.bash_history /root/.bash_history
            mkdir -p /var/lib/dhcp /var/log/many; echo secret >/var/lib/dhcp/dhclient.leases
            for number in $(seq 50); do echo secret >/var/log/many/$number; done
            cp /bin/sleep /var/log/many/auth.log; cp /bin/sleep /var/log/many/daemon.log
            /var/log/many/auth.log 600 & first=$!
            /var/log/many/daemon.log 600 & second=$!
            sh {SEAL} 2>&1; echo "code $?"
            find /var/log/many -type f -size +0 | sort; cat /etc/machine-id /var/lib/dhcp/*; ls /etc/ssh/*ed25519_key
            kill $first $second; wait; umount /root/.bash_history; true >/run/willing
            echo ---; sh {SEAL} 2>&1; echo "code $?"
            echo ---; bash {SEAL} 2>&1; echo "code $?" """).stdout
        first, *more = said.split("---\n")
        told, _, left = first.partition("code 1\n")
        for each in ("/var/log/many/auth.log", "/var/log/many/daemon.log", "/root/.bash_history", "no network"):
            assert each in told
        assert told.splitlines()[-1].startswith("not sealed: ")
        # Who has to see to it can still log in.
        stay = ["/var/log/many/auth.log", "/var/log/many/daemon.log", "/etc/ssh/ssh_host_ed25519_key"]
        assert left.splitlines() == stay
        assert more == ["sealed: switch this machine off now, and copy its disk\ncode 0\n"] * 2
        assert not (node.root / "root/.bash_history").exists()
        assert (node.root / "var/log/many/auth.log").read_bytes() == b""
        assert [*(node.root / "etc/ssh").glob("ssh_host_*")] == []
    finally:
        node.stop()


def process(name: str) -> str:
    """The command that starts a process of this name."""
    return f"cp /bin/sleep /srv/{name}; systemd-run --quiet --unit=called --property=Type=exec /srv/{name} 600"


def mounted(place: str) -> tuple[str, str]:
    """The commands that mount a layer there, and that remove it again."""
    return f"mkdir -p {place}; mount --bind /srv/layer {place}", f"umount {place}; rmdir {place}"


def answering(text: str) -> tuple[str, str]:
    """The commands that make `ctr` answer in this way, and make it know of nothing again."""
    return f"echo '{text}' >{CTR}", f"true >{CTR}"


UNIT = "/run/systemd/system/kubelet.service"
LINKED = '"/srv/a kubelet/pki/x"'
END = "systemctl stop called"
# What is there, how it ends, and what is said of it.
REFUSED = {
    "a kubelet in a restart loop": (
        f"printf '[Service]\\nExecStart=/bin/false\\nRestart=always\\nRestartSec=600\\n' >{UNIT}"
        "; systemctl daemon-reload; systemctl start kubelet"
        '; until [ "$(systemctl show -P SubState kubelet)" = auto-restart ]; do sleep 0.1; done',
        f"systemctl stop kubelet; rm {UNIT}; systemctl daemon-reload",
        "the kubelet runs (its unit is activating)",
    ),
    "a kubelet of another unit": (process("kubelet"), END, "a process called kubelet runs"),
    "a container": (process("containerd-shim-runc-v2"), END, "containers run here"),
    "a container without its containerd": (
        f"systemctl stop containerd; {process('containerd-shim-runc-v2')}",
        f"{END}; systemctl start containerd",
        "containers run here",
    ),
    "a container that begins meanwhile": (
        f"true >/run/begin; {process('true')}; systemctl stop called; cp /bin/sleep /srv/containerd-shim-runc-v2",
        f"{END}; rm -f /run/begin",
        "containers run here",
    ),
    "a task": (
        *answering('case "$*" in names*) echo lab ;; *) echo task ;; esac'),
        "containers run here (namespace lab)",
    ),
    "a containerd that does not answer": (*answering("exit 1"), "containerd does not say what runs here"),
    "a containerd that does not answer for a namespace": (
        *answering('case "$*" in names*) echo lab ;; *) exit 1 ;; esac'),
        "containerd does not say what runs here",
    ),
    "a change that was cut off": (
        "mkdir -p /var/lib/userns-node; true >/var/lib/userns-node/activation",
        "rm /var/lib/userns-node/activation",
        "a change of this node was cut off",
    ),
    "a layer in /var/tmp": (*mounted("/var/tmp/ovl-idmapped1"), "mounted below /var/tmp: /var/tmp/ovl-idmapped1"),
    "a layer of /tmp's own file system": (
        "mkdir /tmp/layer /tmp/ovl-idmapped2; mount --bind /tmp/layer /tmp/ovl-idmapped2",
        "umount /tmp/ovl-idmapped2; rmdir /tmp/layer /tmp/ovl-idmapped2",
        "mounted below /tmp: /tmp/ovl-idmapped2",
    ),
    "a layer where its name has a blank": (*mounted('"/var/tmp/a layer"'), r"/var/tmp/a\040layer"),
    "a layer below a link": (
        f"mkdir -p {LINKED}; ln -s '/srv/a kubelet' /var/lib/kubelet; mount --bind /srv/layer {LINKED}",
        f"umount {LINKED}; rm -r /var/lib/kubelet '/srv/a kubelet'",
        r"mounted below /var/lib/kubelet/pki: /srv/a\040kubelet/pki/x",
    ),
}


@pytest.fixture(scope="module")
def member(lab: Lab) -> Iterator[LabNode]:
    """A node with something in the place of a containerd."""
    node = lab.node("member")
    put_seal(node)
    begin = "systemd-run --quiet --unit=called --property=Type=exec /srv/containerd-shim-runc-v2 600"
    stop = f"[ ! -e /run/begin ] || {begin}"
    unit = f"[Service]\nExecStart=/bin/sleep infinity\nExecStop=/bin/sh -c '{stop}'\n"
    node.put("/run/systemd/system/containerd.service", unit.encode())
    node.put(CTR, b"", 0o755)
    node.ssh("mkdir /srv/layer && echo kept >/srv/layer/file && systemctl start containerd")
    yield node
    node.stop()


def look(node: LabNode) -> str:
    """What a refusal leaves as it is."""
    keep = "cat /etc/machine-id /srv/layer/file; ls /etc/ssh/ssh_host_ed25519_key"
    return node.ssh(f"{keep}; systemctl is-active containerd; systemctl is-active kubelet", check=False).stdout


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_in_use_is_not_sealed(member: LabNode, case: str) -> None:
    begin, end, said = REFUSED[case]
    member.ssh(f"set -e; {begin}")
    before = look(member)
    refused = member.ssh(f"sh {SEAL}", check=False)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert said in refused.stderr
    assert refused.stderr.endswith("; nothing was taken away\n")
    assert look(member) == before
    member.ssh(f"set -e; {end}")


def test_only_root_seals(member: LabNode) -> None:
    before = look(member)
    refused = member.ssh(f"setpriv --reuid=65534 --regid=65534 --clear-groups sh {SEAL}", check=False)
    assert (refused.returncode, refused.stderr) == (1, "this has to run as root; nothing was taken away\n")
    assert look(member) == before


def test_a_node_of_a_cluster_is_not_sealed(lab: Lab, member: LabNode, tmp_path: Path) -> None:
    member.put("/run/systemd/system/kubelet.service", b"[Service]\nExecStart=/bin/sleep 600\n")
    member.ssh("systemctl daemon-reload; systemctl start kubelet.service")
    before = look(member)
    operator = Operator(lab, tmp_path)
    run = operator.pyinfra(operator.inventory({"nodes": {member: {}}}), "tasks.image.seal", "--json", "-y")
    assert run.code == 1
    assert "the kubelet runs (its unit is active)" in run.text
    assert look(member) == before
