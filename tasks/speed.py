"""What pyinfra 3.10 and paramiko do again for each host, or ten times a second, done once. `install` puts it in place.

pyproject.toml holds pyinfra to 3.10; tests/deploy/test_speed.py fails where what is replaced is not there any more.
"""

from __future__ import annotations

import gc
import hmac
import socket
from collections import defaultdict
from collections.abc import Iterable
from functools import cache, lru_cache
from typing import Any

import paramiko.util
import pyinfra.api.arguments
import pyinfra.api.facts
import pyinfra.connectors.sshuserclient.client
from paramiko import HostKeys, SSHClient, Transport
from paramiko.hostkeys import HostKeyEntry
from pyinfra.api import Host, Inventory, State

__all__ = ["KnownHosts", "Members", "QuietTransport", "install"]

# How often a connection on which nothing comes is looked after, in seconds: for its keepalives, and for new keys.
IDLE = 2.0
# How many objects may be made between two searches for garbage. Python's 700 are a twentieth of a short run's time, and
# find none: what is loaded stays.
OBJECTS = 50_000


class QuietTransport(Transport):
    """A connection whose small packets go out at once, and that sleeps while it waits.

    paramiko leaves Nagle's algorithm on: 45 ms a command on a fast network, 4 ms without it. And each of its
    connections wakes up ten times a second, whatever it waits for: of 1,000 of them, that takes half a processor.
    """

    def __init__(self, sock: Any, *args: Any, **kwargs: Any) -> None:
        if isinstance(sock, socket.socket):  # else a jump host or a program carries the connection
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._active_check_timeout = IDLE
        super().__init__(sock, *args, **kwargs)


class KnownHosts(HostKeys):
    """Known hosts by their names. paramiko's own look through all lines, for each line that it reads and each host."""

    def __init__(self, filename: str | None = None) -> None:
        self._read = 0
        self._named: dict[str, list[int]] = defaultdict(list)
        self._hashed: list[int] = []
        super().__init__(filename)

    def lookup(self, hostname: str) -> Any:
        """The keys of a host by their types, or None."""
        self._keep_up()
        near = sorted({*self._named.get(hostname, ()), *self._hashed})
        lines, few = _lines(self), HostKeys()
        _lines(few).extend(lines[number] for number in near)
        return few.lookup(hostname)  # which decides whether it is the name

    def _keep_up(self) -> None:
        """With what was added since: lines are never removed from a file that was read."""
        lines = _lines(self)
        for number in range(self._read, len(lines)):
            for name in lines[number].hostnames or ():
                if name.startswith("|1|"):
                    self._hashed.append(number)
                else:
                    self._named[name].append(number)
        self._read = len(lines)


def _lines(keys: Any) -> list[HostKeyEntry]:
    lines: list[HostKeyEntry] = keys._entries
    return lines


class Members(list[Host]):
    """The hosts of a group, of which pyinfra asks for each host whether it is among them already."""

    def __init__(self, hosts: Iterable[Host] = ()) -> None:
        super().__init__(hosts)
        self._there = {id(host) for host in self}

    def append(self, host: Host) -> None:
        """One more, at the end."""
        super().append(host)
        self._there.add(id(host))

    def __contains__(self, host: object) -> bool:
        return id(host) in self._there


def make_hosts_and_groups(inventory: Inventory, *args: Any) -> None:
    """pyinfra's own, with groups that need not be searched."""
    inventory.groups = defaultdict(Members)
    _make_hosts_and_groups(inventory, *args)
    inventory.groups = defaultdict(list, {name: list(hosts) for name, hosts in inventory.groups.items()})


_make_hosts_and_groups = Inventory.make_hosts_and_groups


_init = Host.init


def init(host: Host, state: State) -> None:
    """As pyinfra's own, which looks at all names for each of them."""
    host.state = state
    host.connector = host.connector_cls(state, host)
    host.print_prefix_padding = " " * (_longest_name(host.inventory, len(host.inventory)) - len(host.name))


@lru_cache(maxsize=1)
def _longest_name(inventory: Inventory, _hosts: int) -> int:
    return max(len(host.name) for host in inventory)


def install() -> None:
    """For this process."""
    gc.set_threshold(OBJECTS)
    inventory: Any = Inventory
    inventory.make_hosts_and_groups = make_hosts_and_groups
    host: Any = Host
    host.init = init
    every_argument = cache(pyinfra.api.arguments.all_global_arguments)
    pyinfra.api.arguments.all_global_arguments = every_argument
    pyinfra.api.facts.all_global_arguments = every_argument
    paramiko_util: Any = paramiko.util
    paramiko_util.constant_time_bytes_eq = hmac.compare_digest  # its own goes through the bytes in Python
    client: Any = pyinfra.connectors.sshuserclient.client
    client.HostKeys = KnownHosts
    connect = SSHClient.connect

    def connect_quietly(client: SSHClient, *args: Any, **kwargs: Any) -> None:
        connect(client, *args, **{"transport_factory": QuietTransport, **kwargs})

    SSHClient.connect = connect_quietly  # type: ignore[method-assign, assignment]
