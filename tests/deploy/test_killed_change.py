"""A change that is killed, and what comes after it: the whole script of the change-over among played programs.

A real node's is in tests/node/test_interrupted.py. Here a kill comes between any two commands, and a file system fails.
"""

from __future__ import annotations

import re
import subprocess
from base64 import b64encode
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import pytest

from tasks.files import script
from tasks.operations import activation

PLACES = ("/var/lib/userns-node", "/etc/systemd/system", "/etc/containerd", "/usr/local", "/run")
PLAYED = {
    "ctr": """
echo 'io.containerd.snapshotter.v1 overlayfs - ok'
echo 'io.containerd.cri.v1 runtime - ok'
echo 'io.containerd.grpc.v1 cri - ok'""",
    "systemctl": """
case " $* " in
*" is-active containerd"*) echo active ;;
*" restart containerd"*) [ ! -e "$here/breaks" ] || { mv "$here/breaks" "$here/broken" && exit 1; } ;;
esac""",
    "systemd-run": """
while [ "$1" != /bin/sh ]; do
    case $1 in --property=OnFailure=*) undo=$here/run/systemd/system/${1##*=} ;; esac
    shift
done
"$@" >/dev/null || $(sed -n 's/^ExecStart=//p' "$undo") >/dev/null""",
    "chown": "",
    "mv": """
[ ! -e "$here/broken" ] || case "$*" in *"$here/usr/local/containerd") exit 1 ;; esac
/bin/mv "$@" || exit""",
    # Each step is on the disk before the next one: it is called between any two of them.
    "sync": """
[ ! -e "$here/kill-after" ] || [ ! -e "$(cat "$here/kill-after")" ] || {
    rm "$here/kill-after"
    kill -s KILL $PPID
}""",
}
CONTAINERD = '#!/bin/sh\n# {0}\n! grep -q refused "$2" 2>/dev/null || {{ echo bad config >&2; exit 1; }}\n'


@dataclass(frozen=True)
class Node:
    """A directory that the scripts take for a node, which runs an older containerd."""

    root: Path

    @property
    def state(self) -> Path:
        return self.root / "var/lib/userns-node"

    @property
    def mark(self) -> Path:
        return self.state / "activation"

    def here(self, text: str) -> str:
        """A script with the node's paths for those of this machine."""
        text = re.sub(rf"(?<![\w./])({'|'.join(PLACES)})(?=[/\s\"])", rf"{self.root}\1", text)
        return re.sub(r"^PATH=.*$", f"PATH={self.root}/bin:/usr/bin:/bin", text, flags=re.M)

    def change(self, token: str, config: str, *, containerd: str | None = None) -> tuple[int, str]:
        """A change to such a config, and to such a containerd: its exit code, and what it says."""
        stage = self.state / "staged" / token
        stage.mkdir(parents=True)
        record = self.state / "manifest"
        lines = [f"expect\t{sha256(record.read_bytes()).hexdigest() if record.exists() else '-'}"]
        (stage / "text0").write_text(f"{config}\n")
        lines.append(f"put\t644\t{self.root}/etc/containerd/config.toml\ttext0\t-\t-\t-")
        if containerd:
            (stage / "containerd").write_text(CONTAINERD.format(containerd))
            lines.append(f"put\t755\t{self.root}/usr/local/containerd\tcontainerd\tcontainerd\t2.0\tasset")
        lines += [
            "restart\tcontainerd.service",
            f"containerd\t{self.root}/usr/local/containerd",
            "health\tctr\toverlayfs",
        ]
        texts = (b64encode(each.encode()).decode() for each in (self.here(activation()), "\n".join(lines) + "\n"))
        return self.run(self.here(script("launch.sh")), str(stage), token, *texts)

    def boot(self) -> str:
        """What the boot after a power cut says."""
        script = self.state / "activate.sh"
        return self.run(script.read_text(), "--recover")[1] if script.exists() else ""

    def run(self, text: str, *arguments: str) -> tuple[int, str]:
        done = subprocess.run(
            ["sh", "-c", text, "x", *arguments],
            env={"PATH": f"{self.root}/bin:/usr/bin:/bin"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
            check=False,
        )
        return done.returncode, done.stdout

    def kill_after(self, there: str) -> None:
        """Kill the shell of the change, and nothing else, at its first sync once this file is there."""
        (self.root / "kill-after").write_text(f"{self.state}/{there}")

    def runs(self) -> tuple[str, str]:
        """The containerd and its config."""
        program, config = self.root / "usr/local/containerd", self.root / "etc/containerd/config.toml"
        return program.read_text().splitlines()[1].removeprefix("# "), config.read_text().strip()


@pytest.fixture
def node(tmp_path: Path) -> Node:
    for place in (*PLACES, "/run/systemd/system", "/bin"):
        (tmp_path / place.lstrip("/")).mkdir(parents=True, exist_ok=True)
    for name, text in PLAYED.items():
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\nhere={tmp_path}\n{text.strip()}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    (tmp_path / "usr/local/containerd").write_text(CONTAINERD.format("old"))
    (tmp_path / "usr/local/containerd").chmod(0o755)
    (tmp_path / "etc/containerd/config.toml").write_text("old\n")
    return Node(tmp_path)


def half_way(node: Node) -> None:
    """Leave a node whose change could not be undone: at its restart, a file system fails."""
    (node.root / "breaks").touch()
    code, said = node.change("1", "new", containerd="new")
    assert (code, node.mark.exists(), node.runs()) == (1, True, ("new", "old")), said
    assert "error: not all of the previous set could be brought back" in said


def test_a_change_is_made(node: Node) -> None:
    code, said = node.change("1", "new", containerd="new")
    assert (code, said, node.runs()) == (0, "all is in place\ndone\n", ("new", "new"))
    assert (node.state / "unproven").exists()


# --- going on from a change that was cut ---------------------------------------------------------------------------


def test_what_a_cut_change_left_is_undone_by_the_next_one_that_fails_before_its_own_swap(node: Node) -> None:
    half_way(node)
    (node.root / "broken").unlink()
    code, said = node.change("2", "refused")
    assert (code, node.runs()) == (1, ("old", "old")), said
    assert "an earlier change was cut off: going on from there" in said
    assert said.endswith("the previous set is back, and containerd runs it\n")
    assert "nothing was changed" not in said
    assert not node.mark.exists()


def test_the_way_back_stays_until_it_was_gone(node: Node) -> None:
    """As where the file system of a target cannot be written to, in that run and the next."""
    half_way(node)
    code, said = node.change("2", "refused")
    assert (code, node.runs()) == (1, ("new", "old")), said
    assert "nothing was changed" not in said
    assert "error: not all of the previous set could be brought back" in said
    assert node.mark.exists()
    (node.root / "broken").unlink()
    assert "an unfinished change was undone: the previous set is back" in node.boot()
    assert (node.runs(), node.mark.exists()) == (("old", "old"), False)


# --- the shell of a change alone is killed -------------------------------------------------------------------------


def test_killed_before_its_mark_it_is_told_and_leaves_nothing(node: Node) -> None:
    node.kill_after("undo.new/restore.new")
    code, said = node.change("1", "new")
    assert (code, node.runs()) == (1, ("old", "old"))
    assert "error: the change was cut off on the node before its end; nothing was changed" in said
    assert sorted(each.name for each in node.state.iterdir()) == ["lock", "staged"]


def test_killed_with_its_mark_it_is_undone(node: Node) -> None:
    node.kill_after("activation")
    code, said = node.change("1", "new")
    assert (code, node.runs()) == (1, ("old", "old"))
    assert "the previous set is back" in said
    assert not node.mark.exists()


def test_killed_after_its_last_step_it_stays_and_is_to_be_proven(node: Node) -> None:
    node.kill_after("committed")
    code, said = node.change("1", "new")
    assert (code, node.runs()) == (0, ("old", "new"))
    assert "the change was cut off on the node after its last step: it stays" in said
    assert (node.state / "unproven").exists()
    assert not (node.state / "committed").exists()
