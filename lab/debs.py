"""Debian packages of the container runtimes, fetched with an apt of its own: the machine's lists stay untouched."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

from lab import base, cache
from lab.errors import LabError
from lab.processes import leashed, tool

# The CNI plugins are no runtime, but a node that is to run pods over CRI needs them.
PACKAGES = (*base.RUNTIMES, "containernetworking-plugins")
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
# Suites of the lab's own, each the newest of Debian's: of any package wherever it is, and of kernels that are released.
NEWEST = "newest"
NEWEST_KERNEL = "newest-kernel"
# And one for another architecture than that of all others (lab.arm64).
ARM64 = "testing-arm64"
_SUITES = {NEWEST: ("unstable", "experimental"), NEWEST_KERNEL: ("testing", "trixie-backports"), ARM64: ("testing",)}
_FOREIGN = {ARM64: "arm64"}


class Apt:
    """An apt that knows one suite, keeps its lists in a directory of its own, and checks Debian's signatures."""

    def __init__(self, suite: str, home: Path, status: str = "") -> None:
        """`status` is dpkg's of the system that the packages are for; by default nothing is installed there."""
        if not KEYRING.exists():
            raise LabError(f"{KEYRING} is missing, by which apt checks Debian's signature: run lab/install-packages.sh")
        self._suite = suite
        self._config = home / "apt.conf"
        for directory in ("lists/partial", "archives/partial", "empty"):
            (home / directory).mkdir(parents=True)
        (home / "status").write_text(status)
        source = f"deb [signed-by={KEYRING}] {base.mirror_url()}"
        suites = _SUITES.get(suite, (suite,))
        (home / "sources.list").write_text("".join(f"{source} {each} main\n" for each in suites))
        # Else apt takes from experimental only what no other suite has.
        (home / "preferences").write_text("Package: *\nPin: release a=*\nPin-Priority: 500\n")
        own = [
            f'Dir::State "{home}";',
            f'Dir::State::status "{home}/status";',
            f'Dir::Cache "{home}";',
            f'Dir::Etc::sourcelist "{home}/sources.list";',
            f'Dir::Etc::sourceparts "{home}/empty";',
            f'Dir::Etc::preferences "{home}/preferences";',
            f'Dir::Etc::preferencesparts "{home}/empty";',
            'APT::Sandbox::User "root";',
        ]
        if suite in _FOREIGN:
            own += [f'APT::Architecture "{_FOREIGN[suite]}";', f'APT::Architectures "{_FOREIGN[suite]}";']
        self._config.write_text("\n".join([*base.apt_options(), *own]) + "\n")
        self._run("apt-get", "update")

    def download(self, packages: Iterable[str], into: Path) -> None:
        """Download these packages, and not what they depend on."""
        self._run("apt-get", "download", *packages, cwd=into)

    def download_missing(self, packages: Iterable[str], into: Path) -> None:
        """Download these packages and what they need that is not installed."""
        self._run("apt-get", "install", "--download-only", "--yes", *packages)
        for deb in (self._config.parent / "archives").glob("*.deb"):
            shutil.move(deb, into)

    def dependencies(self, package: str) -> list[str]:
        """The names of the packages that a package depends on."""
        shown = self._run("apt-cache", "show", "--no-all-versions", package)
        found = (line.partition(": ")[2] for line in shown.splitlines() if line.startswith("Depends: "))
        return [each.split()[0] for line in found for each in line.split(",")]

    def _run(self, program: str, *words: str, cwd: Path | None = None) -> str:
        done = subprocess.run(
            [*leashed(), tool(program), "--config-file", str(self._config), "--quiet", *words],
            cwd=cwd,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise LabError(f"{program} {' '.join(words)} for Debian {self._suite} failed:\n{done.stderr[-3000:]}")
        return done.stdout


def architecture(suite: str) -> str:
    """Debian's name of the architecture of a suite's packages."""
    return _FOREIGN.get(suite, "amd64")


def download(suite: str, packages: Iterable[str], into: Path) -> None:
    """Download packages of `suite`, verified by apt against Debian's keys."""
    home = into / "apt"
    Apt(suite, home).download(packages, into)
    cache.remove_tree(home)


def fetched(suite: str) -> Path:
    """A directory with the runtimes' packages of `suite`, downloaded on first use."""
    return cache.once(f"debs-{suite}", cache.digest(*PACKAGES), lambda into: download(suite, PACKAGES, into))


def for_a_node(*packages: str) -> Path:
    """A directory with packages of Debian testing and all that a node still needs for them, downloaded on first use."""
    tree = base.tar()

    def build(into: Path) -> None:
        Apt("testing", into / "apt", _status(tree)).download_missing(packages, into)
        cache.remove_tree(into / "apt")

    return cache.once(f"debs-for-{'+'.join(packages)}", cache.digest(*packages, tree.parent.name), build)


def of_a_node(suite: str) -> Path:
    """A directory with those of `suite`'s packages that a node of Debian testing has, downloaded on first use."""
    tree = base.tar()

    def build(into: Path) -> None:
        stanzas = (stanza.splitlines() for stanza in _status(tree).split("\n\n"))
        installed = (lines[0] for lines in stanzas if "Status: install ok installed" in lines)
        download(suite, (line.removeprefix("Package: ") for line in installed), into)

    return cache.once(f"debs-of-a-node-{suite}", cache.digest(suite, tree.parent.name), build)


def laying_over(deb: Path, root: Path) -> list[str]:
    """The command that lays a package's files over those of a tree, and runs nothing of either."""
    # A merged /usr has /lib and /bin as symlinks, which an older package's tree must not replace.
    unpack = 'dpkg-deb --fsys-tarfile "$1" | tar --extract --keep-directory-symlink --directory "$2"'
    return ["sh", "-euc", unpack, "lay-over", str(deb), str(root)]


def _status(tree: Path) -> str:
    """What dpkg has installed in a base tree."""
    read = ["tar", "--extract", "--to-stdout", "--file", str(tree), "./var/lib/dpkg/status"]
    return subprocess.run(read, capture_output=True, text=True, check=True).stdout
