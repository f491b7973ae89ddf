"""The steps of a change on a node: the commands that activate.sh runs, counted, and held at a chosen one.

A program of the same name stands before each real one in the PATH of the script, which has no idea of it. Counted is
what changes something or waits for something: a cut before a command that only reads leaves on the disk what a cut
before the next one that writes leaves.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

PROGRAMS = (
    *("cat", "chmod", "chown", "cp", "find", "flock", "ln", "mkdir", "mv", "rm", "rmdir", "sha256sum", "sort", "sync"),
    *("systemctl", "timeout", "useradd", "userdel"),
)
# In a home that no deploy touches, and that a power cut keeps.
HOME = "root/faults"
PLACE = "usr/local/sbin"  # the first directory in the PATH of the script

# The commands of the unit of a change alone. `healthy` looks as often as it has to, so what it asks is not counted.
SHIM = """#!/bin/sh
ours=no
while read -r line; do
    case $line in *userns-node-activate-*) ours=yes ;; esac
done </proc/self/cgroup
case "$ours ${0##*/} $* " in no\\ * | *\\ is-active\\ * | *\\ plugins\\ ls\\ *) exec @REAL@ "$@" ;; esac
here=/@HOME@ n=0
[ ! -e $here/last ] || read -r n <$here/last
while n=$((n + 1)); do
    (set -C && printf '%s\\n' "${0##*/} $*" >$here/steps/$n) 2>/dev/null && break
done
echo $n >$here/last
if [ -e $here/at ] && read -r at <$here/at && [ "$at" = $n ]; then
    : >$here/held
    until [ -e $here/released ]; do /usr/bin/sleep 0.02; done
    [ ! -e $here/fails ] || { echo "${0##*/}: made to fail" >&2; exit 1; }
fi
exec @REAL@ "$@"
"""
STAGE = re.compile(r"\b[0-9a-f]{16}\b")


@dataclass(frozen=True)
class Steps:
    """What is seen of a change through the shims. `root` gives the node's file system: after a boot another one."""

    root: Callable[[], Path]

    @contextmanager
    def watched(self, at: int | None = None) -> Iterator[None]:
        """Count the steps of the change that is made inside, and hold it before the step `at`."""
        home = self.root() / HOME
        shutil.rmtree(home, ignore_errors=True)
        (home / "steps").mkdir(parents=True)
        if at is not None:
            (home / "at").write_text(f"{at}\n")
        for name in PROGRAMS:
            real = next(f"/usr/{place}/{name}" for place in ("bin", "sbin") if self._has(f"usr/{place}/{name}"))
            shim = self.root() / PLACE / name
            shim.write_text(SHIM.replace("@REAL@", real).replace("@HOME@", HOME))
            shim.chmod(0o755)
        try:
            yield
        finally:
            self.release()
            for name in PROGRAMS:
                (self.root() / PLACE / name).unlink(missing_ok=True)

    def _has(self, path: str) -> bool:
        return os.path.lexists(self.root() / path)

    def release(self, *, fails: bool = False) -> None:
        """Let it go on; with `fails`, the command at which it was held fails instead of being run."""
        if fails:
            (self.root() / HOME / "fails").touch()
        (self.root() / HOME / "released").touch()

    def is_held(self) -> bool:
        """Whether the change stands at the step now."""
        return self._has(f"{HOME}/held")

    def wait(self, ended: Callable[[], bool], seconds: float = 1800) -> bool:
        """Wait until the change stands at its step; false where it came to its end before."""
        end = time.monotonic() + seconds
        while not self.is_held():
            if ended() and not self.is_held():
                return False
            assert time.monotonic() < end, f"the change did not come to its step within {seconds:.0f} s"
            time.sleep(0.02)
        return True

    def seen(self) -> list[str]:
        """The commands so far, in order, without the name of the stage, which is another one each time."""
        files = sorted((self.root() / HOME / "steps").iterdir(), key=lambda path: int(path.name))
        return [STAGE.sub("STAGE", file.read_text().rstrip("\n")) for file in files]
