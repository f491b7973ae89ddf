"""A fleet that is played: the real pyinfra, run as an operator runs it, against nodes that answer from a script.

pyinfra's connector `@fake` gives the answers, so that nothing is connected to and nothing is changed anywhere.
"""

from __future__ import annotations

import json
import os
import subprocess
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import IO, Any

from lab.paths import PYINFRA, REPO
from tests import nodes
from userns import proof
from userns.node import Node

# A connection to this port of our own machine is refused at once.
UNREACHABLE = {"ssh_hostname": "127.0.0.1", "ssh_port": 1, "ssh_allow_agent": False, "ssh_look_for_keys": False}
PROVEN = (
    f"{proof.BEGIN}\t{proof.FORMAT}\trunc\n"
    "proven\trunc\t0 65536 65536\t0 65536 65536\tidmapped\t65536\t65536\tyes\t0.11\trw - overlay overlay rw\n"
    f"{proof.END}\t0\n"
)
# What the answers stand for: each is the one command that runs the script of this name.
READ, TEXT, PROVE, FETCH, CHANGE = ("node.sh node.sh", "text.sh", "verify.sh", "fetch.sh", "launch.sh")


def answered(text: str) -> str:
    """A text on the node, as the script for TEXT answers with it."""
    return "=" + b64encode(text.encode()).decode()


_INVENTORY = """
import json
from pathlib import Path

_groups = json.loads(Path(__file__).with_suffix(".json").read_text())
globals().update({name: ([tuple(host) for host in hosts], data) for name, (hosts, data) in _groups.items()})
"""


@dataclass
class Fleet:
    """An inventory outside of the repository: hosts that answer as they are told to, in groups with data."""

    directory: Path
    hosts: dict[str, list[tuple[str, dict[str, Any]]]] = field(default_factory=dict)
    data: dict[str, dict[str, Any]] = field(default_factory=dict)

    def add(
        self,
        name: str,
        node: Node | str | None = None,
        *,
        group: str = "nodes",
        answers: Mapping[str, Any] | None = None,
        **settings: Any,
    ) -> str:
        """A host on which the fact finds `node` (or gets this very text), with these settings."""
        text = node if isinstance(node, str) else nodes.answer(node or nodes.bare())
        responses = {READ: text, PROVE: PROVEN, **(answers or {})}
        played = {"fake_delay": 0, "fake_delay_jitter": 0, "fake_responses": responses}
        self.hosts.setdefault(group, []).append((f"@fake/{name}", played | settings))
        return f"@fake/{name}"

    def add_unreachable(self, name: str, *, group: str = "nodes") -> str:
        """A host that refuses the connection."""
        self.hosts.setdefault(group, []).append((name, UNREACHABLE))
        return name

    @property
    def inventory(self) -> Path:
        """The inventory as a file, written anew."""
        path = self.directory / "fleet.py"
        groups = {name: (hosts, self.data.get(name, {})) for name, hosts in self.hosts.items()}
        path.with_suffix(".json").write_text(json.dumps(groups))
        path.write_text(_INVENTORY)
        return path

    def deploy(self, *options: str, **how: Any) -> Run:
        """`pyinfra INVENTORY deploy.py` with these options."""
        return pyinfra(self.inventory, "deploy.py", *options, **how)


@dataclass(frozen=True)
class Run:
    """One run of pyinfra: its exit code and both of its outputs."""

    code: int
    stdout: str
    stderr: str

    @property
    def text(self) -> str:
        """All that it printed."""
        return self.stdout + self.stderr

    @cached_property
    def json(self) -> dict[str, Any]:
        """Its whole stdout, which has to be one JSON document."""
        parsed: dict[str, Any] = json.loads(self.stdout)
        return parsed

    def said(self, host: str) -> list[str]:
        """What it told about a host, line by line, without the host's name before it."""
        mark = f"[{host}] "
        lines = [line.partition(mark)[2].strip() for line in self.stderr.splitlines() if line.lstrip().startswith(mark)]
        return [line for line in lines if not line.startswith(("Connected", "Ready: ", "Success"))]  # pyinfra's own

    def said_in_full(self, host: str) -> list[str]:
        """The same, with what was told of another host first, whichever the order was."""
        lines = self.said(host)
        for line in self.said(host):
            names, _, other = line.partition(": as told of ")
            ids = tuple(f"{name}: " for name in names.split(", "))
            lines += [each for each in self.said(other) if each.startswith(ids)] if other else []
        return lines

    def refused(self, host: str) -> list[str]:
        """Why a host was refused."""
        return [line.removeprefix("refused: ") for line in self.said(host) if line.startswith("refused: ")]

    def will(self, host: str) -> list[str]:
        """The changes of a host, in words."""
        return [line.removeprefix("will ") for line in self.said(host) if line.startswith("will ")]

    def operations(self, host: str) -> list[str]:
        """The names of the operations that a dry run with --json has for a host."""
        return [each["name"] for each in self.json["plan"] if host in each["hosts_with_change"]]


def pyinfra(
    *arguments: str | Path,
    cwd: Path = REPO,
    stdin: str | int | IO[str] = subprocess.DEVNULL,
    closed: bool = False,
    **environment: str,
) -> Run:
    """Run pyinfra. `stdin` is what it reads, or a file of its own; `closed` gives it no stdin at all."""
    command = [str(PYINFRA), *map(str, arguments)]
    if closed:
        command = ["sh", "-c", 'exec "$@" 0<&-', "sh", *command]
    done = subprocess.run(
        command,
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        **({"input": stdin} if isinstance(stdin, str) else {"stdin": stdin}),
    )
    return Run(done.returncode, done.stdout, done.stderr)
