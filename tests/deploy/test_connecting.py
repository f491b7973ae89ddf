"""Why a node could not be reached is told in pyinfra's own words, and nobody waits for an answer that never comes."""

from __future__ import annotations

import inspect
import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import paramiko
import pytest
from paramiko import ECDSAKey, ServerInterface, Transport
from pyinfra.api import Host
from pyinfra.connectors import ssh_util, util
from pyinfra.connectors.ssh import SSHConnector
from pyinfra.connectors.sshuserclient.client import AskPolicy

from lab.paths import PYINFRA, REPO
from tests.deploy.fleet import Run
from tests.fleet.runs import fleet_py, statuses

ASKED = "and nobody is there to be asked about it: add the key, or set StrictHostKeyChecking"


class LetsNobodyIn(ServerInterface):
    """What asks for keys and passwords, and likes none."""

    def check_auth_publickey(self, username: str, key: Any) -> int:
        return paramiko.AUTH_FAILED  # type: ignore[attr-defined, no-any-return]

    def check_auth_password(self, username: str, password: str) -> int:
        return paramiko.AUTH_FAILED  # type: ignore[attr-defined, no-any-return]

    def get_allowed_auths(self, username: str) -> str:
        return "publickey,password"


@dataclass
class Sshd:
    """An SSH server on loopback."""

    server: socket.socket
    key: ECDSAKey = field(default_factory=ECDSAKey.generate)

    @property
    def port(self) -> int:
        return int(self.server.getsockname()[1])

    def serve(self) -> None:
        while True:
            try:
                connection, _ = self.server.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        transport = Transport(connection)
        transport.add_server_key(self.key)
        with suppress(paramiko.SSHException, EOFError):  # who asked has gone
            transport.start_server(server=LetsNobodyIn())


@pytest.fixture(scope="module")
def sshd() -> Iterator[Sshd]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        made = Sshd(server)
        threading.Thread(target=made.serve, daemon=True).start()
        yield made


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """With a key, and one that is encrypted."""
    ECDSAKey.generate().write_private_key_file(str(tmp_path / "plain"))
    ECDSAKey.generate().write_private_key_file(str(tmp_path / "locked"), password="hunter2hunter2")
    (tmp_path / "known_hosts").touch()
    return tmp_path


def inventory(directory: Path, sshd: Sshd, **hosts: dict[str, Any]) -> Path:
    """Nodes behind that server, each with data of its own beside what all have."""
    of_all = {
        "ssh_hostname": "127.0.0.1",
        "ssh_port": sshd.port,
        "ssh_user": "ops",
        "ssh_key": str(directory / "plain"),
        "ssh_known_hosts_file": str(directory / "known_hosts"),
        "ssh_strict_host_key_checking": "no",
    }
    path = directory / "inventory.py"
    path.write_text(f"nodes = {[(name, of_all | data) for name, data in hosts.items()]!r}\n")
    return path


def reasons(run: Run) -> dict[str, str]:
    """Why each node could not be reached."""
    assert set(statuses(run).values()) == {"unreachable"}, run.text
    return {name: "\n".join(record["reasons"]) for name, record in run.json["nodes"].items()}


def test_what_the_fleet_tells_and_keeps_are_the_words_of_pyinfra(directory: Path, sshd: Sshd) -> None:
    """Of which "authentication" and "private key" are names in a file, with a secret behind them."""
    locked = {"ssh_key": str(directory / "locked")}
    made = inventory(directory, sshd, stranger={"ssh_password": "correct-horse"}, locked=locked)
    told = reasons(fleet_py("plan", made, "--json", home=directory))
    assert told == {
        "stranger": f"Authentication error (username=ops, key={directory}/plain) (Authentication failed.)",
        "locked": f"Private key file ({directory}/locked) is encrypted, set ssh_key_password to use this key",
    }
    shown = fleet_py("show", "1", "--json", home=directory)
    assert reasons(shown) == told


def test_a_secret_of_the_node_in_such_words_is_hidden(directory: Path, sshd: Sshd) -> None:
    made = inventory(directory, sshd, n1={"ssh_password": "correct-horse", "ssh_port": 1})
    made.write_text(
        f"{made.read_text()}"
        "from pyinfra.api.exceptions import ConnectError as _Error\n"
        "from pyinfra.connectors.ssh import SSHConnector as _Connector\n"
        "def _refuse(self):\n"
        "    raise _Error('Authentication with correct-horse by http://ops:hunter2@proxy:3128 failed')\n"
        "_Connector.connect = _refuse\n"
    )
    run = fleet_py("plan", made, "--json", home=directory)
    assert reasons(run) == {"n1": "Authentication with <secret 1> by http://<secret 2>@proxy:3128 failed"}


# --- questions ----------------------------------------------------------------------------------------------------


def test_an_unknown_host_key_is_a_reason_and_no_question_for_a_process_that_nobody_sees(
    directory: Path, sshd: Sshd
) -> None:
    """What is asked there reads the request's pipe, which stays open: the run hung. A bastion's policy is to ask."""
    config = directory / "config"
    config.write_text(
        f"Host bastion\n HostName 127.0.0.1\n Port {sshd.port}\n UserKnownHostsFile {directory}/none\n"
        "Host behind\n HostName 127.0.0.1\n ProxyJump bastion\n"
    )
    behind = {"ssh_hostname": "behind", "ssh_config_file": str(config)}
    made = inventory(directory, sshd, asking={"ssh_strict_host_key_checking": "ask"}, behind=behind)
    told = reasons(fleet_py("plan", made, "--json", home=directory))
    assert told.keys() == {"asking", "behind"}
    for why in told.values():
        assert f"known_hosts has no key of [127.0.0.1]:{sshd.port}, {ASKED}" in why
    assert (directory / "known_hosts").read_text() == ""


@pytest.mark.parametrize("stays_open", [True, False])
@pytest.mark.parametrize(
    ("data", "why"),
    [
        ({"ssh_strict_host_key_checking": "ask"}, ASKED),
        ({"ssh_key": "locked"}, "its SSH key is encrypted, and there is no terminal to ask for the password at"),
    ],
    ids=["host key", "password"],
)
def test_nor_does_pyinfra_wait_where_there_is_no_terminal(
    directory: Path, sshd: Sshd, data: dict[str, Any], why: str, stays_open: bool
) -> None:
    made = inventory(directory, sshd, n1=data)
    (directory / "inventory.py").write_text(made.read_text().replace("'locked'", repr(str(directory / "locked"))))
    reading, writing = os.pipe()
    try:
        if not stays_open:
            os.close(writing)
        done = subprocess.run(
            [PYINFRA, made, "deploy.py", "--dry"],
            cwd=REPO,
            stdin=reading,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            start_new_session=True,
        )
    finally:
        os.close(reading)
        if stays_open:
            os.close(writing)
    assert done.returncode == 1
    assert why in done.stderr
    assert "Traceback" not in done.stderr


def test_pyinfra_is_what_the_replacements_expect() -> None:
    assert "input(" in inspect.getsource(AskPolicy.missing_host_key)
    assert [*inspect.signature(AskPolicy.missing_host_key).parameters] == ["self", "client", "hostname", "key"]
    assert "= getpass(" in inspect.getsource(util.execute_command_with_sudo_retry)
    assert "= getpass(" in inspect.getsource(ssh_util._load_private_key_file)
    assert [*inspect.signature(SSHConnector.connect).parameters] == ["self"]
    assert "except ConnectError" in inspect.getsource(Host.connect)
