"""A repository that is signed with real keys, and a machine that pulls from it; only Python there is a stand-in."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
SCRIPT = ROOT / "examples/pull/userns-node-pull"
TAG = "refs/tags/production"
BRANCH = "refs/heads/main"
MEBIBYTE = 1024 * 1024

# The stand-in for python3: a virtual environment whose pyinfra writes down which version ran, and ends as it is told.
PYTHON = r"""#!/bin/sh
case $* in
-VV) echo "Python 3.13.0 (stand-in)" ;;
--version) echo "Python $(cat "$PLACE/python-version" 2>/dev/null || echo 3.13.0)" ;;
"-c import ensurepip, venv") exit "$(cat "$PLACE/venv-code" 2>/dev/null || echo 0)" ;;
"-m venv "*)
    echo "venv" >>"$PLACE/made"
    mkdir -p "$3/bin"
    cat >"$3/bin/python" <<'PIP'
#!/bin/sh
echo "$*" >>"$PLACE/pip"
exit "$(cat "$PLACE/pip-code" 2>/dev/null || echo 0)"
PIP
    cat >"$3/bin/pyinfra" <<'PYINFRA'
#!/bin/sh
umask >"$PLACE/umask"
echo "$(cat version) $*" >>"$PLACE/ran"
[ ! -e "$PLACE/hang" ] || { : >"$PLACE/hangs" && sleep 60; }
exit "$(cat "$PLACE/pyinfra-code" 2>/dev/null || echo 0)"
PYINFRA
    chmod 755 "$3/bin/python" "$3/bin/pyinfra"
    ;;
*) exit 9 ;;
esac
"""


def make_key(path: Path) -> Path:
    """A new SSH key, without a passphrase."""
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", path.name, "-f", str(path)]
    subprocess.run(command, check=True)
    return path


@dataclass
class Repository:
    """What the nodes fetch from: a work tree with a branch and tags."""

    home: Path
    key: Path
    versions: int = 0

    def git(self, *words: str, key: Path | None = None, input: str | None = None) -> str:
        """One git command, by an author who signs with `key` where the command signs."""
        options = ["-c", "user.name=R. Lease", "-c", "user.email=release@example.internal", "-c", "gpg.format=ssh"]
        options += [
            "-c",
            f"user.signingkey={key or self.key}",
            "-c",
            "init.defaultBranch=main",
            "-c",
            "core.fsync=none",
        ]
        command = ["git", "-C", str(self.home), *options, *words]
        environment = os.environ | {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1"}
        done = subprocess.run(command, env=environment, input=input, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    def create(self) -> None:
        """An empty one."""
        self.home.mkdir()
        self.git("init", "--quiet")

    def commit(self, *, sign: bool = True, key: Path | None = None, packages: str = "pyinfra") -> str:
        """One more commit on the branch; its name. `version` in it counts up."""
        self.versions += 1
        for path, text in {"version": str(self.versions), "deploy.py": "", "requirements/run.txt": packages}.items():
            (self.home / path).parent.mkdir(exist_ok=True)
            (self.home / path).write_text(f"{text}\n")
        self.git("add", "--all")
        self.git("commit", "--quiet", "--gpg-sign" if sign else "--no-gpg-sign", "--message", "more", key=key)
        return self.git("rev-parse", "HEAD")

    def tag(self, commit: str = "HEAD", name: str = "production", key: Path | None = None) -> str:
        """The signed tag, moved to a commit; the commit."""
        self.git("tag", "--force", "--sign", "--message", "for the nodes", name, commit, key=key)
        return self.git("rev-parse", f"{name}^{{commit}}")

    def release(self, **how: Any) -> str:
        """A signed commit with the signed tag on it."""
        self.commit(**how)
        return self.tag()


@dataclass
class Node:
    """The machine that pulls. `bin` comes first in its PATH."""

    home: Path
    repository: Repository
    settings: dict[str, str] = field(default_factory=dict)

    def create(self) -> None:
        """With the repository's key pinned."""
        (self.home / "bin").mkdir(parents=True)
        (self.home / "bin/python3").write_text(PYTHON)
        (self.home / "bin/python3").chmod(0o755)
        self.pin(self.repository.key)
        self.settings = {
            "PULL_REPOSITORY": self.repository.home.as_uri(),
            "PULL_REF": TAG,
            "PULL_SIGNERS": str(self.home / "allowed_signers"),
            "PULL_STATE": str(self.state),
        } | self.settings

    def pin(self, key: Path, options: str = 'namespaces="git"') -> None:
        """The one key that is trusted."""
        public = key.with_suffix(".pub").read_text()
        (self.home / "allowed_signers").write_text(f"release@example.internal {options} {public}")

    @property
    def state(self) -> Path:
        return self.home / "state"

    @property
    def ran(self) -> list[str]:
        """The versions whose deploy was run, in order."""
        path = self.home / "ran"
        return [line.split()[0] for line in path.read_text().splitlines()] if path.exists() else []

    @property
    def status(self) -> dict[str, Any]:
        """The status file, which has to be JSON whenever it is there."""
        status: dict[str, Any] = json.loads((self.state / "status.json").read_text())
        return status

    def command(self, **settings: str) -> tuple[list[str], dict[str, str]]:
        """How it is run: command and environment."""
        conf = self.home / "pull.conf"
        conf.write_text("".join(f"{name}='{value}'\n" for name, value in (self.settings | settings).items()))
        path = f"{self.home / 'bin'}:{os.environ['PATH']}"
        return ["sh", str(SCRIPT), str(conf)], os.environ | {"PATH": path, "PLACE": str(self.home)}

    def pull(self, **settings: str) -> subprocess.CompletedProcess[str]:
        """One run."""
        command, environment = self.command(**settings)
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)


def make_node(home: Path) -> Node:
    """A machine, and the repository that it pulls from, without a release."""
    repository = Repository(home / "repository", make_key(home / "release"))
    repository.create()
    made = Node(home / "node", repository)
    made.create()
    return made
