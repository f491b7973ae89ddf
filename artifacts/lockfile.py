"""The lock file on disk: read whole, and replaced whole."""

from __future__ import annotations

import os
import stat
import tempfile
from contextlib import suppress
from pathlib import Path

from artifacts.errors import Unusable
from userns.releases import Lock, LockError

__all__ = ["PROJECT_LOCK", "LockFile", "find"]

ROOT = Path(__file__).resolve().parent.parent
PROJECT_LOCK = ROOT / "artifacts" / "lock.toml"


def find(name: str) -> Path:
    """A relative path is looked up where the operator stands, then beside deploy.py."""
    here = Path.cwd() / name
    # os.path: Path.exists() raises where a directory on the way may not be read.
    return here if os.path.exists(here) else ROOT / name


class LockFile:
    """A lock file: its text as it was read, and what it says."""

    def __init__(self, name: str) -> None:
        """Read it, from where `find` finds it, as the settings do."""
        self.path = find(name)
        self.name = name
        if not os.path.exists(self.path):
            raise Unusable(f"there is no lock file {name}")
        self.text = self._read()
        try:
            self.lock = Lock.parse(self.text)
        except LockError as error:
            raise Unusable(f"the lock file {name} cannot be used: {error}") from error

    def replace(self, text: str) -> None:
        """Put `text` in its place, all or nothing: a reader sees the old file or the new one."""
        # Through a symbolic link, so that the link stays.
        target = self.path.resolve()
        new: Path | None = None
        try:
            status = target.stat()
            if not stat.S_ISREG(status.st_mode):  # a device, which a rename would take away
                raise Unusable(f"the lock file {self.name} is no regular file: nothing was written")
            if self._read() != self.text:
                raise Unusable(f"the lock file {self.name} was changed by somebody else meanwhile: try again")
            descriptor, made = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
            new = Path(made)
            with open(descriptor, "wb") as file:
                file.write(text.encode("utf-8"))
                file.flush()
                os.fsync(file.fileno())
            new.chmod(status.st_mode & 0o7777)
            with suppress(PermissionError):
                os.chown(new, status.st_uid, status.st_gid)
            os.replace(new, target)
            new = None
        except OSError as error:
            raise Unusable(f"{target} could not be written: {error.strerror}. It is as it was") from error
        finally:
            if new:
                new.unlink(missing_ok=True)
        with suppress(OSError):  # the file is whole either way; this makes its name survive a power cut
            directory = os.open(target.parent, os.O_RDONLY)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)

    def _read(self) -> str:
        try:
            # Not read_text(): it would turn every line end into "\n".
            return self.path.read_bytes().decode("utf-8")
        except OSError as error:
            raise Unusable(f"the lock file {self.name} cannot be read: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise Unusable(f"the lock file {self.name} is not UTF-8 text") from error
