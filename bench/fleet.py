"""The nodes that are measured, with a Python on them, because Ansible needs one."""

from __future__ import annotations

import subprocess
from pathlib import Path

from lab import Lab, LabError, LabNode, base, cache, debs, mirror
from lab.processes import leashed, tool

SUITE = "testing"
PORT = 8000
ID_RANGE = (65536, 110 * 65536)


def settings(lab: Lab) -> dict[str, object]:
    """The policy of all nodes: everything that the deploy can set up is in it."""
    release = mirror.build(SUITE)
    return {
        "release_url": lab.serve(release, PORT).url,
        "artifact_lock": str(release.lock),
        **{f"{name}_version": release.versions(name)[0] for name in ("containerd", "runc", "crun")},
        "kubelet_id_range": ID_RANGE,
    }


def boot(lab: Lab, count: int) -> list[LabNode]:
    """Real nodes, all booting at once, each with a Python."""
    nodes = [lab.node(f"bench{number:02}", SUITE, wait=False) for number in range(1, count + 1)]
    for node in nodes:
        node.wait()
        give_python(lab, node)
    return nodes


def give_python(lab: Lab, node: LabNode) -> None:
    """Unpack Debian's python3 on a node. pyinfra needs none there; Ansible's modules are Python programs."""
    for deb in sorted(_python_debs().glob("*.deb")):
        # A merged /usr has /lib and /bin as symlinks, which an older package's tree must not replace.
        unpack = f'dpkg-deb --fsys-tarfile "{deb}" | tar --extract --keep-directory-symlink --directory "{node.root}"'
        lab.run(["sh", "-euc", unpack])
    node.ssh("python3 -c 'import json, ssl, hashlib, ctypes'")


def _python_debs() -> Path:
    """python3 and what it depends on beyond the lab's base tree, resolved and verified by apt; fetched once."""
    tree = base.tar(SUITE)

    def fetch(into: Path) -> None:
        home = into / "apt"
        for directory in ("lists/partial", "archives/partial", "empty"):
            (home / directory).mkdir(parents=True)
        status = subprocess.run(
            ["tar", "--extract", "--to-stdout", "--file", str(tree), "./var/lib/dpkg/status"],
            stdout=subprocess.PIPE,
            check=True,
        )
        (home / "status").write_bytes(status.stdout)
        (home / "sources.list").write_text(f"deb [signed-by={debs.KEYRING}] {base.mirror_url()} {SUITE} main\n")
        own = [
            f'Dir::State "{home}";',
            f'Dir::State::status "{home}/status";',
            f'Dir::Cache "{home}";',
            f'Dir::Etc::sourcelist "{home}/sources.list";',
            f'Dir::Etc::sourceparts "{home}/empty";',
            f'Dir::Etc::preferences "{home}/empty/none";',
            f'Dir::Etc::preferencesparts "{home}/empty";',
            'APT::Sandbox::User "root";',
        ]
        (home / "apt.conf").write_text("\n".join([*base.apt_options(), *own]) + "\n")
        for words in (["update"], ["install", "--download-only", "--yes", "python3"]):
            done = subprocess.run(
                [*leashed(), tool("apt-get"), "--config-file", str(home / "apt.conf"), "--quiet", *words],
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode:
                raise LabError(f"apt-get {' '.join(words)} for Debian {SUITE} failed:\n{done.stderr[-3000:]}")
        for deb in (home / "archives").glob("*.deb"):
            deb.rename(into / deb.name)
        cache.remove_tree(home)

    return cache.once("python-debs", cache.digest(str(tree)), fetch)
