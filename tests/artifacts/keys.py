"""Throw-away OpenPGP keys, and signatures with them."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType

from tests.conftest import program

# Keys that have expired by now were made then.
THEN = "20200101T000000"


class Keys:
    """A GnuPG home of its own, with its own agent, which ends with it. Use as a context manager."""

    def __enter__(self) -> Keys:
        for tool in ("gpg", "gpgv", "gpgconf", "gpg-agent"):
            program(tool)
        # Not below pytest's directory: the path of the agent's socket may not be longer than 107 bytes.
        self._home = Path(tempfile.mkdtemp(prefix="keys-"))
        self._start_agent()
        self.good = self._make("good@example.org")
        self.stranger = self._make("stranger@example.org")
        self.revoked = self._make("revoked@example.org")
        self.expired = self._make("expired@example.org", "--faked-system-time", THEN, lifetime="1y")
        self.rings = self._home / "rings"
        self.rings.mkdir()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        subprocess.run(["gpgconf", "--homedir", str(self._home), "--kill", "all"], check=False, capture_output=True)
        self._lifeline.communicate()
        shutil.rmtree(self._home, ignore_errors=True)

    def _start_agent(self) -> None:
        """An agent that ends with `cat`, which ends with us, however we end. One that gpg starts would stay."""
        command = ["gpg-agent", "--homedir", str(self._home), "--quiet", "--daemon", "cat"]
        self._lifeline = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._lifeline.stdin
        assert self._lifeline.stdout
        # What comes back through cat says that the agent listens.
        self._lifeline.stdin.write(b"\n")
        self._lifeline.stdin.flush()
        assert self._lifeline.stdout.readline() == b"\n"

    def ring(self, *owners: str, armoured: bool = True) -> Path:
        """A keyring file, as runc and crun have theirs: a block for each key, with text between."""
        file = self.rings / f"{'-'.join(owners)}-{armoured}.keyring"
        if armoured:
            blocks = [self._gpg("--armor", "--comment", f"github={owner}", "--export", owner) for owner in owners]
            file.write_bytes(b"\n".join(b"pub   ed25519 2026-01-01 [SC]\n      ABC\n\n" + block for block in blocks))
        else:
            file.write_bytes(self._gpg("--export", *owners))
        return file

    def clear_sign(self, text: bytes, *owners: str) -> bytes:
        return self._gpg(*self._as(owners), "--clear-sign", data=text)

    def detach_sign(self, content: bytes, *owners: str) -> bytes:
        return self._gpg(*self._as(owners), "--armor", "--detach-sign", data=content)

    def revoke(self) -> None:
        """From now on the key `revoked` is one that its owner has revoked."""
        file = self._home / "openpgp-revocs.d" / f"{self.revoked}.rev"
        self._gpg("--import", data=file.read_bytes().replace(b":-----BEGIN", b"-----BEGIN"))

    def _as(self, owners: tuple[str, ...]) -> list[str]:
        wanted = [word for owner in owners or ("good@example.org",) for word in ("--local-user", owner)]
        old = ["--faked-system-time", "20200201T000000"] if owners == ("expired@example.org",) else []
        return [*old, *wanted]

    def _make(self, owner: str, *more: str, lifetime: str = "never") -> str:
        self._gpg(*more, "--passphrase", "", "--quick-generate-key", owner, "ed25519", "sign", lifetime)
        listed = self._gpg("--with-colons", "--list-keys", owner).decode()
        return next(line.split(":")[9] for line in listed.splitlines() if line.startswith("fpr"))

    def _gpg(self, *arguments: str, data: bytes = b"") -> bytes:
        command = ["gpg", "--homedir", str(self._home), "--batch", "--quiet", "--no-tty", *arguments]
        done = subprocess.run(command, input=data, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout
