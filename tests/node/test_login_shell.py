"""A user's login shell reads each command before sh does, and is not one of POSIX on every node."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import Lab, LabNode, debs
from lab.mirror import Mirror
from lab.serving import Served
from tests.node.runs import Operator, must

# Each the login shell of a user of its own, who may use sudo.
SHELLS = ("fish", "tcsh", "zsh")


@pytest.fixture(scope="module")
def node(lab: Lab) -> Iterator[LabNode]:
    node = lab.node("shells")
    for deb in sorted(debs.for_a_node(*SHELLS).glob("*.deb")):
        lab.run(debs.laying_over(deb, node.root))
    for shell in SHELLS:
        node.ssh(
            f"useradd --create-home --shell /usr/bin/{shell} {shell} && cp -r /root/.ssh /home/{shell}/ && "
            f"chown -R {shell}: /home/{shell}/.ssh && echo '{shell} ALL=(ALL) NOPASSWD: ALL' >/etc/sudoers.d/{shell}"
        )
    yield node
    node.stop()


@pytest.fixture
def operator(lab: Lab, mirror: Mirror, releases: Served, tmp_path: Path) -> Operator:
    return Operator(lab, tmp_path, release_url=releases.url, artifact_lock=str(mirror.lock))


@pytest.mark.parametrize("what", [("deploy.py",), ("tasks.rollback.previous_set",)], ids=str)
@pytest.mark.parametrize("shell", ["fish", "tcsh"])
def test_a_shell_that_is_none_of_posix_is_refused_and_runs_nothing(
    operator: Operator, node: LabNode, shell: str, what: tuple[str, ...]
) -> None:
    """A csh would run each line of a script as a command of its own, as root where the user is."""
    inventory = operator.inventory({"nodes": {node: {"ssh_user": shell, "_sudo": True}}})
    run = operator.pyinfra(inventory, *what, "-y")
    assert run.code == 1
    # fish itself refuses a script that it cannot read.
    ours = "the login shell of this user is"
    told = {"tcsh": (f"{ours} a csh",), "fish": (f"{ours} fish", "fish: Un")}
    assert any(each in run.text for each in told[shell]), run.text[-3000:]
    # Else every second line of a script would say so, in the words of the one or the other.
    assert not {word for word in ("ommand not found", "Undefined variable", "Unknown command") if word in run.text}


def test_zsh_is_as_good_as_sh(operator: Operator, node: LabNode) -> None:
    inventory = operator.inventory({"nodes": {node: {"ssh_user": "zsh", "_sudo": True}}})
    first = must(operator.pyinfra(inventory, "deploy.py", "--json", "-y"))
    assert any(name.startswith("Prove") for name in first.done(node))
    assert "nothing to do" in must(operator.pyinfra(inventory, "deploy.py", "--json", "-y")).said(node)
