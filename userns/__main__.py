"""`python -m userns explain`: what a node, or versions by themselves, can do for user namespaces, and why.

`python -m userns diagnose` says what an error text means. Reads files and prints; everything else is in the modules
beside it. Exit code 0: ready, or a symptom was recognised; 1: refused, or none was; 2: usage.
"""

from __future__ import annotations

import argparse
import json
import sys
import tomllib
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from datetime import UTC, date, datetime
from pathlib import Path
from typing import NoReturn

from userns import advisories, arguments, console, diagnose, policy, readiness, report, requirements
from userns.findings import Finding, apply_allow
from userns.names import closest
from userns.planning import plan
from userns.readiness import Readiness
from userns.releases import COMPONENTS, Lock
from userns.settings import FLEETS, SETTINGS
from userns.tables import KNOWN_IDS, NEWEST_KUBERNETES
from userns.versions import Version, parse
from userns.versions import kubernetes as kubernetes_version

ROOT = Path(__file__).resolve().parent.parent
_CHUNK = 1 << 20
_EPILOG = """\
exit code: 0 ready, 1 refused, 2 usage

  pyinfra --json INVENTORY fact tasks.node.Node > nodes.json
  python -m userns explain nodes.json --policy policy.toml
  python -m userns explain --kernel 5.15 --kubernetes 1.33 --containerd 2.1.9
  python -m userns explain --containerd 2.3.4 --runc 1.4.3
"""

_DIAGNOSE_EPILOG = """\
exit code: 0 something was recognised (a good uid_map too), 1 nothing was, 2 usage

  journalctl -u containerd -u kubelet | python -m userns diagnose
  kubectl describe pod mypod | python -m userns diagnose
  kubectl exec mypod -- cat /proc/self/uid_map | python -m userns diagnose
"""


class UsageError(Exception):
    """What is wrong with the command line or a file that it names."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the result is the exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.command == "diagnose":
        try:
            return _diagnose(options)
        except UsageError as error:
            _refuse_usage(options.parser, str(error))
    faults: list[str] = []
    try:
        reports = list(_of_facts(options, faults)) if options.fact else [_of_versions(options)]
    except UsageError as error:
        _refuse_usage(options.parser, str(error))
    if reports and options.json:
        print(json.dumps({each.subject: report.as_json(each) for each in reports}, indent=2))
    elif reports:
        print("\n".join(report.as_text(each) for each in reports), end="")
    if faults:
        _refuse_usage(options.parser, "\n".join(faults))
    return int(any(each.refused for each in reports))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m userns", description="What a node can do for user namespaces, and what an error text means."
    )
    parser.add_argument("--version", action=arguments.Version)
    commands = parser.add_subparsers(dest="command", required=True, metavar="explain|diagnose")
    explain = commands.add_parser(
        "explain",
        help="say what a node, or versions by themselves, can do for user namespaces, and why",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    explain.add_argument("fact", nargs="?", metavar="FACT.json", help='a saved fact; "-" is standard input')
    explain.add_argument("--policy", metavar="FILE", help="the settings, as .json or .toml (only with FACT.json)")
    for name, example in (("kernel", "5.15"), ("containerd", "2.3.4"), ("runc", "1.4.3"), ("crun", "1.31")):
        explain.add_argument(f"--{name}", type=_version(example), metavar="VERSION", help=f"such as {example}")
    explain.add_argument(
        "--kubernetes",
        type=_version(NEWEST_KUBERNETES, kubernetes_version),
        metavar="VERSION",
        help=f"default {NEWEST_KUBERNETES}",
    )
    explain.add_argument("--snapshotter", metavar="NAME", help="default overlayfs")
    explain.add_argument("--slow-chown", choices=("auto", "true", "false"), help="default auto")
    explain.add_argument(
        "--default-runtime", choices=("runc", "crun"), help="default runc, or crun if only it is given"
    )
    explain.add_argument("--selinux", action="store_true", help="SELinux is enforced")
    explain.add_argument("--allow", action="append", default=[], metavar="ID", help="accept a blocker (repeatable)")
    explain.add_argument("--today", type=arguments.day, metavar="YYYY-MM-DD", help="the day for ends of life")
    explain.add_argument("--json", action="store_true", help="print JSON")
    explain.set_defaults(parser=explain)
    diagnosis = commands.add_parser(
        "diagnose",
        help="say what a log, an event or an error text means, and what to do",
        epilog=_DIAGNOSE_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    diagnosis.add_argument("files", nargs="*", metavar="FILE", help='texts of any size; none or "-": standard input')
    diagnosis.add_argument("--json", action="store_true", help="print JSON")
    diagnosis.set_defaults(parser=diagnosis)
    return parser


def _version(example: str, parse: Callable[[str], Version] = parse) -> Callable[[str], str]:
    """A reader of versions with as many numbers as `example`, or more: half a version would be judged as its .0."""
    numbers = len(parse(example).release)

    def read(text: str) -> str:
        try:
            given = len(parse(text).release)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from error
        if given < numbers:
            raise argparse.ArgumentTypeError(f"{text!r} is not exact: write {numbers} numbers, such as {example}")
        return text

    return read


def _refuse_usage(parser: argparse.ArgumentParser, message: str) -> NoReturn:
    parser.exit(2, f"{parser.prog}: error: {message}\n")


def _diagnose(options: argparse.Namespace) -> int:
    """Each text by itself, so that a line's number is that of its file."""
    names = options.files or ["-"]
    found = {name: _search(name) for name in names}
    if options.json:
        print(json.dumps({name: [asdict(each) for each in met] for name, met in found.items()}, indent=2))
    else:
        texts = [report.diagnoses(met, name if len(names) > 1 else "") for name, met in found.items() if met]
        print("\n".join(texts) if texts else report.NOTHING_RECOGNISED, end="")
    return int(not any(found.values()))


def _search(name: str) -> tuple[diagnose.Diagnosis, ...]:
    search = diagnose.Search()
    try:
        with nullcontext(sys.stdin.buffer) if name == "-" else open(name, "rb") as stream:
            for number, line in diagnose.lines(iter(lambda: stream.read(_CHUNK), b"")):
                search.line(number, line)
    except OSError as error:
        raise UsageError(f"{name}: {error.strerror}") from error
    return search.found()


def _of_versions(options: argparse.Namespace) -> report.Report:
    """The report on the versions that the command line names."""
    named = {name: getattr(options, name) for name in ("kernel", "kubernetes", *COMPONENTS) if getattr(options, name)}
    if not named:
        raise UsageError("name a saved fact, or versions such as --kernel 5.15 --containerd 2.3.4")
    if options.policy:
        raise UsageError("--policy goes with a saved fact; versions are named one by one")
    if "kernel" in named and "containerd" not in named:
        raise UsageError("--kernel says nothing without --containerd, for example --containerd 2.3.4")
    _check_allow(options.allow)
    kubernetes = named.get("kubernetes", NEWEST_KUBERNETES)
    runtime = options.default_runtime or ("crun" if "crun" in named and "runc" not in named else "runc")

    ready: Readiness | None = None
    found: list[Finding] = []
    if "kernel" in named:
        ready = readiness.assess(
            kernel=named["kernel"],
            kubernetes=kubernetes,
            containerd=named["containerd"],
            slow_chown={"true": True, "false": False}.get(options.slow_chown, "auto"),
            snapshotter=options.snapshotter or "overlayfs",
        )
        found += ready.findings
    if "containerd" in named:
        found += requirements.check(
            kubernetes=kubernetes,
            containerd=named["containerd"],
            runc=named.get("runc"),
            crun=named.get("crun"),
            default_runtime=runtime,
            selinux=options.selinux,
            kernel=named.get("kernel", ""),
        )
    elif "kubernetes" in named:
        found += requirements.gates(kubernetes)
    for component in COMPONENTS:
        if component in named:
            found += advisories.check(component, named[component], _today(options))
    names = {"kernel": "Linux", "kubernetes": "Kubernetes"}
    shown = named | ({"kubernetes": kubernetes} if "containerd" in named else {})
    subject = ", ".join(
        f"{names.get(name, name)} {shown[name]}" for name in ("kernel", "kubernetes", *COMPONENTS) if name in shown
    )
    return report.Report(subject, apply_allow(found, options.allow), ready)


def _of_facts(options: argparse.Namespace, faults: list[str]) -> Iterator[report.Report]:
    """A report on each host of a saved fact; in `faults`, why there is none on some of them."""
    extra = [
        f"--{name.replace('_', '-')}"
        for name in ("kernel", "kubernetes", *COMPONENTS, "snapshotter", "slow_chown", "default_runtime", "selinux")
        if getattr(options, name)
    ]
    if extra:
        raise UsageError(f"{', '.join(extra)}: a saved fact has its own; wanted versions are settings, see --policy")
    try:
        document = json.loads(_read(options.fact))
        hosts = report.nodes(document)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{options.fact}: {error}") from error
    settings = _settings(options.policy)
    if options.allow:
        _check_allow(options.allow)
        before = settings.get("allow", [])
        settings["allow"] = [*(before if isinstance(before, list) else [before]), *options.allow]
    try:
        lock = Lock.parse(_locate(policy.artifact_lock_path(settings)))
        wanted = policy.load(settings, lock, blocking_advisories=advisories.blocking, known_findings=KNOWN_IDS)
        texts = [*sorted((ROOT / "templates").glob("*.j2")), *sorted((ROOT / "tasks/scripts").glob("*.sh"))]
        templates = {path.name: path.read_text("utf-8") for path in texts}
        roots = {"containerd-root": wanted.containerd_root, "kubelet-root": wanted.kubelet_root}
    except ValueError as error:  # PolicyError and LockError tell all of it
        raise UsageError(str(error)) from error
    untold: dict[str, list[str]] = {}
    for host, node in hosts.items():
        try:
            planned = plan(node.as_read_for(roots), wanted, templates, _today(options))
        except ValueError as error:  # so does ConfigError, and most of them are every host's
            untold.setdefault(str(error), []).append(host)
        else:
            yield report.of_plan(host, planned)
    faults += [f"{', '.join(each)}: {error}" for error, each in untold.items()]


def _settings(path: str | None) -> dict[str, object]:
    if path is None:
        return {}
    kind = Path(path).suffix
    if kind not in {"", ".json", ".toml"}:  # without one it is JSON: standard input, or a shell's <(…)
        raise UsageError(f"{path}: --policy takes .json or .toml, and not {kind}")
    text = _read(path)
    try:
        settings = tomllib.loads(text) if path.endswith(".toml") else json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path}: {error}") from error
    if not isinstance(settings, dict):
        raise UsageError(f"{path}: a table of settings was expected, not {type(settings).__name__}")
    # A host's data is shared with other deploys; this file is for us alone, so what is not ours in it is a slip.
    if strangers := [name for name in settings if name not in SETTINGS and name not in FLEETS]:
        raise UsageError(f"{path}: there is no such setting: {', '.join(map(_with_the_nearest, strangers))}")
    return settings


def _with_the_nearest(name: str) -> str:
    nearest = policy.meant(name) or closest(name, SETTINGS)
    return repr(name) + (f" (write {nearest})" if nearest else "")


def _read(path: str) -> str:
    try:
        return sys.stdin.read() if path == "-" else Path(path).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"{path}: {error.strerror if isinstance(error, OSError) else 'this is not UTF-8 text'}"
        ) from error


def _locate(name: str) -> str:
    """The text of a file that is named relative to where the operator stands, or to this project."""
    here = Path.cwd() / name
    return _read(str(here if here.exists() else ROOT / name))


def _check_allow(allow: Sequence[str]) -> None:
    for id in allow:
        if id not in KNOWN_IDS:
            raise UsageError(f"--allow {id}: there is no finding with this id; copy it from the refusal")


def _today(options: argparse.Namespace) -> date:
    return options.today or datetime.now(UTC).date()


if __name__ == "__main__":
    sys.exit(console.run(main))
