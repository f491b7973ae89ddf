"""`python -m artifacts add | check | list | bundle`: keeps the lock file, which says what may be installed.

Reads the command line and prints; everything else is in the modules beside it. Exit code 0: done, or all is as the
lock says; 1: refused, or something is not; 2: usage, a file, or the network; 130: interrupted; 141: output cut off.
"""

from __future__ import annotations

import argparse
import difflib
import json
import os
import signal
import sys
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from artifacts import adding, bundling, checking, listing
from artifacts.bundlefile import BundleFile
from artifacts.errors import ArtifactsError, Refused, Unusable
from artifacts.lockfile import PROJECT_LOCK, LockFile
from artifacts.options import parser, url
from artifacts.progress import Progress
from artifacts.signatures import Verifier
from artifacts.site import Site
from artifacts.upstream import Release
from userns import console
from userns.releases import COMPONENTS, VERSION, Asset, Lock
from userns.settings import SETTINGS

# Superfluous files are shown up to this many: a folder may hold thousands.
_SHOWN = 20


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the result is the exit code."""
    options = parser().parse_args(arguments)
    try:
        command = {"add": _add, "check": _check, "list": _list, "bundle": _bundle}[options.command]
        code = command(options)
        sys.stdout.flush()
    except ArtifactsError as error:
        _say(f"{options.parser.prog}: {error}")
        return error.code
    except KeyboardInterrupt:
        _say(f"{options.parser.prog}: interrupted; nothing is half-written")
        return 130
    except BrokenPipeError:  # no fault of a file: console.run knows
        raise
    except OSError as error:  # such as a full disk under the temporary files
        _say(f"{options.parser.prog}: {error}")
        return 2
    return code


def _add(options: argparse.Namespace) -> int:
    """Verify every release first, then write once: all of them or none."""
    wanted = _releases(options.releases)
    file = LockFile(options.lock)
    site = _site(options.release_url or str(SETTINGS["release_url"].default), options)
    second = _site(options.second_url, options) if options.second_url else site
    text, told, refusals = file.text, [], []
    with Verifier(options.keyring, accept_expired=options.accept_expired_keys) as verifier:
        for component, version in wanted:
            head = _head(component, file.lock)
            release = Release(component, version, head["path"])
            try:
                found = adding.verify(release, site, second, verifier, options.signer, signed_only=options.signed_only)
                verdict = adding.added(Lock.parse(text), text, release, found, head, replace=options.replace)
            except Refused as error:
                refusals.append(str(error))
                continue
            text = verdict.text
            note = f"; upstream has none for {', '.join(found.missing)}" if found.missing else ""
            if release.upstream.signed == "beside" and not found.signed:
                note += "; no signature was there, which upstream may have: --keyring asks for one"
            told.append(f"{release}: {verdict.done}: {', '.join(found.digests)} ({found.verified}){note}")
    if refusals:
        raise Refused("\n".join([*refusals, *(["nothing was written"] if told else [])]))
    if options.dry:
        difference = difflib.unified_diff(file.text.splitlines(), text.splitlines(), file.name, file.name, lineterm="")
        told += list(difference)
    elif text != file.text:
        file.replace(text)
    _tell(told)
    return 0


def _releases(words: Sequence[str]) -> list[tuple[str, str]]:
    """containerd 2.3.5 2.2.8 runc=1.4.4: versions, each of the component before it."""
    found: dict[tuple[str, str], None] = {}
    component, bare = "", ""
    for word in [part for each in words for part in each.split("=", 1)]:
        if word in COMPONENTS:
            if bare:
                break
            component = bare = word
        elif not component or (word[:1].isalpha() and word[:1] != "v"):
            raise Unusable(f"{word!r} is no component: known are {', '.join(COMPONENTS)}")
        elif not VERSION.fullmatch(word):
            raise Unusable(f"{word!r} is not a version such as 2.3.4 (no v in front)")
        else:
            found[component, word] = None
            bare = ""
    if bare:
        raise Unusable(f"name a version of {bare}, for example {bare} 2.3.4")
    return list(found)


def _head(component: str, lock: Lock) -> dict[str, str]:
    """How a component begins in the lock: a lock that has none of it gets what the project's own says."""
    known = lock if component in lock.components else LockFile(str(PROJECT_LOCK)).lock
    return {"path": known.path(component), "source": known.components[component].source}


def _check(options: argparse.Namespace) -> int:
    file = LockFile(options.lock)
    remote = options.where.startswith(("http://", "https://"))
    assets = [] if not remote and os.path.isfile(options.where) else _selected(file.lock, options)
    read: checking.Reader
    extra: list[str] = []
    lacking: list[Asset] = []
    if remote:
        site = _site(_base(options.where), options)
        where, read = site.base, checking.mirror(site)
    elif not assets:  # a bundle, of what it is meant to have: what it has, or what the options name
        where = options.where
        opened = BundleFile(Path(where))
        assets, extra, read = checking.bundle(opened, file.lock)
        if options.only or options.arch:
            assets = _selected(file.lock, options)
        else:
            lacking = bundling.lacking(opened.bundle, file)
        if not assets:
            raise Unusable(f"{where} has nothing that the lock file {file.name} pins")
    else:
        root = Path(options.where)
        where, read = options.where, checking.folder(root)
        extra = checking.superfluous(root, file.lock, file.path)
    progress = Progress(len(assets))
    try:
        checked = checking.check(assets, read, jobs=options.jobs, seen=progress.add, done=lambda _: progress.file())
    finally:
        progress.clear()
    count = {
        state: sum(each.state == state for each in checked) for state in ("good", "missing", "wrong", "unreadable")
    }
    if options.json:
        _tell([json.dumps(_as_json(where, file.name, checked, extra, lacking), indent=2)])
    else:
        _tell(list(_complaints(checked)))
        for release, architectures in _by_release(lacking):
            _tell([f"{release} is not in it for {architectures}: a node whose settings name no version is refused"])
        _tell([f"{name}: superfluous: the lock file does not have it" for name in extra[:_SHOWN]])
        _tell([f"and {len(extra) - _SHOWN} superfluous files more: --json has them all"] if len(extra) > _SHOWN else [])
        _tell([f"{where}: " + ", ".join(f"{number} {state}" for state, number in count.items() if number)])
    return 1 if count["missing"] or count["wrong"] else 2 if count["unreadable"] else 0


def _complaints(checked: Sequence[checking.Checked]) -> Iterator[str]:
    """A line for each release that is missing, and for each asset that is not as it should be."""
    for release, architectures in _by_release(each.asset for each in checked if each.state == "missing"):
        yield f"{release}: missing: {architectures}"
    for each in checked:
        if each.state not in {"good", "missing"}:
            yield f"{each.asset.component} {each.asset.version} {each.asset.arch}: {each.state}: {each.detail}"


def _by_release(assets: Iterable[Asset]) -> Iterator[tuple[str, str]]:
    """Each release that these assets are of, and their architectures."""
    found: dict[str, list[str]] = {}
    for asset in assets:
        found.setdefault(f"{asset.component} {asset.version}", []).append(asset.arch)
    return ((release, ", ".join(architectures)) for release, architectures in found.items())


def _selected(lock: Lock, options: argparse.Namespace) -> list[Asset]:
    """The assets that --only and --arch leave."""
    assets = list(checking.locked(lock, [name for name in COMPONENTS if name in lock.components]))
    wanted: set[tuple[str, str]] = set()
    for only in options.only:
        component, given, version = only.partition("=")
        if component not in COMPONENTS:
            raise Unusable(f"--only {only}: {component!r} is no component: known are {', '.join(COMPONENTS)}")
        if given and not VERSION.fullmatch(version):
            raise Unusable(f"--only {only}: {version!r} is not a version such as 2.3.4: write {component}=2.3.4")
        if component not in lock.components or (version and version not in lock.versions(component)):
            raise Unusable(f"--only {only}: {lock.missing(component, version)}")
        wanted.add((component, version))
    assets = [
        asset
        for asset in assets
        if (not wanted or wanted & {(asset.component, ""), (asset.component, asset.version)})
        and (not options.arch or asset.arch in options.arch)
    ]
    if not assets:
        raise Unusable("the lock file has no asset like that: there is nothing to check")
    return assets


def _as_json(
    where: str, lock: str, checked: list[checking.Checked], extra: list[str], lacking: list[Asset]
) -> dict[str, object]:
    return {
        "where": where,
        "lock": lock,
        "assets": [
            {
                "component": each.asset.component,
                "version": each.asset.version,
                "architecture": each.asset.arch,
                "path": each.asset.path,
                "sha256": each.asset.sha256,
                "state": each.state,
                "detail": each.detail,
            }
            for each in checked
        ],
        "superfluous": extra,
        "lacking": [
            {"component": each.component, "version": each.version, "architecture": each.arch} for each in lacking
        ],
    }


def _list(options: argparse.Namespace) -> int:
    lock = LockFile(options.lock).lock
    for name in options.components:
        if name not in COMPONENTS:
            raise Unusable(f"{name!r} is no component: known are {', '.join(COMPONENTS)}")
    rows = listing.rows(lock, options.components or COMPONENTS, options.today or datetime.now(UTC).date())
    _tell([json.dumps(listing.as_json(rows), indent=2)] if options.json else list(listing.as_text(rows)))
    return 0


def _bundle(options: argparse.Namespace) -> int:
    target = Path(os.path.realpath(options.out))  # a link to it stays one
    if target.is_dir():
        raise Unusable(f"{options.out} is a folder: name the file, such as {options.out.rstrip('/')}/bundle.tar")
    if os.path.exists(target) and not target.is_file():
        raise Unusable(f"{options.out} is there and no file: a bundle would take its place")
    if options.inventory:
        if options.releases:
            raise Unusable("an inventory names the versions: leave them out, or leave --inventory out")
        wanted = bundling.of_inventory(options.inventory, options.lock)
    else:
        lock = LockFile(options.lock or str(PROJECT_LOCK))
        versions = tuple(_releases(options.releases))
        wanted = [bundling.Wanted(lock, versions) if versions else bundling.defaults(lock)]
    assets = bundling.assets(wanted, options.arch)
    source = getattr(options, "from") or str(SETTINGS["release_url"].default)
    if source.startswith(("http://", "https://")):
        read = checking.mirror(_site(_base(source), options))
    else:
        read = checking.folder(Path(source))
    progress = Progress(len(assets))
    try:
        made = bundling.collect(assets, read, target, progress.add, progress.file)
    finally:
        progress.clear()
    for each in made.assets:
        how = each.verified or f"not verified here: {each.source}"
        _tell([f"{each}: {each.size / 1e6:.1f} MB, sha256 {each.sha256} ({how})"])
    _tell([f"{options.out}: {len(made.assets)} assets, {target.stat().st_size / 1e6:.1f} MB"])
    return 0


def _site(url: str, options: argparse.Namespace) -> Site:
    return Site(url, timeout=options.timeout, retries=options.retries)


def _base(where: str) -> str:
    try:
        return url(where)
    except argparse.ArgumentTypeError as error:
        raise Unusable(f"the URL of the mirror cannot be used: {error}") from error


def _tell(lines: Sequence[str]) -> None:
    for line in lines:
        print("\n".join(map(_printable, line.split("\n"))))


def _say(message: str) -> None:
    print("\n".join(map(_printable, message.split("\n"))), file=sys.stderr)


def _printable(text: str) -> str:
    """A mirror's words and file names may hold what a terminal would obey."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def _end(*_: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    # What cleans up after an interrupt does so after a plain kill too.
    signal.signal(signal.SIGTERM, _end)
    sys.exit(console.run(main))
