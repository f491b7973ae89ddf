"""What travels to a node on stdin, because it may be secret: the text of a file, and the URL of an asset.

The scripts run here as they do on a node, against directories and a mirror of this machine.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread, Timer
from typing import ClassVar
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.files import script
from tasks.operations import UNPACK
from tests.conftest import program
from tests.deploy.node_trees import link

TOOLS = ("cat", "cp", "grep", "head", "mkdir", "mv", "rm", "rmdir", "sed", "sha256sum", "tar", "wc", "chmod")
PASSWORD = 'hunter2 of"the\\robot$(touch canary)`touch canary`'
QUOTED = quote(PASSWORD, safe="")
ASSET = b"#!/bin/sh\n" * 1000
DIGEST = sha256(ASSET).hexdigest()


def run(
    shell: list[str], name: str, *arguments: str | Path, stdin: str | bytes, path: str = os.environ["PATH"]
) -> subprocess.CompletedProcess[str]:
    """The script as pyinfra runs it. Its login shell is `sh` here."""
    interpreter = shutil.which(shell[0])
    assert interpreter
    parts = UNPACK if name in ("fetch.sh", "receive.sh") else ()
    text = "".join(script(each) for each in (*parts, name))
    done = subprocess.run(
        [interpreter, *shell[1:], "-c", text, name, *map(str, arguments)],
        env={"PATH": path},
        input=stdin.encode() if isinstance(stdin, str) else stdin,
        capture_output=True,
        timeout=60,
        check=False,
    )
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


# --- the text of a file ----------------------------------------------------------------------------------------------


def put(shell: list[str], stage: Path, text: str, behind: str = "\n") -> subprocess.CompletedProcess[str]:
    return run(shell, "put.sh", stage, "text0", str(len(text.encode())), stdin=text + behind)


def test_a_text_arrives_byte_for_byte_in_every_shell(shell: list[str], tmp_path: Path) -> None:
    text = "ünïcode \\n $(touch canary) `touch canary` 'quoted' \"too\"\n\n\ttail without an end"
    stage = tmp_path / "state" / "staged" / "token"
    assert put(shell, stage, text).returncode == 0
    assert (stage / "text0").read_text() == text


@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=300))
def test_any_text_arrives_byte_for_byte(text: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    stage = tmp_path_factory.mktemp("stage")
    assert put(["sh"], stage, text).returncode == 0
    assert (stage / "text0").read_bytes() == text.encode()


def test_a_long_text_arrives_which_no_argument_could_hold(shell: list[str], tmp_path: Path) -> None:
    text = "user:100000:65536\n" * 60_000
    assert put(shell, tmp_path / "stage", text).returncode == 0
    assert (tmp_path / "stage" / "text0").read_text() == text


def test_nobody_else_can_read_it(shell: list[str], tmp_path: Path) -> None:
    """Whatever the umask of the login is."""
    before = os.umask(0)
    try:
        put(shell, tmp_path / "state" / "staged" / "token", "secret")
    finally:
        os.umask(before)
    for path in (tmp_path / "state", *(tmp_path / "state").rglob("*")):
        assert path.stat().st_mode & 0o077 == 0, path


@pytest.mark.parametrize("came", ["", "half of i"])
def test_a_text_that_does_not_come_whole_is_told_and_takes_the_stage_with_it(
    shell: list[str], tmp_path: Path, came: str
) -> None:
    stage = tmp_path / "stage"
    done = run(shell, "put.sh", stage, "text0", "9999", stdin=came)
    assert (done.returncode, stage.exists()) == (1, False)
    assert f"only {len(came)} of 9999 bytes arrived" in done.stderr


def test_what_somebody_else_wrote_is_kept_for_root_alone(shell: list[str], tmp_path: Path) -> None:
    theirs, kept = tmp_path / "config.toml", tmp_path / "replaced" / "config.toml.123"
    theirs.write_bytes(b"by hand\xff\n")
    theirs.chmod(0o644)
    for _ in range(2):
        assert run(shell, "put.sh", tmp_path / "stage", "text0", "1", theirs, kept, stdin="x").returncode == 0
    assert (kept.read_bytes(), theirs.read_bytes()) == (b"by hand\xff\n", b"by hand\xff\n")
    assert (kept.stat().st_mode & 0o777, kept.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert [path.name for path in kept.parent.iterdir()] == [kept.name]


def test_where_it_cannot_be_kept_nothing_is_staged(shell: list[str], tmp_path: Path) -> None:
    stage = tmp_path / "stage"
    done = run(shell, "put.sh", stage, "text0", "1", tmp_path / "gone", tmp_path / "replaced" / "x", stdin="x")
    assert (done.returncode != 0, stage.exists()) == (True, False)


# --- the URL of an asset ---------------------------------------------------------------------------------------------


class Mirror(BaseHTTPRequestHandler):
    """A mirror with a password."""

    seen: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.seen.append(self.path)
        wanted = "Basic " + b64encode(f"robot:{PASSWORD}".encode()).decode()
        if self.path == "/endless":
            self.send_response(200)
            self.end_headers()
            with suppress(OSError):
                while True:
                    self.wfile.write(ASSET)
            return
        if self.path.startswith("/open") or self.headers.get("Authorization") == wanted:
            self.send_response(200)
            self.send_header("Content-Length", str(len(ASSET)))
            self.end_headers()
            self.wfile.write(ASSET)
            return
        self.send_response(401)
        self.send_header("WWW-Authenticate", 'Basic realm="mirror"')
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Not on this test's stderr."""


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[int]:
    """A server of such requests on loopback: its port."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield server.server_port
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def mirror() -> Iterator[str]:
    """Where the mirror listens."""
    Mirror.seen.clear()
    with serving(Mirror) as port:
        yield f"127.0.0.1:{port}"


class Programs:
    """A PATH with one program that downloads, which notes the arguments that it is started with."""

    def __init__(self, directory: Path, download: str) -> None:
        self.directory, self.noted = directory / "bin", directory / "arguments"
        self.hides = download != "plain wget"  # whether it can be given a URL in another way than as an argument
        self.directory.mkdir()
        link(self.directory, TOOLS)
        name = download.removeprefix("plain ")
        real = f"'{program(name)}'" if self.hides else f"'{program('busybox')}' wget"
        body = f"printf '%s\\n' \"$@\" >>'{self.noted}'\nexec {real} \"$@\"\n"
        (self.directory / name).write_text(f"#!{shutil.which('sh')}\n{body}")
        (self.directory / name).chmod(0o755)

    @property
    def arguments(self) -> str:
        return self.noted.read_text()


@pytest.fixture(params=["curl", "wget", "plain wget"])
def programs(request: pytest.FixtureRequest, tmp_path: Path) -> Programs:
    return Programs(tmp_path, request.param)


def fetch(
    programs: Programs, stage: Path, url: str, shown: str, digest: str = DIGEST, shell: tuple[str, ...] = ("sh",)
) -> subprocess.CompletedProcess[str]:
    path = str(programs.directory)
    return run(list(shell), "fetch.sh", stage, shown, digest, "=runc", stdin=f"{url}\n", path=path)


def test_an_asset_of_an_open_mirror_comes_with_every_program(programs: Programs, mirror: str, tmp_path: Path) -> None:
    url = f"http://{mirror}/open/runc.amd64"
    done = fetch(programs, tmp_path / "stage", url, url)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "stage" / "runc").read_bytes() == ASSET
    assert Mirror.seen == ["/open/runc.amd64"]


def test_a_mirrors_password_reaches_the_mirror_and_no_argument(
    programs: Programs, mirror: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = fetch(programs, tmp_path / "stage", f"http://robot:{QUOTED}@{mirror}/runc", f"http://***@{mirror}/runc")
    assert "hunter2" not in done.stderr + done.stdout + programs.arguments
    assert not (tmp_path / "canary").exists()
    if programs.hides:
        assert (done.returncode, (tmp_path / "stage" / "runc").read_bytes()) == (0, ASSET), done.stderr
    else:
        assert done.returncode == 1
        assert "install curl" in done.stderr
        assert Mirror.seen == []


@pytest.mark.parametrize("download", ["curl", "wget"])
def test_nor_is_it_an_argument_of_what_a_shell_has_not_built_in(
    shell: list[str], download: str, mirror: str, tmp_path: Path
) -> None:
    """Some have no printf of their own."""
    programs = Programs(tmp_path, download)
    (programs.directory / "printf").write_text(
        (programs.directory / download).read_text().replace(program(download), program("printf"))
    )
    (programs.directory / "printf").chmod(0o755)
    url = f"http://robot:{QUOTED}@{mirror}/runc"
    done = fetch(programs, tmp_path / "stage", url, "the mirror", shell=tuple(shell))
    assert (done.returncode, (tmp_path / "stage" / "runc").read_bytes()) == (0, ASSET), done.stderr
    assert "hunter2" not in programs.arguments


def test_a_text_goes_to_the_controller_whole_and_as_no_argument(shell: list[str], tmp_path: Path) -> None:
    text = os.urandom(200_000)  # more than one argument may have
    (tmp_path / "config.toml").write_bytes(text)
    done = run(shell, "text.sh", tmp_path / "config.toml", tmp_path / "none", stdin="")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"={b64encode(text).decode()}\n-\n"


def test_a_wrong_password_is_told_without_it(programs: Programs, mirror: str, tmp_path: Path) -> None:
    shown = f"http://***@{mirror}/runc"
    done = fetch(programs, tmp_path / "stage", f"http://robot:hunter2@{mirror}/runc", shown)
    assert (done.returncode, (tmp_path / "stage").exists()) == (1, False)
    assert (f"could not download {shown}" if programs.hides else "install curl") in done.stderr
    assert "hunter2" not in done.stderr + programs.arguments


class Proxy(BaseHTTPRequestHandler):
    """A proxy that asks for a password, and has the asset of a mirror whose name nobody else knows."""

    URL = "http://mirror.example.invalid/runc"
    seen: ClassVar[list[tuple[str, str, bool]]] = []

    def do_CONNECT(self) -> None:
        self._is_theirs()
        self.send_error(502)  # it was asked, and by whom: that is all that there is to see

    def do_GET(self) -> None:
        self.send_response(200 if self._is_theirs() and self.path == self.URL else 407)
        self.send_header("Proxy-Authenticate", 'Basic realm="proxy"')
        self.send_header("Content-Length", str(len(ASSET)))
        self.end_headers()
        self.wfile.write(ASSET)

    def _is_theirs(self) -> bool:
        is_theirs = self.headers.get("Proxy-Authorization") == f"Basic {b64encode(f'ops:{PASSWORD}'.encode()).decode()}"
        self.seen.append((self.command, self.path, is_theirs))
        return is_theirs

    def log_message(self, *_: object) -> None:
        """Not on this test's stderr."""


@pytest.fixture
def proxy() -> Iterator[str]:
    """The URL of the proxy, with its password."""
    Proxy.seen.clear()
    with serving(Proxy) as port:
        yield f"http://ops:{QUOTED}@127.0.0.1:{port}"


# What a node's own environment may say, and what must not count beside a proxy that is asked for.
OTHERS = tuple(f"{name}=http://127.0.0.1:9" for name in ("http_proxy", "https_proxy", "HTTPS_PROXY", "ALL_PROXY"))
ENVIRONMENT = ("env", "no_proxy=*", "NO_PROXY=*", *OTHERS)


def test_a_proxy_is_asked_whatever_the_environment_says_and_its_password_is_no_argument(
    programs: Programs, proxy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shell, asked = (*ENVIRONMENT, program("sh")), f"{Proxy.URL}\n{proxy}"
    done = fetch(programs, tmp_path / "stage", asked, Proxy.URL, shell=shell)
    wrong = fetch(programs, tmp_path / "2", asked.replace("//ops:", "//ops:hunter2"), Proxy.URL, shell=shell)
    assert (done.returncode, (tmp_path / "stage" / "runc").read_bytes()) == (0, ASSET), done.stderr
    assert wrong.returncode == 1
    assert "hunter2" not in done.stderr + done.stdout + wrong.stderr + wrong.stdout + programs.arguments
    assert not (tmp_path / "canary").exists()


def test_so_it_is_for_https(programs: Programs, proxy: str, tmp_path: Path) -> None:
    """Through a tunnel, which busybox cannot ask for: it would send the whole request in the clear."""
    url = Proxy.URL.replace("http:", "https:")
    done = fetch(programs, tmp_path / "stage", f"{url}\n{proxy}", url, shell=(*ENVIRONMENT, program("sh")))
    assert done.returncode == 1
    assert set(Proxy.seen) == ({("CONNECT", "mirror.example.invalid:443", True)} if programs.hides else set())
    assert ("could not download" if programs.hides else "through a proxy: install curl") in done.stderr


@pytest.mark.parametrize("download", ["curl", "wget"])
def test_a_mirror_that_restarts_is_waited_for(download: str, tmp_path: Path) -> None:
    programs = Programs(tmp_path, download)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Mirror, bind_and_activate=False)
    server.server_bind()  # until it listens, connections are refused
    url = f"http://127.0.0.1:{server.server_address[1]}/open/runc.amd64"

    def listen() -> None:
        server.server_activate()
        server.serve_forever()

    Timer(1.5, listen).start()
    try:
        done = fetch(programs, tmp_path / "stage", url, url)
    finally:
        server.shutdown()
        server.server_close()
    assert (done.returncode, (tmp_path / "stage" / "runc").read_bytes()) == (0, ASSET), done.stderr


def test_a_mirror_that_is_dead_fails_within_seconds_to_a_clear_line(programs: Programs, tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/open/runc.amd64"
        begun = time.monotonic()
        done = fetch(programs, tmp_path / "stage", url, url)
    assert (done.returncode, time.monotonic() - begun < 10) == (1, True)
    assert done.stderr.splitlines()[-1] == f"could not download {url}"


@pytest.mark.parametrize("path", ['/open/"quoted"', "/open/back\\slash", "/open/$(touch canary)", "/open/{a,b}[1-2]"])
def test_a_hostile_path_is_a_path(path: str, mirror: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    url = f"http://{mirror}{path.replace(' ', '%20')}"
    done = fetch(Programs(tmp_path, "curl"), tmp_path / "stage", url, url)
    assert (done.returncode, done.stderr) == (0, "")
    assert Mirror.seen == [path.replace(" ", "%20")]
    assert sorted(each.name for each in tmp_path.iterdir()) == ["arguments", "bin", "stage"]


@pytest.mark.parametrize("text", ["2097152", "3600"])
def test_a_mirror_that_never_ends_fills_no_disk_and_holds_no_run_up(
    programs: Programs, mirror: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    """With less than what is allowed on a node: 1 MiB, or a second."""
    less = {"2097152": "2048", "3600": "1"}[text]
    whole = script
    monkeypatch.setattr(sys.modules[__name__], "script", lambda name: whole(name).replace(text, less))
    done = fetch(programs, tmp_path / "stage", f"http://{mirror}/endless", "the mirror")
    assert done.returncode == 1
    assert not (tmp_path / "stage").exists()


def test_what_the_lock_does_not_pin_is_not_taken(shell: list[str], mirror: str, tmp_path: Path) -> None:
    url = f"http://{mirror}/open/runc"
    done = fetch(Programs(tmp_path, "curl"), tmp_path / "stage", url, url, "0" * 64, tuple(shell))
    assert (done.returncode, (tmp_path / "stage").exists()) == (1, False)
    assert f"{url} is not what the lock file pins: its SHA-256 is {DIGEST}" in done.stderr


@pytest.mark.parametrize("when", ["before it begins", "while it runs"])
def test_a_stage_that_another_run_dropped_is_no_asset_that_somebody_changed(
    when: str, shell: list[str], mirror: str, tmp_path: Path
) -> None:
    """Whoever ends a change drops all stages, also while this one is being filled."""
    programs, stage = Programs(tmp_path, "curl"), tmp_path / "staged" / "token"
    real, drop = f"'{program('curl')}' \"$@\"", f"rm -rf '{stage.parent}'"
    steps = (drop, real) if when == "before it begins" else (real, drop)
    (programs.directory / "curl").write_text(f"#!{shutil.which('sh')}\n{steps[0]}\n{steps[1]}\n")
    url = f"http://{mirror}/open/runc"
    done = fetch(programs, stage, url, url, shell=tuple(shell))
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "another run changed this node meanwhile; run again"
    assert "lock file" not in done.stderr
    assert not stage.parent.exists()


def test_a_url_that_does_not_come_is_told(shell: list[str], tmp_path: Path) -> None:
    done = run(shell, "fetch.sh", tmp_path / "stage", "http://mirror.example/runc", DIGEST, "=runc", stdin="")
    assert done.returncode == 1
    assert "the URL did not arrive" in done.stderr


def test_so_it_is_told_where_packages_are_looked_for(shell: list[str], tmp_path: Path) -> None:
    """While apt's lists are brought up to date, another run comes to its end."""
    stage, programs = tmp_path / "staged" / "token", tmp_path / "bin"
    programs.mkdir()
    for name, text in (
        ("apt-get", f"rm -rf '{stage.parent}'; : >'{tmp_path}/updated'"),
        ("apt-cache", f"[ ! -e '{tmp_path}/updated' ] || echo 'containerd | 2.1.9~ds1-1 | http://deb.example'"),
    ):
        (programs / name).write_text(f"#!/bin/sh\n{text}\n")
        (programs / name).chmod(0o755)
    path = f"{programs}:{os.environ['PATH']}"
    done = run(shell, "package.sh", stage, "containerd", "2.1.9", stdin="", path=path)
    assert (done.returncode, done.stderr) == (1, "another run changed this node meanwhile; run again\n")
    assert not stage.parent.exists()
