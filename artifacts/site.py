"""Downloads from upstream or from a mirror that keeps its paths.

urllib does what is needed here: proxies from the environment, redirects, TLS. Added are what it lets through: a
redirect away from https, a password that goes along to another host, an answer that ends early, and one that never
does because a byte comes every now and then.
"""

from __future__ import annotations

import base64
import hashlib
import http.client
import socket
import ssl
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import IO, Any, TypeVar
from urllib.parse import unquote, urlsplit, urlunsplit

from artifacts.digest import Digest
from artifacts.errors import ArtifactsError, Unusable

__all__ = ["Absent", "Digest", "Site", "Unreachable", "Unreadable", "keep"]

_CHUNK = 1 << 16
# The slowest answer that is worth waiting for, in bytes for each `timeout`.
_SLOWEST = 1 << 14
_LONGEST_LIST = 1 << 20
# containerd's largest asset has some 100 MB.
_LARGEST_ASSET = 1 << 30
T = TypeVar("T")

_TRANSIENT = {408, 425, 429, 500, 502, 503, 504}


class Absent(ArtifactsError):
    """The site answers, and has no such file."""

    code = 1


class Unreadable(ArtifactsError):
    """The site answers, and does not give the file."""


class Unreachable(Unusable):
    """The site does not answer: asking it for more is no use."""


class Site:
    """A base URL, and how patiently it is asked. Several threads may use one site."""

    def __init__(
        self, base: str, *, timeout: float = 30, retries: int = 2, pause: Callable[[float], None] = time.sleep
    ) -> None:
        parts = urlsplit(base)
        host = parts.netloc.rpartition("@")[2]
        # Without the user and the password: this is what messages and the lock file get to see.
        self.base = urlunsplit((parts.scheme, host, parts.path, "", "")).rstrip("/")
        self.private = parts.scheme == "https"
        self._authorization = ""
        if "@" in parts.netloc:
            pair = f"{unquote(parts.username or '')}:{unquote(parts.password or '')}"
            self._authorization = "Basic " + base64.b64encode(pair.encode()).decode("ascii")
        self._timeout = timeout
        self._retries = retries
        self._pause = pause

    def url(self, path: str) -> str:
        """The URL of a path, as it may be shown."""
        return self.base + path

    def text(self, path: str, *, fresh: bool = False) -> bytes:
        """A small file, whole. `fresh` asks caches on the way to look again."""
        return self._again(path, lambda: b"".join(self._chunks(path, _LONGEST_LIST, fresh)))

    def digest(self, path: str, *, into: IO[bytes] | None = None, seen: Callable[[int], None] | None = None) -> Digest:
        """The SHA-256 of a file of any size, read as it comes, and kept in `into` where that is given."""

        def read() -> Digest:
            if into:
                into.seek(0)
                into.truncate()
            sha256, size = hashlib.sha256(), 0
            for chunk in self._chunks(path, _LARGEST_ASSET, fresh=False):
                sha256.update(chunk)
                size += len(chunk)
                if into:
                    keep(chunk, into)
                if seen:
                    seen(len(chunk))
            if into:
                keep(b"", into)
            return Digest(sha256.hexdigest(), size)

        return self._again(path, read)

    def _again(self, path: str, attempt: Callable[[], T]) -> T:
        """What `attempt` gives, tried again where another try may help."""
        for number in range(self._retries + 1):
            try:
                with _explained(self.url(path), self._timeout):
                    return attempt()
            except _Transient as error:
                if number == self._retries:
                    tries = f" ({number + 1} tries)" if number else ""
                    raise error.final(f"{self.url(path)}: {error}{tries}") from error
                self._pause(2**number)
        raise AssertionError("every try ends in an answer or an error")

    def _chunks(self, path: str, most: int, fresh: bool) -> Iterator[bytes]:
        request = urllib.request.Request(self.url(path), headers={"User-Agent": "userns-node"})
        if fresh:
            request.add_header("Cache-Control", "no-cache")
        if self._authorization:
            request.add_unredirected_header("Authorization", self._authorization)
        watch = _Watch(self._timeout)
        opener = urllib.request.build_opener(_Redirects(self._authorization), _Watched(watch))
        with watch, opener.open(request, timeout=self._timeout) as answer:
            announced = answer.headers.get("Content-Length", "")
            while chunk := answer.read1(_CHUNK):
                watch.got += len(chunk)
                if watch.got > most:
                    raise Unreadable(f"{self.url(path)}: the answer is longer than {most} bytes: that is no such file")
                yield chunk
            if announced.isdecimal() and watch.got < int(announced):
                raise _Transient(f"the answer ends after {watch.got} of {announced} bytes", Unreadable)


def keep(chunk: bytes, into: IO[bytes]) -> None:
    """Write a chunk, and what is still in the buffer at the end, where `chunk` is empty."""
    try:
        into.write(chunk) if chunk else into.flush()
    except OSError as error:  # the disk is not the network
        raise Unusable(f"{into.name} cannot be written: {error.strerror}") from error


class _Transient(Exception):
    """Another try may help; `final` is what it comes to where none does."""

    def __init__(self, why: str, final: type[ArtifactsError]) -> None:
        self.final = final
        super().__init__(why)


class _Watch:
    """Cuts a connection that brings less than the slowest answer has.

    From a thread of its own: http.client reads heads, 100 Continue and the lines between chunks to their end by itself,
    and a byte every now and then keeps it there for ever.
    """

    def __init__(self, timeout: float) -> None:
        self.got = 0
        self._timeout = timeout
        self._over = threading.Event()
        self._slow: int | None = None

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        self._over.set()
        if self._slow is None or kind is GeneratorExit:
            return
        # What http.client makes of a connection that was cut may look like any answer, or like an error of any kind.
        if not self._slow:
            raise TimeoutError from error
        raise _Transient(f"too slow: {self._slow} bytes in {self._timeout:g} s", Unreachable) from error

    def begin(self, connected: socket.socket) -> None:
        """This connection is the one that is waited for; after a redirect it is another."""
        self._over.set()
        self._over = threading.Event()
        # A descriptor of our own: TLS takes the other one over.
        threading.Thread(target=self._look, args=(connected.dup(), self._over), daemon=True).start()

    def _look(self, connected: socket.socket, over: threading.Event) -> None:
        with connected:
            before = self.got
            while not over.wait(self._timeout):
                if self.got - before < _SLOWEST:
                    self._slow = self.got - before
                    with suppress(OSError):
                        connected.shutdown(socket.SHUT_RDWR)
                    return
                before = self.got


class _Connection(http.client.HTTPConnection):
    watch: _Watch

    def connect(self) -> None:
        """Watched from here on, which for TLS is before the handshake."""
        super().connect()
        self.watch.begin(self.sock)


class _SecureConnection(http.client.HTTPSConnection, _Connection):
    """Its first base connects by the second."""


class _Watched(urllib.request.HTTPSHandler, urllib.request.HTTPHandler):
    """Connections that are watched."""

    def __init__(self, watch: _Watch) -> None:
        super().__init__()
        self._watch = watch

    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(self._made(_Connection), req)

    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(self._made(_SecureConnection), req)

    def _made(self, kind: type[_Connection]) -> Callable[..., _Connection]:
        def make(host: str, **how: Any) -> _Connection:
            connection = kind(host, **how)
            connection.watch = self._watch
            return connection

        return make


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Redirects that stay on the safe side, as a release asset has one to another host."""

    def __init__(self, authorization: str) -> None:
        self._authorization = authorization

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        """The request that follows, or an error where it would leave https, or http altogether."""
        old, new = urlsplit(req.full_url), urlsplit(newurl)
        if new.scheme not in {"http", "https"} or (old.scheme, new.scheme) == ("https", "http"):
            raise urllib.error.URLError(f"it redirects from {old.scheme} to {new.scheme or 'nowhere'}")
        following = super().redirect_request(req, fp, code, msg, headers, newurl)
        if following and self._authorization and (old.scheme, old.netloc) == (new.scheme, new.netloc):
            following.add_unredirected_header("Authorization", self._authorization)
        return following


@contextmanager
def _explained(url: str, timeout: float) -> Iterator[None]:
    """Turns what a download can raise into one sentence that names the URL."""
    try:
        yield
    except urllib.error.HTTPError as error:
        error.close()
        meaning = f"HTTP {error.code} {http.client.responses.get(error.code, '')}".rstrip()
        if error.code in {404, 410}:
            raise Absent(f"{url}: there is no such file ({meaning})") from error
        if error.code in _TRANSIENT:
            raise _Transient(meaning, Unreadable) from error
        raise Unreadable(f"{url}: {meaning}") from error
    except urllib.error.URLError as error:
        _raise_unreachable(url, timeout, error.reason, error)
    except (OSError, http.client.HTTPException) as error:
        _raise_unreachable(url, timeout, error, error)
    except ValueError as error:
        raise Unreadable(f"{url}: this is, or leads to, something that is not a URL") from error


def _raise_unreachable(url: str, timeout: float, reason: Any, error: Exception) -> None:
    if isinstance(reason, ssl.SSLCertVerificationError):
        raise Unreachable(f"{url}: its certificate is not to be trusted: {reason.verify_message}") from error
    if isinstance(reason, ssl.SSLError):
        raise Unreachable(f"{url}: no TLS connection: {reason.reason or reason}") from error
    if isinstance(reason, str):  # ours, or one of urllib's about the URL
        raise Unreadable(f"{url}: {reason}") from error
    proxy = _proxy(url)
    if isinstance(reason, socket.gaierror):
        why = "the name of the host cannot be resolved"
    elif isinstance(reason, TimeoutError):
        why = f"no answer for {timeout:g} s"
    elif isinstance(reason, (http.client.IncompleteRead, http.client.RemoteDisconnected)):
        why = "the connection was cut"
    elif isinstance(reason, http.client.HTTPException):
        why = "that is not HTTP"
    else:
        why = reason.strerror or str(reason) or type(reason).__name__
    raise _Transient(why + proxy, Unreachable) from error


def _proxy(url: str) -> str:
    """A word on the proxy that is in between, which may be the one that does not answer. It may have a password."""
    parts = urlsplit(url)
    proxy = urllib.request.getproxies().get(parts.scheme)
    if not proxy or urllib.request.proxy_bypass(parts.hostname or ""):
        return ""
    address = urlsplit(proxy if "//" in proxy else f"//{proxy}").netloc.rpartition("@")[2]
    return f" (through the proxy {address}, which {parts.scheme}_proxy names)"
