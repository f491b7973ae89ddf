"""Most operators log in as a user of their own and let pyinfra use sudo."""

from __future__ import annotations

from pathlib import Path

from lab import Lab, LabNode
from lab.mirror import Mirror
from lab.serving import Served
from tests.node.runs import Operator, must

# Where a deploy leaves something: after those that are refused, which come first, there is nothing yet.
TRACES = "ls /var/lib/userns-node /usr/local/bin"


def test_a_user_without_root_is_refused_by_name(
    lab: Lab, mirror: Mirror, releases: Served, shared_node: LabNode, tmp_path: Path
) -> None:
    node = shared_node
    node.ssh("useradd --create-home plain && cp -r /root/.ssh /home/plain/ && chown -R plain: /home/plain/.ssh")
    operator = Operator(lab, tmp_path, release_url=releases.url, artifact_lock=str(mirror.lock))
    run = operator.pyinfra(operator.inventory({"nodes": {node: {"ssh_user": "plain"}}}), "deploy.py", "--json", "-y")
    assert run.code == 1
    assert any("not-root" in line for line in run.said(node)), run.text
    assert node.ssh(TRACES, check=False).stdout == "/usr/local/bin:\n"


def test_su_with_a_password_is_refused_by_name_before_anything_changes(
    lab: Lab, mirror: Mirror, releases: Served, shared_node: LabNode, tmp_path: Path
) -> None:
    node = shared_node
    operator = Operator(lab, tmp_path, release_url=releases.url, artifact_lock=str(mirror.lock))
    data = {"_su_user": "root", "_su_password": "c4nary-of-su"}
    for flags in (("--dry",), ("-y",)):
        run = operator.pyinfra(operator.inventory({"nodes": {node: data}}), "deploy.py", "--json", *flags)
        assert run.code == 1
        assert any("Use _sudo, or _su_user without _su_password" in line for line in run.said(node)), run.text
        assert "c4nary-of-su" not in run.text
    assert node.ssh(TRACES, check=False).stdout == "/usr/local/bin:\n"


def test_a_user_with_sudo_deploys_as_root_does(
    lab: Lab, mirror: Mirror, releases: Served, shared_node: LabNode, tmp_path: Path
) -> None:
    node = shared_node
    node.ssh(
        "useradd --create-home ops && cp -r /root/.ssh /home/ops/ && chown -R ops: /home/ops/.ssh && "
        "echo 'ops ALL=(ALL) NOPASSWD: ALL' >/etc/sudoers.d/ops && "
        # A login that talks: what it prints stands before every answer.
        "echo 'echo Welcome to this node' | tee /home/ops/.profile >>/home/ops/.bashrc"
    )
    before = node.ssh(files := "find /home/ops /tmp -type f | sort").stdout
    operator = Operator(
        lab,
        tmp_path,
        release_url=releases.url,
        artifact_lock=str(mirror.lock),
        crun_version=mirror.versions("crun")[0],
    )
    inventory = operator.inventory({"nodes": {node: {"ssh_user": "ops", "_sudo": True}}})
    first = must(operator.pyinfra(inventory, "deploy.py", "--json", "-y"))
    assert any(name.startswith("Prove") for name in first.done(node))
    assert node.ssh(files).stdout == before
    again = must(operator.pyinfra(inventory, "deploy.py", "--json", "-y"))
    assert again.done(node) == []
    assert "nothing to do" in again.said(node)
