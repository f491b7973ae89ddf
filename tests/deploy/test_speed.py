"""What is done once for all hosts is what pyinfra and paramiko would do for each; and they are as that expects them."""

from __future__ import annotations

import hmac
import inspect
import socket
import subprocess
import sys
import threading
from pathlib import Path

import paramiko.util
import pyinfra.api.arguments
import pyinfra.api.facts
import pytest
from paramiko import HostKeys, RSAKey, Transport
from paramiko.hostkeys import HostKeyEntry
from paramiko.packet import Packetizer
from pyinfra.api import Host
from pyinfra.connectors.sshuserclient import client

from lab.paths import REPO
from tasks import speed
from tasks.speed import KnownHosts

NAMES = ("node1", "node2", "[10.0.0.1]:2222", "10.0.0.3")


@pytest.fixture(scope="module")
def keys() -> list[RSAKey]:
    return [RSAKey.generate(1024) for _ in range(3)]


@pytest.fixture
def known(tmp_path: Path, keys: list[RSAKey]) -> Path:
    """Plain and hashed names, one name twice, several in a line, a line said again, and what is no line."""
    first, second, third = (f"{key.get_name()} {key.get_base64()}" for key in keys)
    hashed = HostKeys.hash_host("10.0.0.3")
    path = tmp_path / "known_hosts"
    path.write_text(
        f"# a comment\nnode1,[10.0.0.1]:2222 {first}\nnode2 {second}\nnode2 {third}\n{hashed} {third}\n"
        f"node1 {first}\nno line\n\n"
    )
    return path


def shown(found: HostKeys, name: str) -> dict[str, bytes] | None:
    keys = found.lookup(name)
    return None if keys is None else {kind: keys[kind].asbytes() for kind in keys}


def test_known_hosts_are_found_as_paramiko_finds_them(known: Path, keys: list[RSAKey]) -> None:
    ours, theirs = KnownHosts(str(known)), HostKeys(str(known))
    assert {name: shown(ours, name) for name in (*NAMES, "node3")} == {
        name: shown(theirs, name) for name in (*NAMES, "node3")
    }
    assert [name for name in NAMES if ours.lookup(name) is None] == []
    assert ours.lookup("node3") is None
    assert [ours.check("node1", key) for key in keys] == [True, False, False]


def test_a_host_that_is_added_is_known_from_then_on(known: Path, keys: list[RSAKey]) -> None:
    found = KnownHosts(str(known))
    assert found.lookup("node3") is None
    found.add("node3", keys[0].get_name(), keys[0])
    assert found.check("node3", keys[0])
    found.add("node1", keys[1].get_name(), keys[1])  # in the place of the one that it had
    assert (found.check("node1", keys[0]), found.check("node1", keys[1])) == (False, True)


def test_a_name_is_looked_up_without_a_look_at_every_line(
    tmp_path: Path, keys: list[RSAKey], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "known_hosts"
    text = f"{keys[0].get_name()} {keys[0].get_base64()}"
    path.write_text("".join(f"node{number} {text}\n" for number in range(200)))
    theirs, looked_at = HostKeys._hostname_matches, []  # type: ignore[attr-defined]

    def counted(self: HostKeys, hostname: str, entry: HostKeyEntry) -> bool:
        looked_at.append(hostname)
        return bool(theirs(self, hostname, entry))

    monkeypatch.setattr(HostKeys, "_hostname_matches", counted)
    counts = []
    for kind in (HostKeys, KnownHosts):
        looked_at.clear()
        assert kind(str(path)).check("node7", keys[0])
        counts.append(len(looked_at))
    assert counts == [200 * 199 // 2 + 200, 1]


def test_pyinfra_and_paramiko_are_what_the_replacements_expect() -> None:
    assert client.HostKeys in (HostKeys, KnownHosts)
    assert "HostKeys()" in inspect.getsource(client.get_host_keys)
    assert pyinfra.api.facts.all_global_arguments is pyinfra.api.arguments.all_global_arguments
    assert pyinfra.api.arguments.all_global_arguments() == pyinfra.api.arguments.all_global_arguments()
    assert Transport._active_check_timeout == 0.1  # type: ignore[attr-defined]
    assert "settimeout(self._active_check_timeout)" in inspect.getsource(Transport.__init__)
    # A connection that is closed does not wait until the sleep is over: its socket is closed under it.
    assert "self.__socket.close()" in inspect.getsource(Packetizer.close)
    assert hasattr(HostKeys(), "_entries")


CONNECTION = """
import runpy, socket, sys
from paramiko import SSHClient, SSHException
from pyinfra.api import Config, State
from pyinfra.context import ctx_config, ctx_state

ctx_state.set(State())
ctx_config.set(Config())
runpy.run_path("config.py")
connection = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
kept = connection.dup()
try:
    SSHClient().connect("node", username="ops", sock=connection, banner_timeout=5)
except SSHException:
    print(kept.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY), connection.gettimeout())
"""


def test_packets_to_nodes_are_sent_at_once_from_the_first_one_on_and_nothing_polls() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=lambda: server.accept()[0].close(), daemon=True).start()
        done = subprocess.run(
            [sys.executable, "-c", CONNECTION, str(server.getsockname()[1])],
            cwd=REPO,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.stdout == f"1 {speed.IDLE}\n", done.stderr


GROUPED = """
import gc, runpy
from pyinfra.api import Config, Host, Inventory, State
from pyinfra.context import ctx_config, ctx_state

def shown():
    groups = {"web": (["b", "a", "b"], {"x": 1}), "db": (["c", ("longest", {"y": 2})], {})}
    inventory = Inventory((["a", "b", "c", "longest", "@local"], {}), **groups)
    state = State(inventory, Config())
    members = {name: [(host.name, type(hosts).__name__) for host in hosts] for name, hosts in inventory.groups.items()}
    return members, {host.name: (host.print_prefix, host.groups, type(host.connector).__name__) for host in inventory}

ctx_state.set(State())
ctx_config.set(Config())
before = shown()
runpy.run_path("config.py")
assert shown() == before, (before, shown())
print(Inventory.make_hosts_and_groups.__module__, Host.init.__module__, gc.get_threshold()[0])
print(before)
"""


def test_an_inventory_is_the_same_without_a_search_for_each_host() -> None:
    done = subprocess.run([sys.executable, "-c", GROUPED], cwd=REPO, capture_output=True, text=True, check=False)
    assert "'web': [('a', 'list'), ('b', 'list')]" in done.stdout, done.stdout + done.stderr
    assert f"tasks.speed tasks.speed {speed.OBJECTS}\n" in done.stdout
    assert done.returncode == 0, done.stderr


def test_an_inventory_takes_a_time_that_grows_with_its_hosts() -> None:
    assert "if host not in self.groups[group_name]" in inspect.getsource(speed._make_hosts_and_groups)
    assert inspect.getsource(speed._init).split() == HOST_INIT.split()
    hosts = [Host.__new__(Host) for _ in range(3)]
    members = speed.Members(hosts[:1])
    members.append(hosts[1])
    assert [host in members for host in hosts] == [True, True, False]


# What tasks.speed.init stands for.
HOST_INIT = """
def init(self, state: State) -> None:
    self.state = state
    self.connector = self.connector_cls(state, self)

    longest_name_len = max([len(host.name) for host in self.inventory])
    padding_diff = longest_name_len - len(self.name)
    self.print_prefix_padding = "".join(" " for _ in range(0, padding_diff))
"""


def test_a_digest_of_a_packet_is_compared_as_paramiko_compares_it() -> None:
    theirs = paramiko.util.constant_time_bytes_eq
    assert "util.constant_time_bytes_eq(" in inspect.getsource(Packetizer)
    for one, other in [(b"", b""), (b"same", b"same"), (b"same", b"sane"), (b"same", b"sam")]:
        assert hmac.compare_digest(one, other) == theirs(one, other)
