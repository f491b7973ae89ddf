"""The command line of fleet.py."""

from __future__ import annotations

import argparse
import os
import shlex
import sqlite3
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

from fleet import child, history_commands, plan
from fleet.apply import apply
from fleet.child import BrokenOff, CannotRun, Events
from fleet.consent import asked
from fleet.drain import KUBECTL, Guard, Hooks, Kubectl
from fleet.events import Request
from fleet.history import CannotEnd, History, NoSuchRun, default_path
from fleet.interrupt import Late
from fleet.label import Labels, label
from fleet.options import Options
from fleet.outcome import EXIT_INTERRUPTED
from fleet.schedulers import LOCAL, MANY, NONE, Settings, events_of
from fleet.shards import SHARD
from fleet.terminal import say
from fleet.waves import DEFAULT_MAX_UNAVAILABLE
from userns.arguments import Version, number, seconds, utf8

__all__ = ["main"]

_EPILOG = """\
exit code of plan: 0 nothing to do, 2 nodes to change, 1 a node that was refused, failed or could not be reached
(1 comes before 2), or a mistake in the command line

exit code of apply: 0 every node is as it should be, 1 some node is not, 130 interrupted

exit code of label: 0 each node is labelled as it was last found (one that is still to be changed keeps its label, or
has none yet), 1 some could not get its label, 2 some is to get it (--dry)

  python fleet.py plan inventories/prod.py
  python fleet.py report inventories/prod.py --html fleet.html
  python fleet.py plan inventories/prod.py --limit workers --diff
  python fleet.py apply inventories/prod.py --canary node-a1 --max-failures 2
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
    except (CannotRun, BrokenOff, NoSuchRun, CannotEnd) as error:
        print(f"fleet: {error}", file=sys.stderr)
        return 1
    except sqlite3.Error as error:
        print(f"fleet: the history {options.history or default_path()}: {error}", file=sys.stderr)
        return 1
    except Late:
        print(
            "fleet: stopped; fleet.py history has the run, and fleet.py show what became of its nodes", file=sys.stderr
        )
        return EXIT_INTERRUPTED
    except KeyboardInterrupt:
        print("fleet: stopped; no node was changed", file=sys.stderr)
        return EXIT_INTERRUPTED
    return code


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="fleet.py",
        description="All nodes of an inventory: what they are and would become, and the way there in waves.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action=Version)
    commands = parser.add_subparsers(
        dest="command", required=True, metavar="plan|apply|label|history|show|drift|report", parser_class=_Parser
    )
    planning = commands.add_parser("plan", help="read every node, change none, say what would change and why")
    _choosing(planning)
    _spreading(planning)
    planning.add_argument("--diff", action="store_true", help="show how each file would change (secrets are masked)")
    planning.add_argument("--json", action="store_true", help="print JSON")
    planning.set_defaults(run=_plan)
    applying = commands.add_parser("apply", help="change the nodes in waves, each proven before the next")
    _choosing(applying)
    _spreading(applying)
    applying.add_argument("-y", "--yes", action="store_true", help="do not ask")
    applying.add_argument("--diff", action="store_true", help="show how each file would change, before the question")
    applying.add_argument("--json", action="store_true", help="print JSON at the end")
    applying.add_argument("--resume", action="store_true", help="continue the last run over these nodes")
    applying.add_argument(
        "--canary",
        type=utf8,
        metavar="NAME",
        help="the node that is changed first, or a group of it (else the first one)",
    )
    applying.add_argument(
        "--max-unavailable",
        metavar="N|N%",
        help="how many nodes of a group may be unavailable at a time (else the group's data, else "
        f"{DEFAULT_MAX_UNAVAILABLE.replace('%', '%%')})",
    )
    applying.add_argument(
        "--max-failures",
        type=_count,
        default=0,
        metavar="N",
        help="begin no further wave once more than N nodes have failed (0); a whole wave may fail before that",
    )
    _draining(applying)
    applying.set_defaults(run=_apply)
    labelling = commands.add_parser("label", help="label the nodes in Kubernetes as the last runs found them")
    _choosing(labelling)
    _kubectl(labelling)
    labelling.add_argument("-y", "--yes", action="store_true", help="do not ask")
    labelling.add_argument("--dry", action="store_true", help="say only what would be done")
    labelling.set_defaults(run=_label)
    _looking_back(commands)
    return parser


def _choosing(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "inventory", type=utf8, metavar="INVENTORY", help="as pyinfra takes it: a file, or hosts with commas"
    )
    parser.add_argument(
        "--limit",
        action="append",
        default=[],
        type=utf8,
        metavar="NAME",
        help="only this group, host or pattern (repeatable)",
    )
    parser.add_argument(
        "--exclude", action="append", default=[], type=utf8, metavar="NAME", help="leave these out (repeatable)"
    )
    parser.add_argument(
        "--data", action="append", default=[], type=_pair, metavar="NAME=VALUE", help="a setting for all (repeatable)"
    )
    _history(parser)
    parser.add_argument("-v", "--verbose", action="store_true", help="show what pyinfra says, and notes")


def _spreading(parser: argparse.ArgumentParser) -> None:
    spreading = parser.add_argument_group("more than one pyinfra process, by Dask (docs/how-to/many-controllers.md)")
    spreading.add_argument(
        "--scheduler",
        metavar="ADDRESS",
        help=f"run on this Dask cluster (tls://HOST:PORT, tcp://HOST:PORT); {LOCAL}: one process for each "
        f"core of this machine; {NONE}: one process (else: {LOCAL} for more than {MANY:,} nodes, without --data, "
        "where Dask is installed)",
    )
    for name, kind, what in _SPREADING:
        default = getattr(Settings(), name)
        shown = "" if default is None else f" ({default})"
        spreading.add_argument(f"--{name}", type=kind, default=default, metavar="N", help=f"{what}{shown}")


# No fleet and no history has so many, and SQLite, the kernel's timers and the calendar can count them.
_LARGEST, _WEEK, _CENTURY = 999_999_999, 7 * 86400, 36500
_count, _some, _seconds = number(0, _LARGEST), number(1, _LARGEST), seconds(_WEEK)


_SPREADING = (
    ("shard", _some, f"at most so many nodes in one process at a time (a cluster {SHARD}, this machine {MANY})"),
    ("lease", _seconds, "a worker that cannot be heard goes on for so many seconds; then others take its nodes"),
    ("slow", _seconds, "a shard without news for so many seconds goes to another worker (plan 300, apply 4000)"),
    ("patience", _seconds, "wait so many seconds for a scheduler, or for workers, that are gone"),
)


def _spread(options: argparse.Namespace) -> AbstractContextManager[Events]:
    settings = Settings(**{name: getattr(options, name) for name, *_ in _SPREADING})
    return events_of(options.scheduler, settings, say)


def _looking_back(commands: Any) -> None:
    listing = commands.add_parser("history", help="list the runs")
    listing.add_argument("inventory", nargs="?", type=utf8, metavar="INVENTORY", help="only runs over this one")
    listing.add_argument("-n", "--count", type=_some, default=20, help="how many (20)")
    listing.add_argument(
        "--end", type=_count, metavar="RUN", help="mark this run as ended: its process is gone, with another host"
    )
    listing.add_argument(
        "--prune",
        type=number(0, _CENTURY),
        metavar="DAYS",
        help="forget what ended longer ago, except what a later run needs: the last two runs over the same nodes, what "
        "to resume, and who is drained",
    )
    showing = commands.add_parser("show", help="show what became of each node in a run")
    showing.add_argument("number", type=_count, metavar="RUN")
    showing.add_argument("nodes", nargs="*", default=[], metavar="NODE", help="only these, in full")
    showing.add_argument("-v", "--verbose", action="store_true", help="show notes")
    drifting = commands.add_parser("drift", help="show what differs between two runs")
    drifting.add_argument("before", type=_count, metavar="RUN")
    drifting.add_argument("after", type=_count, nargs="?", metavar="RUN", help="(without it: since the run before)")
    reporting = commands.add_parser("report", help="write where the fleet stands, as a page, as JSON, as metrics")
    reporting.add_argument("inventory", nargs="?", type=utf8, metavar="INVENTORY", help="the last run over this one")
    reporting.add_argument("--run", dest="number", type=_count, metavar="RUN", help="this run")
    for form, what in (("html", "one page that needs nothing else"), ("json", "JSON"), ("prometheus", "metrics")):
        reporting.add_argument(f"--{form}", type=Path, metavar="FILE", help=f"write {what} (-: standard output)")
    _history(reporting)
    reporting.set_defaults(run=_report)
    for parser, run in ((listing, _list), (showing, _show), (drifting, _drift)):
        _history(parser)
        parser.add_argument("--json", action="store_true", help="print JSON")
        parser.set_defaults(run=run)


def _list(options: argparse.Namespace) -> int:
    looks = options.end is None and options.prune is None
    with _opened(options, makes=False, reads=looks) as history:
        if options.end is not None:
            return history_commands.end(history, options.end)
        if options.prune is not None:
            return history_commands.prune(history, options.inventory, options.prune, datetime.now(UTC))
        return history_commands.history(history, options.inventory, options.count, options.json)


def _show(options: argparse.Namespace) -> int:
    with _opened(options, makes=False, reads=True) as history:
        return history_commands.show(history, options.number, options.nodes, options.json, options.verbose)


def _drift(options: argparse.Namespace) -> int:
    numbers = [each for each in (options.before, options.after) if each is not None]
    with _opened(options, makes=False, reads=True) as history:
        return history_commands.differences(history, numbers, options.json)


def _report(options: argparse.Namespace) -> int:
    files = {form: getattr(options, form) for form in ("html", "json", "prometheus")}
    if not any(files.values()):
        raise CannotRun("say what to write: --html FILE, --json FILE, --prometheus FILE, or several of them")
    if [str(file) for file in files.values()].count("-") > 1:
        raise CannotRun("only one of --html, --json and --prometheus can go to standard output (-)")
    given = {form: os.path.realpath(file) for form, file in files.items() if file and str(file) != "-"}
    if same := [f"--{form}" for form, file in given.items() if [*given.values()].count(file) > 1]:
        raise CannotRun(f"{' and '.join(same)} are one file, which would have the last of them: give each its own")
    with _opened(options, makes=False, reads=True) as history:
        return history_commands.report(history, options.inventory, options.number, files, datetime.now(UTC).date())


@contextmanager
def _opened(options: argparse.Namespace, *, makes: bool = True, reads: bool = False) -> Iterator[History]:
    try:
        path = options.history or default_path()
    except RuntimeError as error:
        raise CannotRun(f"the history has no place ({error}): name one with --history") from error
    try:
        if not makes and options.history and not path.exists():
            raise CannotRun(f"there is no history {path}")
        history = History(path, reads=reads)
    except (OSError, sqlite3.Error) as error:
        raise CannotRun(f"the history {path} cannot be opened ({error}): name another one with --history") from error
    try:
        yield history
    finally:
        history.close()


def _history(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--history",
        type=Path,
        metavar="FILE",
        help="where runs are written down (else $USERNS_NODE_HISTORY, else ~/.local/state/userns-node/history.db)",
    )


def _draining(parser: argparse.ArgumentParser) -> None:
    drain = parser.add_mutually_exclusive_group()
    drain.add_argument(
        "--drain",
        action="store_true",
        default=None,
        help="drain a node by kubectl before a change that disturbs its pods",
    )
    drain.add_argument("--no-drain", action="store_false", dest="drain", help="disturb them without a drain")
    _kubectl(parser)
    parser.add_argument(
        "--drain-timeout", type=number(1, _WEEK), default=300, metavar="SECONDS", help="for each node (300)"
    )
    parser.add_argument(
        "--drain-argument",
        action="append",
        metavar="OPTION",
        help="for kubectl drain (repeatable; else --ignore-daemonsets), as in --drain-argument=--force",
    )
    parser.add_argument("--before", metavar="COMMAND", help="run this in place of a drain, with NODE and HOST set")
    parser.add_argument("--after", metavar="COMMAND", help="run this in place of uncordon")


def _kubectl(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--kubectl", type=_command, default=KUBECTL, metavar="COMMAND", help='such as "kubectl --context prod"'
    )


def _command(text: str) -> str:
    """Words as a shell has them: a slip in them is told here, and not by the first node that is to be drained."""
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a command ({error})") from error
    if not words or not words[0]:
        raise argparse.ArgumentTypeError(f"{text!r} names no program")
    return text


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = utf8(text).partition("=")
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
    request = _request(options, options.diff)
    with _opened(options) as history, _spread(options) as run:
        return plan.run(request, history, as_json_=options.json, verbose=options.verbose, events_of=run)


def _label(options: argparse.Namespace) -> int:
    with _opened(options, makes=False, reads=True) as history:
        return label(
            _request(options),
            history,
            Labels(options.kubectl),
            ask=None if options.dry else lambda: options.yes or asked("Label these nodes?", "--dry to look"),
            verbose=options.verbose,
            events_of=child.events,
        )


def _apply(options: argparse.Namespace) -> int:
    guard: Guard = Guard()
    drain: bool | None = options.drain
    says_how = options.drain_argument or options.kubectl != KUBECTL
    if options.before or options.after:
        if drain is not None:
            raise CannotRun("--before and --after take the place of --drain and --no-drain: give one or the other")
        if says_how:
            raise CannotRun("--kubectl and --drain-argument say how to drain: --before and --after take its place")
        guard, drain = Hooks(options.before or "", options.after or "", options.drain_timeout), True
    elif says_how and not drain:
        instead = "give --drain too" if drain is None else "--no-drain does not"
        raise CannotRun(f"--kubectl and --drain-argument say how to drain: {instead}")
    elif drain:
        arguments = tuple(options.drain_argument or Kubectl.arguments)
        guard = Kubectl(options.kubectl, arguments, options.drain_timeout)
    code: int | None = None
    try:
        with _opened(options) as history, _spread(options) as run:
            code = apply(
                _request(options, options.diff),
                Options(
                    yes=options.yes,
                    json=options.json,
                    verbose=options.verbose,
                    resume=options.resume,
                    max_unavailable=options.max_unavailable,
                    max_failures=options.max_failures,
                    canary=options.canary,
                    drain=drain,
                ),
                history,
                guard,
                run,
            )
    except KeyboardInterrupt:  # while the cluster is closed: what was to be done is done
        if code is None:
            raise
        raise Late from None
    return code
