"""Debian testing's containerd and runc for nodes of an older Debian: with the libraries that they were linked with.

Upstream's releases are linked statically and need none. Debian's would not start there for want of a newer libc.
"""

from __future__ import annotations

import subprocess
import tarfile
from pathlib import Path

from lab import LabNode, base, cache
from lab.mirror import Mirror, lock_text
from lab.processes import tool
from tests.node.releases import pack, with_digest, write

_LIBRARIES = ("ld-linux-x86-64.so.2", "libc.so.6", "libseccomp.so.2")
_HOME = "/opt/portable"


def build(real: Mirror) -> Mirror:
    """A mirror with such programs, made of the real ones once for all test runs."""
    containerd, runc = real.asset("containerd"), real.asset("runc")

    def fill(into: Path) -> None:
        programs = into / "programs"
        programs.mkdir()
        with tarfile.open(real.root / containerd.path.lstrip("/")) as tar:
            tar.extractall(programs, filter="tar")
        content = {f"bin/{path.name}": _portable(path) for path in sorted((programs / "bin").iterdir())}
        (programs / "runc").write_bytes((real.root / runc.path.lstrip("/")).read_bytes())
        pack(into / "root", containerd, content)
        write(into / "root", runc, _portable(programs / "runc"))
        assets = [with_digest(into / "root", each) for each in (containerd, runc)]
        (into / "root/lock.toml").write_text(lock_text(assets))
        cache.remove_tree(programs)

    root = cache.once("mirror-portable", cache.digest(Path(__file__).read_text(), str(real.root)), fill) / "root"
    return Mirror(root, tuple(with_digest(root, each) for each in (containerd, runc)))


def give_libraries(node: LabNode) -> None:
    """Put the libraries on a node, where nothing else looks for any."""
    home = node.root / _HOME.lstrip("/")
    home.mkdir()
    with tarfile.open(base.tar()) as tar:
        for name in _LIBRARIES:
            member = tar.getmember(f"./usr/lib/x86_64-linux-gnu/{name}")
            content = tar.extractfile(member)  # of what a link leads to, too
            assert content
            (home / name).write_bytes(content.read())
            (home / name).chmod(0o755)


def _portable(program: Path) -> bytes:
    words = ["--set-interpreter", f"{_HOME}/ld-linux-x86-64.so.2", "--force-rpath", "--set-rpath", _HOME]
    subprocess.run([tool("patchelf"), *words, str(program)], check=True)
    return program.read_bytes()
