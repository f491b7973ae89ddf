"""`verify.sh` against a fake `ctr`: the image that it makes, what it says of failures, and that it leaves nothing.

What a real containerd does with it is proven on real nodes, in tests/node.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import platform
import re
import signal
import socket
import subprocess
import tarfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tasks.files import script
from tasks.verify import PARTS
from userns.proof import Proof, judge, parse

SCRIPT = "".join(script(name) for name in (*PARTS, "verify.sh"))

pytestmark = pytest.mark.usefixtures("as_root")

# Answers as ctr does; a real container's shell is played by lines of text, and by the fake's own PID.
FAKE_CTR = r"""#!/bin/sh
here=${0%/*}
shift 4
echo "$*" >>"$here/calls"
case "$1 $2" in
"namespaces ls") cat "$here/namespaces" 2>/dev/null || : ;;
"plugins ls") printf 'Exports:\n      root      %s/root/io.containerd.content.v1.content\n' "$here" ;;
"images import") for image; do :; done; cp "$image" "$here/image.tar" ;;
"run --rm")
    while [ $# -gt 0 ]; do
        case $1 in
        --runc-binary) binary=$2 ;;
        --pid-file) printf %s "$$" >"$2" ;;
        esac
        shift
    done
    . "$binary"
    ;;
esac
"""
PROVEN = """printf 'uid_map 0 65536 65536\\ngid_map 0 65536 65536\\n'
printf 'mount rw - overlay overlay rw,lowerdir=/tmp/ovl-idmapped1/fs\\nwritten yes\\nready\\n'; read -r a
"""


@dataclass
class Node:
    """A directory with a fake ctr, a socket, and one file for each fake runtime."""

    path: Path
    seconds: int = 30
    theirs: list[Path] = field(default_factory=list)
    """What somebody else has in its temporary directory."""

    def runtime(self, name: str, behaviour: str) -> str:
        binary = self.path / name
        binary.write_text(behaviour)
        binary.chmod(0o755)
        return f"{name}={binary}"

    def command(self, *handlers: str) -> list[str]:
        arguments = (str(self.path / "ctr"), str(self.path / "containerd.sock"), "overlayfs", "", "", "")
        return ["sh", "-c", SCRIPT, "verify.sh", *arguments, *handlers]

    @property
    def environment(self) -> dict[str, str]:
        return {"PATH": os.environ["PATH"], "TMPDIR": str(self.path / "tmp"), "VERIFY_SECONDS": str(self.seconds)}

    def verify(self, *handlers: str) -> Proof:
        done = subprocess.run(
            self.command(*handlers), env=self.environment, capture_output=True, text=True, timeout=300, check=False
        )
        proof = parse(done.stdout)
        assert proof.exit_code == done.returncode
        assert list((self.path / "tmp").iterdir()) == self.theirs
        return proof

    @property
    def calls(self) -> list[str]:
        return (self.path / "calls").read_text().splitlines()


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    (tmp_path / "tmp").mkdir()
    ctr = tmp_path / "ctr"
    ctr.write_text(FAKE_CTR)
    ctr.chmod(0o755)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "containerd.sock"))
        yield Node(tmp_path)


def members(content: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        files = ((entry.name, archive.extractfile(entry)) for entry in archive)
        return {name: file.read() if file else b"" for name, file in files}


def test_the_image_is_a_valid_oci_layout_around_the_nodes_own_shell(node: Node) -> None:
    node.verify(node.runtime("runc", PROVEN))
    image = members((node.path / "image.tar").read_bytes())
    assert json.loads(image["oci-layout"]) == {"imageLayoutVersion": "1.0.0"}

    def blob(descriptor: dict[str, object]) -> bytes:
        digest = str(descriptor["digest"]).removeprefix("sha256:")
        content = image[f"blobs/sha256/{digest}"]
        assert hashlib.sha256(content).hexdigest() == digest
        assert len(content) == descriptor["size"]
        return content

    [entry] = json.loads(image["index.json"])["manifests"]
    assert entry["annotations"] == {"io.containerd.image.name": "userns-node.invalid/check:1"}
    manifest = json.loads(blob(entry))
    config = json.loads(blob(manifest["config"]))
    layer = blob(manifest["layers"][0])
    assert config["rootfs"]["diff_ids"] == [manifest["layers"][0]["digest"]]
    assert config["architecture"] == {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    files = members(layer)
    assert {"bin/sh", "proc", "sys", "dev"} <= files.keys()
    assert files["bin/sh"] == Path("/bin/sh").read_bytes()


def test_the_image_is_the_same_in_every_run(node: Node) -> None:
    images = []
    for _ in range(2):
        node.verify(node.runtime("runc", PROVEN))
        image = members((node.path / "image.tar").read_bytes())
        images.append(image)
    assert images[0] == images[1]


def unpacked(node: Node) -> Path:
    """The root directory that the image makes."""
    node.verify(node.runtime("runc", PROVEN))
    image = members((node.path / "image.tar").read_bytes())
    layer = max(image.values(), key=len)
    root = node.path / "root"
    with tarfile.open(fileobj=io.BytesIO(layer)) as archive:
        archive.extractall(root, filter="fully_trusted")
    return root


def test_its_shell_starts_with_nothing_but_what_is_in_the_image(node: Node) -> None:
    root = unpacked(node)
    said = subprocess.check_output(["chroot", str(root), "/bin/sh", "-c", "printf %s hello"], text=True)
    assert said == "hello"


def test_a_container_that_shares_the_nodes_ids_is_unproven_however_well_it_speaks(node: Node) -> None:
    # The fake's own process is root on this machine: what the shell says is not believed without a look from outside.
    proof = node.verify(node.runtime("runc", PROVEN))
    result = proof.handlers["runc"]
    assert (result.uid_map, result.host_uid, result.owner, result.proven) == ("0 65536 65536", 0, 0, False)
    assert [finding.id for finding in judge(proof, "idmapped")] == ["proof-host-uid"]


@pytest.mark.parametrize("written", ["yes", "no"])
def test_a_container_whose_root_cannot_write_is_unproven(node: Node, written: str) -> None:
    root = unpacked(node)
    os.chown(root / "bin/sh", 65536, 65536)
    says = PROVEN.replace("written yes", f"written {written}")
    (root / "says").write_text(says)
    (root / "says").chmod(0o644)
    enter = 'exec chroot --userspec=65536:65536 "$here/root" /bin/sh /says\n'
    proof = node.verify(node.runtime("runc", enter))
    result = proof.handlers["runc"]
    assert (result.host_uid, result.owner, result.proven) == (65536, 65536, written == "yes")
    assert [finding.id for finding in judge(proof, "idmapped")] == ([] if result.proven else ["proof-not-writable"])


def test_the_last_words_of_the_runtime_come_out_on_one_line(node: Node) -> None:
    said = "echo 'time=now level=warning' >&2; printf 'ctr: failed to create:\\n\\truntime said\\tno\\n' >&2; exit 1\n"
    proof = node.verify(node.runtime("runc", said), node.runtime("crun", "echo odd words >&2; exit 3\n"))
    assert proof.handlers["runc"].error == "ctr: failed to create:; runtime said no"
    assert proof.handlers["crun"].error == "odd words"
    assert not proof.ok


def test_a_runtime_that_says_nothing_leaves_its_exit_code(node: Node) -> None:
    assert node.verify(node.runtime("runc", "exit 3\n")).handlers["runc"].error == '"ctr run" ended with exit code 3'


def test_a_missing_binary_is_named(node: Node) -> None:
    assert node.verify("crun=/nowhere/crun").handlers["crun"].error == "no executable at /nowhere/crun"


def test_a_start_that_hangs_is_given_up_and_the_next_handler_is_tried(node: Node) -> None:
    node.seconds = 10  # for the quick one, too
    proof = node.verify(node.runtime("slow", "exec sleep 60\n"), node.runtime("runc", PROVEN))
    assert proof.handlers["slow"].error == "ctr: the container did not start within 10 s"
    assert proof.handlers["runc"].uid_map == "0 65536 65536"


KILLED = "was killed (SIGKILL: the kernel does that where memory runs out)"


def test_a_start_that_somebody_kills_did_not_take_too_long(node: Node) -> None:
    proof = node.verify(node.runtime("runc", "kill -KILL $$\n"), node.runtime("crun", PROVEN))
    assert proof.handlers["runc"].error == f'ctr: "ctr run" {KILLED}'
    assert proof.handlers["crun"].uid_map == "0 65536 65536"


@pytest.mark.parametrize(
    ("seconds", "does", "told"),
    [
        (30, "kill -KILL $$", f'ctr: "ctr images import" {KILLED}'),
        (2, "exec sleep 60", 'ctr: containerd gave no answer to "ctr images import" within 2 s'),
    ],
)
def test_a_ctr_that_is_killed_is_told_from_a_containerd_that_hangs(
    node: Node, seconds: int, does: str, told: str
) -> None:
    node.seconds = seconds
    ctr = node.path / "ctr"
    ctr.write_text(ctr.read_text().replace('"images import") for', f'"images import") {does}; for'))
    assert node.verify(node.runtime("runc", PROVEN)).untried == told


def test_a_chowned_layer_that_gc_took_is_tried_again(node: Node) -> None:
    once = 'if [ -e "$here/again" ]; then\n' + PROVEN + 'else\n: >"$here/again"\n'
    once += "echo 'ctr: parent snapshot sha256:1 does not exist: not found' >&2; exit 1; fi\n"
    assert node.verify(node.runtime("runc", once)).handlers["runc"].error == ""


def test_what_an_earlier_run_left_is_swept_first(node: Node) -> None:
    (node.path / "namespaces").write_text("k8s.io\nuserns-node-check\n")
    left = node.path / "tmp" / "userns-node-check.aaaaaa"
    left.mkdir()
    (left / "image.tar").touch()
    node.verify(node.runtime("runc", PROVEN))
    assert not left.exists()
    calls = node.calls
    assert calls.index("tasks ls -q") < calls.index("containers ls -q") < calls.index("namespaces rm userns-node-check")
    assert calls.index("namespaces rm userns-node-check") < min(
        i for i, c in enumerate(calls) if c.startswith("images i")
    )


def test_what_lies_there_by_another_user_is_not_taken_for_an_earlier_runs(node: Node) -> None:
    """Anybody may make a directory of that name in /tmp, and fill it with what root is to act on."""
    theirs = node.path / "tmp" / "userns-node-check.theirs"
    theirs.mkdir()
    os.chown(theirs, 65534, 65534)
    node.theirs.append(theirs)
    node.verify(node.runtime("runc", PROVEN))


def test_no_call_touches_another_namespace(node: Node) -> None:
    ctr = node.path / "ctr"
    ctr.write_text(FAKE_CTR.replace("shift 4", 'echo "$3 $4" >>"$here/namespaces-used"; shift 4'))
    node.verify(node.runtime("runc", PROVEN))
    assert set((node.path / "namespaces-used").read_text().splitlines()) == {"-n userns-node-check"}


def test_without_containerd_nothing_is_tried_and_the_exit_code_is_2(node: Node) -> None:
    (node.path / "containerd.sock").unlink()
    proof = node.verify("runc=/bin/true")
    assert proof.exit_code == 2
    assert proof.untried == f"no containerd socket at {node.path}/containerd.sock"


@pytest.mark.usefixtures("signals_are_heard")
@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_with_the_cleaning_done_and_no_proof(node: Node, number: signal.Signals) -> None:
    slow = node.runtime("slow", "read -r a\n")  # a container that lives until it is told to end
    with subprocess.Popen(
        node.command(slow), env=node.environment, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        while not (node.path / "calls").exists() or not any(call.startswith("run") for call in node.calls):
            time.sleep(0.02)
        process.send_signal(number)
        output = process.communicate(timeout=300)[0]
    proof = parse(output)
    assert proof.untried == f"stopped by {number.name}"
    assert proof.exit_code == process.returncode == 2
    assert list((node.path / "tmp").iterdir()) == []
    assert "namespaces rm userns-node-check" in node.calls


def test_two_runs_at_once_take_turns(node: Node, shell: list[str]) -> None:
    handler = node.runtime("runc", "echo begin >>$here/turns; sleep 0.3; echo end >>$here/turns\n" + PROVEN)
    runs = [
        subprocess.Popen([*shell, *node.command(handler)[1:]], env=node.environment, stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    assert [parse(run.communicate(timeout=300)[0]).handlers["runc"].error for run in runs] == ["", "", ""]
    assert (node.path / "turns").read_text().split() == ["begin", "end"] * 3


def test_a_lock_that_cannot_be_had_is_no_other_run(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    flock = node.path / "bin" / "flock"
    flock.parent.mkdir()
    flock.write_text("#!/bin/sh\nexit 65\n")
    flock.chmod(0o755)
    monkeypatch.setenv("PATH", f"{flock.parent}:{os.environ['PATH']}")
    assert node.verify(node.runtime("runc", PROVEN)).untried == "/run cannot be locked"


@pytest.mark.parametrize("linked", [False, True])
def test_what_is_mounted_below_a_link_goes_with_the_directory(tmp_path: Path, linked: bool) -> None:
    """The kernel tells where a mount is without links, as the kubelet's root may be one."""
    real, root = tmp_path / "data" / "kubelet", tmp_path / "kubelet"
    (real / "check" / "tmpfs").mkdir(parents=True)
    (real / "check-not-ours").mkdir()
    if linked:
        root.symlink_to(real)
    else:
        root = real
    (tmp_path / "mountinfo").write_text(
        "".join(f"5 1 0:9 / {real}/{name} rw - tmpfs x rw\n" for name in ("check/tmpfs", "check-not-ours"))
    )
    found = re.search(r"^discard\(\) \{\n.*?^\}$", script("verify.sh"), re.M | re.S)
    assert found
    text = found[0].replace("/proc/self/mountinfo", str(tmp_path / "mountinfo"))
    calls = f'umount() {{ echo "$*"; }}\n{text}\ndiscard {root}/check\ndiscard {root}/check'
    done = subprocess.run(["sh", "-u", "-c", calls], capture_output=True, text=True, timeout=60, check=True)
    assert (done.stdout.splitlines()[0], done.stderr) == (f"-l {real}/check/tmpfs", "")
    assert sorted(each.name for each in real.iterdir()) == ["check-not-ours"]
