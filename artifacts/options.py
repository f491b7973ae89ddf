"""The command line of `python -m artifacts`."""

from __future__ import annotations

import argparse
from pathlib import Path

from artifacts.lockfile import PROJECT_LOCK
from artifacts.upstream import FINGERPRINT
from userns import arguments, values
from userns.releases import ARCHITECTURES, COMPONENTS
from userns.settings import SETTINGS

__all__ = ["parser", "url"]

_ADD = """\
exit code: 0 the lock has them, 1 refused and nothing was written, 2 usage, a file or the network

  python -m artifacts add containerd 2.3.7
  python -m artifacts add runc 1.4.4 1.3.7 crun 1.31 --keyring runc.keyring --keyring crun.keyring
  python -m artifacts add containerd 2.3.7 --release-url https://mirror.example --second-url https://github.com

crun 1.31 may still be open to CVE-2026-133553: no fixed version is known.
"""
_CHECK = """\
Of a bundle everything that is in it is checked. What a host without any settings gets and it does not have is told, and
is no fault: the settings may name what it has. --only says what it has to have.

exit code: 0 all is as the lock says, 1 something is missing or wrong, 2 usage, a file or the network

  python -m artifacts check https://mirror.example --only containerd=2.3.4 --only runc --arch amd64
  python -m artifacts check /srv/mirror --json
  python -m artifacts check bundle.tar --only containerd=2.3.4 --only runc=1.4.3 --arch amd64
"""
_BUNDLE = """\
Without versions it gets what a host without any settings gets. The file has its manifest first and then the assets
under upstream's paths: `tar -x` makes a mirror of it. The same versions give the same bytes.

exit code: 0 it is written, 1 something is missing or wrong and nothing was written, 2 usage, a file or the network

  python -m artifacts bundle bundle.tar --arch amd64 --arch arm64
  python -m artifacts bundle bundle.tar containerd=2.3.4 runc=1.4.3 --from https://mirror.example
  python -m artifacts bundle bundle.tar --inventory inventories/prod.py --from /srv/mirror

Then, on the controller behind the gap: install_from = "bundle" and artifact_bundle = "bundle.tar".
"""


def parser() -> argparse.ArgumentParser:
    """The commands and their options."""
    whole = argparse.ArgumentParser(
        prog="python -m artifacts", description="Keeps the lock file: what may be installed, by SHA-256."
    )
    whole.add_argument("--version", action=arguments.Version)
    commands = whole.add_subparsers(dest="command", required=True, metavar="add|check|list|bundle")
    raw = argparse.RawDescriptionHelpFormatter

    add = commands.add_parser(
        "add", help="fetch and verify upstream's digests of releases, and pin them", epilog=_ADD, formatter_class=raw
    )
    add.add_argument(
        "releases", nargs="+", metavar="COMPONENT VERSION…", help="such as: containerd 2.3.7 runc 1.4.4 1.3.7"
    )
    add.add_argument(
        "--keyring",
        action="append",
        default=[],
        type=Path,
        metavar="FILE",
        help="signers' public keys (repeatable); what of crun has no signature is refused then",
    )
    add.add_argument(
        "--signer",
        action="append",
        default=[],
        type=_fingerprint,
        metavar="FINGERPRINT",
        help="trust this signer too (repeatable)",
    )
    add.add_argument(
        "--accept-expired-keys", action="store_true", help="take signatures of keys that have expired since"
    )
    add.add_argument(
        "--release-url",
        type=url,
        metavar="URL",
        help=f"upstream, or a mirror with its paths (default {SETTINGS['release_url'].default})",
    )
    add.add_argument(
        "--second-url",
        type=url,
        metavar="URL",
        help="where to download what is unsigned a second time (default the same)",
    )
    add.add_argument("--signed-only", action="store_true", help="refuse what has no signature")
    add.add_argument(
        "--replace", action="store_true", help="change digests that are pinned already, or how they were verified"
    )
    add.add_argument("--dry", action="store_true", help="show what would change, and write nothing")

    check = commands.add_parser(
        "check",
        help="compare a mirror, a folder laid out like one, or a bundle, with the lock",
        epilog=_CHECK,
        formatter_class=raw,
    )
    check.add_argument("where", metavar="URL|FOLDER|BUNDLE")
    check.add_argument(
        "--only", action="append", default=[], metavar="COMPONENT[=VERSION]", help="only these (repeatable)"
    )
    check.add_argument(
        "--jobs", type=arguments.number(1, 32), default=4, metavar="N", help="downloads at a time (default 4)"
    )

    show = commands.add_parser(
        "list", help="show the pinned versions, how they were verified, and what is known of them"
    )
    show.add_argument("components", nargs="*", metavar="COMPONENT")
    show.add_argument("--today", type=arguments.day, metavar="YYYY-MM-DD", help="the day for ends of life")

    bundle = commands.add_parser(
        "bundle",
        help="put what an air-gapped controller needs into one file",
        epilog=_BUNDLE,
        formatter_class=raw,
    )
    bundle.add_argument("out", type=_out, metavar="OUT", help="the file to write, such as bundle.tar")
    bundle.add_argument("releases", nargs="*", metavar="COMPONENT=VERSION", help="such as: containerd=2.3.4 runc=1.4.3")
    bundle.add_argument("--inventory", metavar="FILE", help="what the hosts of this pyinfra inventory ask for, instead")
    bundle.add_argument(
        "--from",
        metavar="URL|FOLDER",
        help=f"upstream, a mirror, or a folder laid out like one (default {SETTINGS['release_url'].default})",
    )

    for command in (check, bundle):
        command.add_argument(
            "--arch",
            action="append",
            default=[],
            choices=sorted(ARCHITECTURES.values()),
            help="only these (repeatable; default all)",
        )
    for command in (add, check, show, bundle):
        command.set_defaults(parser=command)
        command.add_argument(
            "--lock",
            default=None if command is bundle else str(PROJECT_LOCK),
            metavar="FILE",
            help="default artifacts/lock.toml of this project" + (", or the hosts' own" if command is bundle else ""),
        )
    for command in (check, show):
        command.add_argument("--json", action="store_true", help="print JSON")
    for command in (add, check, bundle):
        command.add_argument(
            "--timeout",
            type=arguments.seconds(3600),
            default=30.0,
            metavar="SECONDS",
            help="how long to wait for an answer (default 30)",
        )
        command.add_argument(
            "--retries", type=arguments.number(0, 10), default=2, metavar="N", help="how often to try again (default 2)"
        )
    return whole


def url(text: str) -> str:
    """The base of a mirror."""
    try:
        return values.url(text)
    except ValueError as error:
        # Not the text itself: it may hold a password.
        raise argparse.ArgumentTypeError(str(error)) from error


def _out(text: str) -> str:
    """A file to write; a release in its place says that it was forgotten."""
    if text.partition("=")[0] in COMPONENTS:
        raise argparse.ArgumentTypeError(
            f"{text!r} is what goes in: name the file before it, such as bundle.tar {text}"
        )
    return text


def _fingerprint(text: str) -> str:
    fingerprint = text.replace(" ", "").upper()
    if not FINGERPRINT.fullmatch(fingerprint):
        raise argparse.ArgumentTypeError(f"{text!r} is not the fingerprint of a key: 40 hexadecimal digits")
    return fingerprint
