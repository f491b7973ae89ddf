"""OpenPGP signatures, checked by gpgv against the keyrings that the operator names and the fingerprints pinned here.

A keyring may hold more keys than upstream's signers, and a signature that gpgv finds good may be anybody's of them:
only the fingerprint of the primary key decides. One file, one signature: what is signed twice, by a pinned key and
by another, is not told apart from what a stranger added to.
"""

from __future__ import annotations

import base64
import binascii
import re
import shutil
import subprocess
import tempfile
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from artifacts.errors import Refused, Unusable

__all__ = ["Signature", "Verifier"]

_BLOCK = re.compile(
    rb"-----BEGIN PGP (?P<kind>[A-Z ]+)-----[ \t\r]*\n(?P<body>.*?)\n-----END PGP (?P=kind)-----", re.DOTALL
)
# The lines of a clear-signed text that start with dashes: signed lines that do are escaped ("- -----").
_FRAME = [b"-----BEGIN PGP SIGNED MESSAGE-----", b"-----BEGIN PGP SIGNATURE-----", b"-----END PGP SIGNATURE-----"]
# Far beyond what gpgv takes for any of these files on the slowest machine.
_PATIENCE = 300


@dataclass(frozen=True, slots=True, order=True)
class Signature:
    """A good signature by a pinned key."""

    day: str
    fingerprint: str

    def __str__(self) -> str:
        return f"signature by {self.fingerprint} of {self.day}"


class Verifier:
    """Checks signatures with these keyrings; use as a context manager, which removes the copies that gpgv reads."""

    def __init__(self, keyrings: Sequence[Path], *, accept_expired: bool = False) -> None:
        self._keys = [(path, _packets(path)) for path in keyrings]
        self._accept_expired = accept_expired
        self._names = ", ".join(map(str, keyrings))

    def __enter__(self) -> Verifier:
        self._home = tempfile.TemporaryDirectory(prefix="userns-node-gpgv-")
        home = Path(self._home.name)
        for number, (_, packets) in enumerate(self._keys):
            (home / f"{number}.gpg").write_bytes(packets)
        return self

    def __exit__(self, *_: object) -> None:
        self._home.cleanup()

    def scratch(self, name: str) -> Path:
        """A private file of this verifier's."""
        return Path(self._home.name) / name

    @property
    def has_keys(self) -> bool:
        """Whether a keyring was named at all."""
        return bool(self._keys)

    def clear_signed(self, signed: bytes, signers: Collection[str], where: str) -> tuple[str, Signature]:
        """What was signed, and nothing but that, and by whom."""
        lines = [line.rstrip() for line in signed.strip().split(b"\n")]
        framed = [line for line in lines if line.startswith(b"-----")]
        if framed != _FRAME or lines[0] != _FRAME[0] or lines[-1] != _FRAME[2]:
            raise Refused(f"{where} is not clear-signed: upstream signs this file, so it is not upstream's")
        message, text = self.scratch("message"), self.scratch("text")
        message.write_bytes(signed)
        text.unlink(missing_ok=True)
        signature = self._run(["--output", str(text), str(message)], signers, where)
        try:
            return text.read_text("utf-8"), signature
        except (OSError, UnicodeDecodeError) as error:
            raise Refused(f"{where}: what is signed there is not text") from error

    def detached(self, signature: bytes, data: Path, signers: Collection[str], where: str) -> Signature:
        """Who signed `data`."""
        file = self.scratch("signature")
        file.write_bytes(signature)
        return self._run([str(file), str(data)], signers, where)

    def _run(self, arguments: list[str], signers: Collection[str], where: str) -> Signature:
        gpgv = shutil.which("gpgv")
        if gpgv is None:
            raise Unusable(
                f"{where} is signed, and gpgv, which checks signatures, is not installed: "
                "install it (Debian and Fedora: gpgv or gnupg2)"
            )
        home = self._home.name
        command = [gpgv, "--homedir", home, "--status-fd", "1", "--weak-digest", "SHA1"]
        for number in range(len(self._keys)):
            command += ["--keyring", f"{home}/{number}.gpg"]
        try:
            done = subprocess.run([*command, *arguments], capture_output=True, timeout=_PATIENCE, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise Unusable(f"{where}: gpgv could not be run: {error}") from error
        status = [line.split()[1:] for line in done.stdout.decode("utf-8", "replace").splitlines()]
        return self._judge([words for words in status if words], done.returncode, signers, where)

    def _judge(self, status: list[list[str]], code: int, signers: Collection[str], where: str) -> Signature:
        """The one good signature in gpgv's status lines (GnuPG doc/DETAILS), or the reason why there is none."""
        said = {words[0]: words[1:] for words in status}
        valid = [words for words in status if words[0] == "VALIDSIG" and len(words) > 10]
        if "BADSIG" in said:
            raise Refused(f"{where}: the signature is BAD: the file is not what was signed")
        if "NO_PUBKEY" in said:
            key = said["ERRSIG"][-1] if len(said.get("ERRSIG", ())) > 6 else said["NO_PUBKEY"][0]
            raise Refused(f"{where} is signed by {key}, a key that is not in {self._names}")
        if "REVKEYSIG" in said:
            raise Refused(f"{where} is signed by a key that its owner has revoked")
        if "EXPSIG" in said:
            raise Refused(f"{where}: the signature has expired")
        if "EXPKEYSIG" in said and not self._accept_expired:
            raise Refused(
                f"{where} is signed by {valid[0][1] if valid else 'a key'}, which has expired by now. Fetch upstream's "
                "newest keyring; for an old release whose key was retired, say --accept-expired-keys"
            )
        good = [words[0] for words in status if words[0] in {"GOODSIG", "EXPKEYSIG"}]
        if code != 0 or len(valid) != 1 or len(good) != 1 or len([w for w in status if w[0] == "NEWSIG"]) != 1:
            raise Refused(f"{where}: it does not have one good signature")
        fingerprint, day = valid[0][10], valid[0][2]
        if fingerprint not in signers:
            raise Refused(
                f"{where} is signed by {fingerprint}, who is no signer known here. If upstream has a new one, check "
                f"that with care, and name the key with --signer {fingerprint}"
            )
        return Signature(day, fingerprint)


def _packets(path: Path) -> bytes:
    """The public keys in a keyring file, in the binary form that every gpgv reads.

    runc and crun publish several armoured blocks with text in between, of which gpgv reads none.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise Unusable(f"the keyring {path} cannot be read: {error.strerror}") from error
    blocks = list(_BLOCK.finditer(content))
    if any(block["kind"] != b"PUBLIC KEY BLOCK" for block in blocks):
        raise Unusable(f"the keyring {path} holds something else than public keys")
    if not blocks:
        # A binary packet's first bit is set; GnuPG's keybox names itself.
        if content[:1] >= b"\x80" or content[8:12] == b"KBXf":
            return content
        raise Unusable(f"the keyring {path} holds no OpenPGP public key")
    packets = b""
    for block in blocks:
        try:
            packets += _unarmoured(block["body"])
        except binascii.Error as error:
            raise Unusable(f"the keyring {path} is damaged: a key in it is not base64") from error
    return packets


def _unarmoured(body: bytes) -> bytes:
    """RFC 9580, 6.2: headers, an empty line, base64, and a checksum line, which repeats what gpgv checks better."""
    lines = [line.strip() for line in body.split(b"\n")]
    start = lines.index(b"") + 1 if b"" in lines else 0
    return base64.b64decode(b"".join(line for line in lines[start:] if not line.startswith(b"=")), validate=True)
