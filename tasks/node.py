"""The one fact: what a node is, read in one round trip.

`pyinfra INVENTORY fact tasks.node.Node` prints it, and `pyinfra --json INVENTORY fact tasks.node.Node` as JSON.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from functools import cache

from pyinfra.api.command import QuoteString, StringCommand
from pyinfra.api.exceptions import FactProcessError
from pyinfra.api.facts import FactBase
from pyinfra.api.hiddenvalue import HiddenValue
from pyinfra.context import ctx_host, host

from tasks.files import for_sh, script
from userns import node, reading
from userns.reading.records import ReadingError
from userns.settings import DEFAULTS

_hidden: Callable[[str, str], HiddenValue] = HiddenValue  # pyinfra gives it no types


# A node that is alive answers in under a second; a hung one must not hold up the others.
READ_SECONDS = 120

PARTS = (
    *("probe.sh", "node-kernel.sh", "node-image.sh", "node-configuration.sh", "node-cgroup.sh", "node-kubelet.sh"),
    *("node-programs.sh", "node-units.sh", "options.sh", "node-service.sh", "running.sh", "node.sh"),
)


_COMMENTS = re.compile(r"^ *#( .*)?\n|^ +", re.MULTILINE)


@cache
def text() -> str:
    """The whole script: the probe, the parts, and the node script that calls them.

    Without its comments and indentation, a third of it: each connection would carry them, and each node's shell read
    them. No string of the scripts goes on over a line whose blanks at the beginning count.
    """
    return for_sh(_COMMENTS.sub("", "".join(script(name) for name in PARTS)))


def _root(data: Mapping[str, object], setting: str) -> str:
    """This setting in a host's data where it is a path, else its default; a deploy says what is wrong with it."""
    value = data.get(setting)
    return value if isinstance(value, str) and value.startswith("/") else str(DEFAULTS[setting])


def asked(data: Mapping[str, object]) -> StringCommand:
    """The command with which a deploy reads a host of this data."""
    roots = {name: _root(data, name) for name in ("containerd_root", "kubelet_root")}
    return Node().command(verify_digests=data.get("verify_digests") is True, **roots)


class Node(FactBase[node.Node]):
    """Everything the plan needs to know of a node: see `userns.node.Node`."""

    def command(
        self,
        containerd_root: str = "",
        kubelet_root: str = "",
        verify_digests: bool | str = False,
    ) -> StringCommand:
        """The script, which travels inside the command, and its arguments. `-vv` prints its name for its text.

        Roots that are not given are those of the host's data, else the defaults.
        """
        verify = "yes" if str(verify_digests).lower() in ("true", "yes", "1") else "no"
        data = host.data.dict() if ctx_host.isset() else {}
        roots = (
            containerd_root or _root(data, "containerd_root"),
            kubelet_root or _root(data, "kubelet_root"),
        )
        arguments = (QuoteString(str(each)) for each in (*roots, verify))
        read = ("LC_ALL=C", "sh", "-c", QuoteString(_hidden(text(), "node.sh")), "node.sh", *arguments)
        # All of it at the end: line by line, the two ends of the connection would have forty packets to see to.
        return StringCommand(*read, "| tail -n 100000")

    def process(self, output: Iterable[str]) -> node.Node:
        """Read the answer. A FactProcessError fails this host; any other exception would stop all hosts."""
        try:
            return reading.read(output)
        except ReadingError as error:
            raise FactProcessError(str(error)) from error
