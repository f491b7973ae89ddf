"""Downloads over TLS, from a loopback site with a certificate of its own."""

from __future__ import annotations

import datetime
import ipaddress
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from artifacts.site import Site, Unreachable, Unreadable
from tests.artifacts.common import entry
from tests.artifacts.conftest import Run
from tests.artifacts.loopback import Answer, LoopbackSite


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for 127.0.0.1 with its key, signed by itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "loopback")])
    day = datetime.timedelta(days=1)
    now = datetime.datetime.now(datetime.UTC)
    signed = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - day)
        .not_valid_after(now + day)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    file = tmp_path_factory.mktemp("tls") / "certificate.pem"
    file.write_bytes(
        signed.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return file


@pytest.fixture
def secure(certificate: Path) -> Iterator[LoopbackSite]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with LoopbackSite(context) as opened:
        yield opened


@pytest.fixture
def trusted(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))


def test_a_certificate_of_nobodys(secure: LoopbackSite) -> None:
    secure.put("/a", b"content")
    with pytest.raises(Unreachable, match=r"its certificate is not to be trusted: self.signed"):
        Site(secure.url).text("/a")
    assert secure.requests == []


@pytest.mark.usefixtures("trusted")
def test_a_redirect_away_from_tls(secure: LoopbackSite, site: LoopbackSite) -> None:
    secure.answers["/a"] = Answer(status=302, headers={"Location": f"{site.url}/a"})
    site.put("/a", b"content")
    with pytest.raises(Unreadable, match="it redirects from https to http"):
        Site(secure.url).text("/a")
    assert site.requests == []


@pytest.mark.usefixtures("trusted")
def test_tls_where_plain_http_is(site: LoopbackSite) -> None:
    with pytest.raises(Unreachable, match="no TLS connection"):
        Site(site.url.replace("http:", "https:")).text("/a")


@pytest.mark.usefixtures("trusted")
def test_the_lock_says_whether_there_was_tls(run: Run, secure: LoopbackSite, site: LoopbackSite, lock: Path) -> None:
    secure.containerd("2.3.5")
    site.containerd("2.3.6")
    secure.answers |= site.answers
    run("add", "containerd", "2.3.5", "--lock", lock, "--release-url", secure.url)
    run("add", "containerd", "2.3.6", "--lock", lock, "--release-url", site.url, "--second-url", secure.url)
    assert entry(lock, "containerd", "2.3.5")["verified"] == "checksum file, downloaded twice"
    assert entry(lock, "containerd", "2.3.6")["verified"] == "checksum file, the same on two sites"
