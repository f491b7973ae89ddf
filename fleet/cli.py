"""The command line of fleet.py."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import NoReturn

from fleet import plan
from fleet.child import BrokenOff, CannotRun
from fleet.events import Request

__all__ = ["main"]

_EPILOG = """\
exit code of plan: 0 nothing to do, 2 nodes to change, 1 a node that was refused, failed or could not be reached
(1 comes before 2), or a mistake in the command line

  python fleet.py plan inventories/prod.py
  python fleet.py plan inventories/prod.py --limit workers --diff
"""


class _Parser(argparse.ArgumentParser):
    """argparse ends with 2 at a mistake, and 2 means here that there is something to change."""

    def error(self, message: str) -> NoReturn:
        """Tell it and end with 1."""
        self.print_usage(sys.stderr)
        self.exit(1, f"{self.prog}: {message}\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the result is the exit code."""
    options = _parser().parse_args(arguments)
    try:
        code: int = options.run(options)
    except (CannotRun, BrokenOff) as error:
        print(f"fleet: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("fleet: stopped; no node was changed", file=sys.stderr)
        return 130
    return code


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="fleet.py",
        description="All nodes of an inventory: what they are and would become, and the way there in waves.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="plan", parser_class=_Parser)
    planning = commands.add_parser("plan", help="read every node, change none, say what would change and why")
    _choosing(planning)
    planning.add_argument("--diff", action="store_true", help="show how each file would change (secrets are masked)")
    planning.add_argument("--json", action="store_true", help="print JSON")
    planning.set_defaults(run=_plan)
    return parser


def _choosing(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("inventory", metavar="INVENTORY", help="as pyinfra takes it: a file, or hosts with commas")
    parser.add_argument(
        "--limit", action="append", default=[], metavar="NAME", help="only this group, host or pattern (repeatable)"
    )
    parser.add_argument("--exclude", action="append", default=[], metavar="NAME", help="not these (repeatable)")
    parser.add_argument(
        "--data", action="append", default=[], type=_pair, metavar="NAME=VALUE", help="a setting for all (repeatable)"
    )
    parser.add_argument("-v", "--verbose", action="store_true", help="show what pyinfra says, and notes")


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    return name, value


def _request(options: argparse.Namespace, diff: bool = False) -> Request:
    return Request(
        action="plan",
        inventory=options.inventory,
        limit=tuple(options.limit),
        exclude=tuple(options.exclude),
        data=dict(options.data),
        diff=diff,
    )


def _plan(options: argparse.Namespace) -> int:
    return plan.run(_request(options, options.diff), as_json_=options.json, verbose=options.verbose)
