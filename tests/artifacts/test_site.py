"""Downloads: what is followed, tried again, waited for, and told; and what is never told."""

from __future__ import annotations

import base64
import errno
import hashlib
import io
import os
import socket
import ssl
import urllib.error
import urllib.request
from http.client import HTTPMessage
from pathlib import Path

import pytest

from artifacts.errors import ArtifactsError
from artifacts.site import Absent, Site, Unreachable, Unreadable, _explained, _Redirects
from tests.artifacts.conftest import Run
from tests.artifacts.loopback import Answer, LoopbackSite, Request


def patient(site: LoopbackSite, pauses: list[float] | None = None) -> Site:
    return Site(site.url, pause=(pauses if pauses is not None else []).append)


def impatient(site: LoopbackSite) -> Site:
    return Site(site.url, timeout=0.5, retries=0)


class TestRedirects:
    def test_to_another_host(self, site: LoopbackSite, other_site: LoopbackSite) -> None:
        site.answers["/a"] = Answer(status=302, headers={"Location": f"{other_site.url}/b?token=secret"})
        other_site.put("/b?token=secret", b"content")
        assert patient(site).text("/a") == b"content"

    def test_to_a_path(self, site: LoopbackSite) -> None:
        site.answers["/a"] = Answer(status=301, headers={"Location": "/b"})
        site.put("/b", b"content")
        assert patient(site).text("/a") == b"content"

    def test_in_a_circle(self, site: LoopbackSite) -> None:
        site.answers["/a"] = Answer(status=302, headers={"Location": "/a"})
        with pytest.raises(Unreadable, match="HTTP 302"):
            patient(site).text("/a")
        assert len(site.requests) < 20

    @pytest.mark.parametrize("where", ["file:///etc/passwd", "ftp://127.0.0.1/x", "gopher://x", "http://[::"])
    def test_to_anything_but_http(self, site: LoopbackSite, where: str) -> None:
        site.answers["/a"] = Answer(status=302, headers={"Location": where})
        with pytest.raises(Unreadable, match=r"redirects from|HTTP 302|not a URL"):
            patient(site).text("/a")

    def test_away_from_https(self) -> None:
        asked = urllib.request.Request("https://upstream.example/a")
        with pytest.raises(urllib.error.URLError, match="from https to http"):
            _Redirects("").redirect_request(
                asked, io.BytesIO(), 302, "Found", HTTPMessage(), "http://upstream.example/a"
            )

    def test_a_missing_end_of_a_redirect_is_told_with_the_url_that_was_asked(
        self, site: LoopbackSite, other_site: LoopbackSite
    ) -> None:
        site.answers["/a"] = Answer(status=302, headers={"Location": f"{other_site.url}/b?token=secret"})
        with pytest.raises(Absent) as caught:
            patient(site).text("/a")
        assert str(caught.value).startswith(f"{site.url}/a: there is no such file")
        assert "secret" not in str(caught.value)


class TestPasswords:
    SECRET = "s3cr%40t"

    def with_password(self, site: LoopbackSite) -> Site:
        return Site(site.url.replace("http://", f"http://me:{self.SECRET}@"), retries=0)

    def test_are_sent_and_not_shown(self, site: LoopbackSite) -> None:
        site.put("/a", b"content")
        asked = self.with_password(site)
        assert asked.text("/a") == b"content"
        sent = site.requests[0].headers["authorization"]
        assert base64.b64decode(sent.removeprefix("Basic ")) == b"me:s3cr@t"
        assert asked.url("/a") == f"{site.url}/a"
        with pytest.raises(Absent) as caught:
            asked.text("/missing")
        assert "s3cr" not in str(caught.value)

    def test_go_along_to_the_same_host_and_to_no_other(self, site: LoopbackSite, other_site: LoopbackSite) -> None:
        site.answers["/a"] = Answer(status=302, headers={"Location": "/b"})
        site.answers["/b"] = Answer(status=302, headers={"Location": f"{other_site.url}/c"})
        other_site.put("/c", b"content")
        assert self.with_password(site).text("/a") == b"content"
        assert ["authorization" in request.headers for request in site.requests] == [True, True]
        assert "authorization" not in other_site.requests[0].headers

    def test_in_no_line_of_the_commands(self, run: Run, lock: Path, site: LoopbackSite) -> None:
        site.containerd("2.3.5")
        url = site.url.replace("http://", f"http://me:{self.SECRET}@")
        for arguments in (
            ("add", "containerd", "2.3.5", "--release-url", url),
            ("add", "containerd", "2.3.6", "--release-url", url),
            ("check", url),
            ("check", url, "--json"),
            ("check", "http://me:s3cr%40t@127.0.0.1:1", "--retries", "0"),
            ("check", "http://me:s3cr%40t@[::"),
            ("add", "containerd", "2.3.6", "--release-url", "http://me:s3cr%40t@host:port"),
        ):
            ran = run(*arguments, "--lock", lock)
            assert "s3cr" not in ran.out + ran.err
        assert "s3cr" not in lock.read_text()


class TestFaults:
    def test_a_missing_file_is_asked_for_once(self, site: LoopbackSite) -> None:
        with pytest.raises(Absent, match="HTTP 404 Not Found"):
            patient(site).text("/a")
        assert len(site.requests) == 1

    @pytest.mark.parametrize(
        "fault",
        [
            Answer(status=500),
            Answer(status=503),
            Answer(status=429),
            Answer(b"content", cut=3),
            Answer(b"", headers={"Content-Length": "99"}),
        ],
    )
    def test_what_may_pass_is_tried_again(self, site: LoopbackSite, fault: Answer) -> None:
        site.answers["/a"] = [fault, fault, Answer(b"content")]
        pauses: list[float] = []
        digest = patient(site, pauses).digest("/a")
        assert digest.sha256 == hashlib.sha256(b"content").hexdigest()
        assert pauses == [1, 2]

    def test_but_not_for_ever(self, site: LoopbackSite) -> None:
        site.answers["/a"] = Answer(b"content", cut=3)
        with pytest.raises(Unreadable, match=r"the answer ends after 3 of 7 bytes \(3 tries\)"):
            patient(site).text("/a")
        assert len(site.requests) == 3

    @pytest.mark.parametrize("status", [400, 401, 403, 451])
    def test_a_refusal_is_not_tried_again(self, site: LoopbackSite, status: int) -> None:
        site.answers["/a"] = Answer(status=status)
        with pytest.raises(Unreadable, match=f"HTTP {status}"):
            patient(site).text("/a")
        assert len(site.requests) == 1

    def test_a_download_that_is_tried_again_begins_anew(self, site: LoopbackSite) -> None:
        site.answers["/a"] = [Answer(b"c" * 99, cut=50), Answer(b"content")]
        kept = io.BytesIO()
        assert patient(site).digest("/a", into=kept).size == 7
        assert kept.getvalue() == b"content"

    def test_a_list_without_end(self, site: LoopbackSite) -> None:
        site.put("/a", b"x" * ((1 << 20) + 1))
        with pytest.raises(Unreadable, match="the answer is longer than"):
            patient(site).text("/a")

    @pytest.mark.parametrize(
        "fault",
        [
            Answer(silent=True),
            Answer(b"", headers={"Content-Length": "9"}, never=True),
            Answer(b"x" * 100_000, trickle=0.1),
            # What is read to its end before there is any content.
            Answer(raw=(b"", b"HTTP/1.1 100 Continue\r\n\r\n")),
            Answer(raw=(b"HTTP/1.1 200 OK\r\nX: ", b"a")),
            Answer(raw=(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;", b"a")),
            Answer(raw=(b"HTTP/1.1 302 Found\r\nLocation: /b\r\n\r\n", b"a")),
        ],
    )
    @pytest.mark.timeout(20)
    def test_a_slow_answer_ends(self, site: LoopbackSite, fault: Answer) -> None:
        site.answers["/a"] = fault
        with pytest.raises(Unreachable, match=r"no answer for 0.5 s|too slow"):
            impatient(site).text("/a")

    def test_something_that_is_not_http(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            server.settimeout(0.01)
            with pytest.raises(Unreachable, match="no answer"):
                Site(f"http://127.0.0.1:{server.getsockname()[1]}", timeout=0.2, retries=0).text("/a")

    def test_a_port_where_nobody_listens(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
        with pytest.raises(Unreachable, match=rf"^http://127.0.0.1:{port}/a: Connection refused$"):
            Site(f"http://127.0.0.1:{port}", retries=0).text("/a")

    def test_a_name_that_cannot_be_resolved(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def no_network(*_: object, **__: object) -> object:
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

        monkeypatch.setattr(socket, "getaddrinfo", no_network)
        with pytest.raises(Unreachable, match=r"the name of the host cannot be resolved$"):
            Site("https://upstream.example", retries=0).text("/a")

    def test_a_certificate_that_is_not_to_be_trusted(self) -> None:
        reason = ssl.SSLCertVerificationError(1, "certificate verify failed")
        reason.verify_message = "self-signed certificate"
        with pytest.raises(Unreachable, match="not to be trusted: self-signed"), _explained("https://x/a", 1):
            raise urllib.error.URLError(reason)

    def test_a_full_disk_is_not_taken_for_the_network(self, site: LoopbackSite) -> None:
        site.put("/a", b"content")
        with pytest.raises(ArtifactsError, match="copy cannot be written: No space left on device"):
            Site(site.url).digest("/a", into=_Full())
        assert len(site.requests) == 1


class _Full(io.BytesIO):
    """A file on a disk without space."""

    name = "copy"

    def write(self, _: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class TestProxies:
    def test_come_from_the_environment(self, site: LoopbackSite, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("http_proxy", site.url)
        monkeypatch.setenv("no_proxy", "")
        site.put("http://upstream.example/a", b"content")
        assert Site("http://upstream.example").text("/a") == b"content"

    def test_one_that_does_not_answer_is_named_without_its_password(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
        monkeypatch.setenv("http_proxy", f"http://me:secret@127.0.0.1:{port}")
        monkeypatch.setenv("no_proxy", "")
        with pytest.raises(Unreachable) as caught:
            Site("http://upstream.example", retries=0).text("/a")
        assert f"through the proxy 127.0.0.1:{port}, which http_proxy names" in str(caught.value)
        assert "secret" not in str(caught.value)


def test_caches_are_told_to_look_again(site: LoopbackSite) -> None:
    site.put("/a", b"content")
    patient(site).text("/a", fresh=True)
    assert site.requests[0].headers["cache-control"] == "no-cache"


def test_the_words_of_a_mirror_do_not_reach_the_terminal(run: Run, site: LoopbackSite, lock: Path) -> None:
    def hostile(_: Request) -> Answer:
        return Answer(b"\x1b[2J" + b"0" * 64 + b"  \x1b]0;x\x07runc.amd64\n")

    published = site.containerd("2.3.5")
    site.answers[published.list_of(published.assets()["amd64"])] = hostile
    ran = run("add", "containerd", "2.3.5", "--release-url", site.url, "--lock", lock)
    assert ran.code == 1
    assert "\x1b" not in ran.out + ran.err
