"""A loopback site, throw-away keys, a lock file, and the command line."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from artifacts.__main__ import main
from tests.artifacts.keys import Keys
from tests.artifacts.loopback import PATTERNS, LoopbackSite, content, digests, release


class Ran(NamedTuple):
    code: int
    out: str
    err: str


Run = Callable[..., Ran]


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("no_proxy", "*")


@pytest.fixture
def site() -> Iterator[LoopbackSite]:
    with LoopbackSite() as opened:
        yield opened


@pytest.fixture
def other_site() -> Iterator[LoopbackSite]:
    with LoopbackSite() as opened:
        yield opened


@pytest.fixture(scope="session")
def keys() -> Iterator[Keys]:
    with Keys() as made:
        yield made


LOCK = f"""\
# What this operator allows.

[containerd]
path = "{PATTERNS.path("containerd")}"
source = "somewhere"

# the one that runs everywhere
[containerd.sha256."2.2.7"]
amd64 = "{"1" * 64}"  # checked twice
arm64 = "{"2" * 64}"

[containerd.sha256."1.7.34"]
amd64 = "{"3" * 64}"

[runc]
path = "{PATTERNS.path("runc")}"
source = "somewhere"

[runc.sha256."1.3.6"]
amd64 = "{"4" * 64}"

# the end
"""


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    """A lock file with comments, without crun."""
    file = tmp_path / "lock.toml"
    file.write_text(LOCK)
    return file


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Run:
    """The command line, in this process."""

    def command(*arguments: object) -> Ran:
        capfd.readouterr()
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as error:
            code = int(error.code or 0)
        return Ran(code, *capfd.readouterr())

    return command


@pytest.fixture
def add(run: Run, site: LoopbackSite, lock: Path) -> Run:
    """`add` from the loopback site into the lock file, without waiting."""
    return lambda *arguments: run("add", *arguments, "--lock", lock, "--release-url", site.url, "--retries", 0)


# What a whole mirror and a whole folder have.
VERSIONS = (("containerd", "2.3.5"), ("containerd", "2.2.8"), ("runc", "1.4.4"))


def whole_lock(file: Path, more: str = "") -> Path:
    """A lock file with all of VERSIONS, and `more` lines for each of them."""
    text = ""
    for component in ("containerd", "runc"):
        text += f'[{component}]\npath = "{PATTERNS.path(component)}"\nsource = "a test"\n'
        for _, version in (each for each in VERSIONS if each[0] == component):
            text += f'[{component}.sha256."{version}"]\n{more}'
            text += "".join(f'{arch} = "{digest}"\n' for arch, digest in digests(component, version).items())
    file.write_text(text)
    return file


@pytest.fixture
def mirror(site: LoopbackSite) -> LoopbackSite:
    for component, version in VERSIONS:
        site.publish(component, version)
    return site


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "mirror"
    for component, version in VERSIONS:
        for arch, path in release(component, version).assets().items():
            file = root / path.lstrip("/")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content(component, version, arch))
    return root
