"""A node for `pod.sh`: fakes of what it calls, and what they answer."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cri_api.v1 import api_pb2 as pb

from tasks.files import script
from tasks.verify import PARTS
from tests.deploy.test_verify_script import FAKE_CTR, PROVEN
from userns.proof import Proof, cri, parse

SCRIPT = "".join(script(name) for name in (*PARTS, "verify.sh"))
PAUSE = "registry.k8s.io/pause:3.10"
CHECK = "userns-node.invalid/check:1"
SANDBOX, CONTAINER, FOREIGN = "a" * 64, "b" * 64, "c" * 64

# Keeps what was sent, and answers what the test laid down for the method: a body, or a status and a message.
FAKE_CURL = r"""#!/bin/sh
here=${0%/bin/*}
[ "$2" != --version ] || { cat "$here/curl-version"; exit; }
for word; do
    case $last in --data-binary) request=${word#@} ;; --dump-header) head=$word ;; --output) body=$word ;; esac
    last=$word
done
method=${last##*/}
number=$(cat "$here/sent/number" 2>/dev/null || echo 100)
echo $((number + 1)) >"$here/sent/number"
cp "$request" "$here/sent/$number.$method"
. "$here/behaviour"
printf 'HTTP/2 200 \r\ncontent-type: application/grpc\r\n\r\n' >"$head"
: >"$body"
[ ! -e "$here/fails/$method" ] || status=$(cat "$here/fails/$method")
printf 'grpc-status: %s\r\ngrpc-message: %s\r\n' "${status%% *}" "${status#* }" >>"$head"
[ "${status%% *}" != 0 ] || [ ! -e "$here/answers/$method" ] || cat "$here/answers/$method" >"$body"
"""
# Its images in k8s.io are those in the file `k8s`: NAME DIGEST a line.
CTR_FOR_PODS = r"""
case "$4 $5 $6 $7" in
"k8s.io images ls -q") sed 's/ .*//' "$here/k8s"; exit ;;
"k8s.io images ls "*) echo "REF TYPE DIGEST SIZE"; sed 's/ / type /;s/$/ 1.0 MiB/' "$here/k8s"; exit ;;
"k8s.io images import "*) echo "userns-node.invalid/check:1 sha256:1" >>"$here/k8s"; exit ;;
"k8s.io images rm "*) grep -v "^$8 " "$here/k8s" >"$here/k8s.new"; mv "$here/k8s.new" "$here/k8s"; exit ;;
esac
"""


# A container's root is a user of its own, and its files are that user's.
AS_ANOTHER = """    text=$(cat "$binary"); exec setpriv --reuid 65536 --clear-groups sh -c "$text" """
FAKE_STAT = """#!/bin/sh
case $3 in
*/root/bin/sh) echo 65536 ;;
*/written) echo 0:0 ;;
*) exec /usr/bin/stat "$@" ;;
esac
"""


def frame(message: Any) -> bytes:
    raw: bytes = message.SerializeToString()
    return b"\0" + len(raw).to_bytes(4, "big") + raw


@dataclass
class Node:
    """A directory with fakes of ctr, curl, systemctl and mount, and with what they answer."""

    path: Path
    shell: list[str] = field(default_factory=lambda: ["sh"])
    attempts: tuple[tuple[str, ...], ...] = cri.ATTEMPTS

    @property
    def volumes(self) -> Path:
        return self.path / "var/kubelet/userns-node-check"

    def program(self, name: str, text: str) -> None:
        (self.path / "bin" / name).write_text(text)
        (self.path / "bin" / name).chmod(0o755)

    def fails(self, method: str, words: str, code: int = 2) -> None:
        (self.path / "fails" / method).write_text(f"{code} {words}")

    def answers(self, method: str, message: Any) -> None:
        (self.path / "answers" / method).write_bytes(frame(message))

    def images(self, *names: str) -> None:
        (self.path / "k8s").write_text("".join(f"{name}\n" for name in names))

    @property
    def command(self) -> list[str]:
        requests = cri.requests(["runc", "crun"], "system.slice", str(self.volumes), self.attempts)
        handlers = [f"{name}={self.path}/bin/{name}" for name in ("runc", "crun")]
        fixed = [f"{self.path}/bin/ctr", f"{self.path}/containerd.sock", "overlayfs", f"{self.path}/bin/containerd"]
        text = "\n".join(each.line for each in requests)
        return [*self.shell, "-c", SCRIPT, "verify.sh", *fixed, str(self.volumes), text, *handlers]

    @property
    def environment(self) -> dict[str, str]:
        path = f"{self.path}/bin:{os.environ['PATH']}"
        return {"PATH": path, "TMPDIR": str(self.path / "tmp"), "VERIFY_SECONDS": "30"}

    def prove(self) -> Proof:
        done = subprocess.run(
            self.command, env=self.environment, capture_output=True, text=True, timeout=300, check=False
        )
        proof = parse(done.stdout)
        assert list((self.path / "tmp").iterdir()) == [], done.stderr
        assert not (self.path / "var").exists(), done.stderr
        assert [name for name in self.known_images if name.startswith((CHECK, "sha256:1"))] == []
        return proof

    @property
    def known_images(self) -> list[str]:
        return (self.path / "k8s").read_text().split("\n")[:-1]

    @property
    def sent(self) -> list[tuple[str, bytes]]:
        """What was asked of CRI, in order: methods and messages."""
        files = sorted(self.path.glob("sent/*.*"))
        return [(file.suffix[1:], file.read_bytes()[5:]) for file in files]

    @property
    def methods(self) -> list[str]:
        return [method for method, _ in self.sent]


@contextmanager
def running(path: Path, shell: list[str]) -> Iterator[Node]:
    """A node in an empty directory on which a pod can do all, and the process of its container."""
    for name in ("bin", "tmp", "sent", "fails", "answers"):
        (path / name).mkdir()
    node = Node(path, shell)
    node.program("curl", FAKE_CURL)
    ctr = FAKE_CTR.replace("here=${0%/*}\n", "here=${0%/bin/*}\n" + CTR_FOR_PODS)
    node.program("ctr", ctr.replace('    . "$binary"', AS_ANOTHER))
    node.program("systemctl", "#!/bin/sh\necho inactive\n")
    node.program("mount", "#!/bin/sh\n:\n")
    node.program("containerd", f"#!/bin/sh\nprintf \"    sandboxer = 'x'\\n    sandbox = '{PAUSE}'\\n\"\n")
    node.program("stat", FAKE_STAT)
    for name in ("runc", "crun"):
        node.program(name, PROVEN)
    (path / "behaviour").write_text("status='0 '\n")
    (path / "curl-version").write_text("curl 8.0.0\nFeatures: alt-svc HTTP2 HTTPS-proxy\n")
    node.images(f"{PAUSE} sha256:2", "sha256:3 sha256:2")
    features = pb.RuntimeHandlerFeatures(user_namespaces=True)
    node.answers(
        "Status",
        pb.StatusResponse(
            status=pb.RuntimeStatus(conditions=[pb.RuntimeCondition(type="NetworkReady", status=True)]),
            runtime_handlers=[pb.RuntimeHandler(name=name, features=features) for name in ("", "crun", "runc")],
        ),
    )
    node.answers("ImageStatus", pb.ImageStatusResponse(image=pb.Image(id="sha256:4")))
    node.answers("RunPodSandbox", pb.RunPodSandboxResponse(pod_sandbox_id=SANDBOX))
    node.answers("CreateContainer", pb.CreateContainerResponse(container_id=CONTAINER))
    said = "uid_map 0 65536 65536\ngid_map 0 65536 65536\nmount rw - overlay overlay lowerdir=/tmp/ovl-idmapped1/fs\n"
    said += "written yes\nvolume disk yes yes\nvolume tmpfs yes yes\n"
    node.answers("ExecSync", pb.ExecSyncResponse(stdout=said.encode()))
    task = path / "io.containerd.runtime.v2.task/k8s.io" / CONTAINER
    task.mkdir(parents=True)
    container = ["setpriv", "--reuid", "65536", "--clear-groups", "--pdeathsig", "KILL", "sleep", "infinity"]
    with socket.socket(socket.AF_UNIX) as listener, subprocess.Popen(container) as process:
        listener.bind(str(path / "containerd.sock"))
        (task / "init.pid").write_text(str(process.pid))
        yield node
        process.kill()
