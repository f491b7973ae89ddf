"""What the operator is told of this host: lines, findings, and what a command has to say.

pyinfra shows an operation's output only with -vvv, or when it fails.
"""

from __future__ import annotations

from typing import Any

import click
from pyinfra import host as this_host
from pyinfra import logger
from pyinfra.api import Host, State, StringCommand
from pyinfra.connectors.util import CommandOutput

from userns.findings import Finding, Severity

WARNINGS = ("warning:", "error:")
_COLOURS = {Severity.BLOCKER: "red", Severity.WARNING: "yellow", Severity.NOTE: "blue"}


def say(text: str) -> None:
    """One line, after this host's name."""
    logger.info(f"{this_host.print_prefix}{text}")


def tell_finding(finding: Finding) -> None:
    """A finding with its source, and its lines below it."""
    log = logger.info if finding.severity is Severity.NOTE else logger.warning
    source = f" ({finding.source})" if finding.source else ""
    log(f"{this_host.print_prefix}{click.style(str(finding), fg=_COLOURS[finding.severity])}{source}")
    for line in finding.lines:
        say(f"    {line}")


class WarningCommand(StringCommand):
    """Tells the warnings of a command that succeeds, and `told`. What one that fails printed, pyinfra shows whole.

    `news` is how a line begins that is no warning, and is told as well.
    """

    def __init__(self, *bits: Any, told: tuple[str, ...] = (), news: str = "") -> None:
        super().__init__(*bits)
        self.told, self.news = told, news

    def execute(self, state: State, host: Host, connector_arguments: Any) -> tuple[bool, CommandOutput]:
        """Run it."""
        status, output = super().execute(state, host, connector_arguments)
        if status and not state.print_output:
            for line in output.stdout_lines:
                if line.startswith(WARNINGS):
                    logger.warning(f"{host.print_prefix}{click.style(line, fg='yellow')}")
                elif self.news and line.startswith(self.news):
                    logger.info(f"{host.print_prefix}{line}")
        for line in self.told if status else ():
            logger.info(f"{host.print_prefix}{line}")
        return status, output
