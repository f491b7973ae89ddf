"""What was said of each host in a run: lines of a log that begin with the name of the host that they are about."""

from __future__ import annotations

import logging
import re
from collections import defaultdict, deque
from collections.abc import Mapping

import click

from fleet.terminal import tell
from userns.console import plain

__all__ = ["Said"]

# Of each host, as much as explains a failure.
LINES = 60
# pyinfra's own, which explain nothing.
_NOISE = ("Connected", "Ready: ", "Success", "Loaded fact", "noop:", "Error: executed ")


class Said(logging.Handler):
    """What pyinfra and the deploy said of each host, without its name, colours, or what a terminal obeys.

    `names` are those of the hosts, by how they are printed.
    """

    def __init__(self) -> None:
        super().__init__()
        self.names: Mapping[str, str] = {}
        self.lines: dict[str, deque[str]] = defaultdict(lambda: deque(maxlen=LINES))

    def emit(self, record: logging.LogRecord) -> None:
        """Keep it, where it is about a host; print it all."""
        text = plain(click.unstyle(record.getMessage()))
        tell(text)
        host, said = self._parted(text.lstrip())
        if host and not said.startswith(_NOISE):
            self.lines[host].append(said)

    def _parted(self, text: str) -> tuple[str, str]:
        """The host that a text is about, or "", and what it says of it. A name may have brackets of its own."""
        ends = [match.start() for match in re.finditer(r"\] ", text)] if text.startswith("[") else []
        for end in reversed(ends):
            if host := self.names.get(text[1:end]):
                return host, text[end + 1 :].strip()
        return "", text
