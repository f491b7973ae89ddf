"""A site on the loopback with upstream's paths, which can be told to misbehave and remembers what it was asked."""

from __future__ import annotations

import hashlib
import ssl
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType

from artifacts.lockfile import PROJECT_LOCK
from artifacts.upstream import Release
from userns.releases import Lock

PATTERNS = Lock.parse(PROJECT_LOCK.read_text())
# How long an answer that never comes lasts, unless the site is closed before.
_NEVER = 3600


def release(component: str, version: str) -> Release:
    return Release(component, version, PATTERNS.path(component))


def content(component: str, version: str, arch: str) -> bytes:
    """What an asset holds here."""
    return f"{component} {version} for {arch}\n".encode() * 200


def digests(component: str, version: str) -> dict[str, str]:
    return {
        arch: hashlib.sha256(content(component, version, arch)).hexdigest()
        for arch in release(component, version).assets()
    }


def checksum_lines(component: str, version: str) -> bytes:
    """What `sha256sum *` writes in the directory of the release."""
    named = zip(release(component, version).assets().values(), digests(component, version).values(), strict=True)
    return "".join(f"{digest}  {path.rpartition('/')[2]}\n" for path, digest in named).encode()


@dataclass
class Request:
    path: str
    headers: dict[str, str]


@dataclass
class Answer:
    """What is sent; `cut`: the connection ends after so many bytes; `trickle`: a byte every so many seconds.

    `raw` is what is sent first, in place of a head and a body, and the bytes after that come again and again.
    """

    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    cut: int | None = None
    trickle: float = 0
    never: bool = False
    silent: bool = False
    raw: tuple[bytes, bytes] | None = None


class LoopbackSite:
    """Use as a context manager. `answers` are by path; a list of answers is given out one after the other."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.answers: dict[str, Answer | list[Answer] | Callable[[Request], Answer]] = {}
        self.requests: list[Request] = []
        self.asked = threading.Event()
        self.closing = threading.Event()
        self._lock = threading.Lock()
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.site = self
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self._server.server_port}"
        if tls:
            # The handshake is the handler's: one that fails must not end the server.
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)

    def __enter__(self) -> LoopbackSite:
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def put(self, path: str, body: bytes) -> None:
        self.answers[path] = Answer(body)

    def publish(self, component: str, version: str) -> Release:
        """The assets of a release, without checksum files."""
        published = release(component, version)
        for arch, path in published.assets().items():
            self.put(path, content(component, version, arch))
        return published

    def containerd(self, version: str) -> Release:
        """A release with checksum files as containerd has them."""
        published = self.publish("containerd", version)
        for (arch, path), digest in zip(
            published.assets().items(), digests("containerd", version).values(), strict=True
        ):
            assert arch in path
            self.put(published.list_of(path), f"{digest}  {path.rpartition('/')[2]}\n".encode())
        return published

    def paths(self) -> list[str]:
        return [request.path for request in self.requests]

    def answer(self, request: Request) -> Answer:
        with self._lock:
            self.requests.append(request)
            known = self.answers.get(request.path, Answer(status=404))
            if isinstance(known, list):
                known = known.pop(0) if len(known) > 1 else known[0]
        self.asked.set()
        return known(request) if callable(known) else known


class _Server(ThreadingHTTPServer):
    daemon_threads = False
    site: LoopbackSite

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away, or does not trust the certificate, is what the tests are about."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        site = self.server.site
        answer = site.answer(Request(self.path, {key.lower(): value for key, value in self.headers.items()}))
        with suppress(BrokenPipeError, ConnectionResetError):
            self._send(answer, site)

    def _send(self, answer: Answer, site: LoopbackSite) -> None:
        self.close_connection = True
        if answer.silent:
            site.closing.wait(_NEVER)
            return
        if answer.raw:
            self.wfile.write(answer.raw[0])
            while not site.closing.wait(0.1):
                self.wfile.write(answer.raw[1])
            return
        self.send_response(answer.status)
        for key, value in answer.headers.items():
            self.send_header(key, value)
        if "Content-Length" not in answer.headers:
            self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        body = answer.body if answer.cut is None else answer.body[: answer.cut]
        if answer.trickle:
            for byte in body:
                self.wfile.write(bytes([byte]))
                self.wfile.flush()
                if site.closing.wait(answer.trickle):
                    return
        else:
            self.wfile.write(body)
        if answer.never:
            site.closing.wait(_NEVER)
