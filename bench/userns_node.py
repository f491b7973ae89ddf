"""userns-node itself: pyinfra with deploy.py, as the README has it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bench import environment
from lab import Lab, LabError
from lab.paths import REPO


class UsernsNode:
    """The deploy of this repository."""

    name = "userns-node"

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._inventory = lab.home / "inventory.py"
        self.environment: dict[str, str] = {}

    def command(
        self, hosts: Mapping[str, Mapping[str, object]], settings: Mapping[str, object], *, dry: bool
    ) -> list[str]:
        """The command line for these hosts."""
        nodes = [(name, {**data, **settings}) for name, data in hosts.items()]
        self._inventory.write_text(f"nodes = {nodes!r}\n")
        return [str(environment.operators() / "pyinfra"), str(self._inventory), "deploy.py", "--dry" if dry else "-y"]

    def check(self, output: str, hosts: Sequence[str]) -> int:
        """The number of operations: none. Raises LabError where a host was not found converged."""
        converged = [name for name in hosts if f"[{name}] nothing to do" in output]
        if len(converged) != len(hosts):
            raise LabError(f"{len(hosts) - len(converged)} nodes were not found converged:\n{output[-4000:]}")
        return 0

    def deploy(self, hosts: Mapping[str, Mapping[str, object]], settings: Mapping[str, object]) -> None:
        """Make these hosts ready, for real."""
        self._lab.run(self.command(hosts, settings, dry=False), cwd=REPO, timeout=1800)
