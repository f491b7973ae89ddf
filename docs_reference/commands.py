"""The reference of commands: their own help, and what their exit codes mean."""

from __future__ import annotations

import argparse
import ast
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import artifacts.options
import fleet.cli
import userns.__main__
from docs_reference.markdown import block, plain
from docs_reference.source import ROOT

_INTRO = """\
# Commands and exit codes

*This page is made from the code: the help texts are what `--help` prints.*

Run them from the directory of `deploy.py`, in the virtual environment that `make .venv` makes.

## pyinfra

```sh
pyinfra INVENTORY deploy.py --dry --diff     # what would change, and why
pyinfra INVENTORY deploy.py                  # change it; asks first, -y does not
```

| exit code | |
| --- | --- |
| 0 | every host is as it should be; or, with `--dry`, was planned, with or without pending changes |
| 1 | a host was refused, failed or could not be reached; a slip in the inventory, `--limit` or `--exclude` |
| 2 | usage |
| 130 | interrupted |

With `--dry --json` the standard output is JSON, and all that is for people goes to standard error.

Other things that it runs:

| | |
| --- | --- |
"""
_OPERATIONS = (
    ("fact tasks.node.Node", "node.py", "Node"),
    ("tasks.verify.user_namespace", "verify.py", "user_namespace"),
    ("tasks.rollback.previous_set", "rollback.py", "previous_set"),
    ("tasks.rollback.older_set", "rollback.py", "older_set"),
    ("tasks.image.seal", "image.py", "seal"),
)
# On a node, or for one: scripts whose head says how they are called.
_SCRIPTS = (
    ("/usr/local/libexec/userns-node/check", "templates/check.sh.j2"),
    ("userns-node-pull", "examples/pull/userns-node-pull"),
)


def page() -> str:
    """The whole page."""
    parts = [_INTRO + "\n".join(_operations()) + "\n"]
    with _plain_terminal():
        for parser in (fleet.cli._parser(), artifacts.options.parser(), userns.__main__._parser()):
            parts.append(f"## {_called(parser)}\n\n{block(_help(parser))}\n")
            for name, command in subcommands(parser):
                parts.append(f"### {_called(parser)} {name}\n\n{block(_help(command))}\n")
    for name, path in _SCRIPTS:
        if (ROOT / path).exists():
            parts.append(f"## {name}\n\n{block(_head(path))}\n")
    return "\n".join(parts)


class _Help(argparse.HelpFormatter):
    """The same help with every Python: until 3.12 it repeats the value after an option's short name."""

    def _format_action_invocation(self, action: argparse.Action) -> str:
        if not action.option_strings or action.nargs == 0:
            return super()._format_action_invocation(action)
        value = self._format_args(action, self._get_default_metavar_for_optional(action))
        return f"{', '.join(action.option_strings)} {value}"


def subcommands(parser: argparse.ArgumentParser) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """The commands of a parser."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            yield from action.choices.items()


def _help(parser: argparse.ArgumentParser) -> str:
    usual = parser.formatter_class
    parser.formatter_class = cast(Any, type("Help", (_Help, cast(type, usual)), {}))
    try:
        return parser.format_help()
    finally:
        parser.formatter_class = usual


def _called(parser: argparse.ArgumentParser) -> str:
    return f"python {parser.prog}" if parser.prog.endswith(".py") else parser.prog


def _operations() -> Iterator[str]:
    for call, file, name in _OPERATIONS:
        tree = ast.parse((ROOT / "tasks" / file).read_text("utf-8"))
        (node,) = (node for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == name)
        said = (ast.get_docstring(node) or "").split("\n\n")[0]
        yield f"| `pyinfra INVENTORY {call}` | {plain(said)} |"


def _head(path: str) -> str:
    """The comment at the head of a script, from its usage on."""
    lines = (ROOT / path).read_text("utf-8").splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("# usage:"))
    end = next(number for number, line in enumerate(lines) if number > start and not line.startswith("#"))
    return "\n".join(re.sub(r"^# ?", "", line) for line in lines[start:end])


@contextmanager
def _plain_terminal() -> Iterator[None]:
    """The same width and colours (none) wherever the page is made."""
    before = dict(os.environ)
    os.environ |= {"COLUMNS": "110", "NO_COLOR": "1"}
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
