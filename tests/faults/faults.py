"""The faults. Each is a generator with three parts: what is prepared before the deploy begins, the blow itself, and
how it is lifted again after the deploy has ended. What is nobody's to repair is repaired by its third part; what was
prepared is taken back also where the blow did not strike.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from random import Random

from lab.errors import LabError
from lab.network import CONTROLLER
from lab.processes import tool
from lab.serving import Fault as Misbehaviour
from tests.faults.ground import Ground, Settings
from tests.faults.verdict import FOR_A_BOOT
from tests.node.faults import STALE, STATE, UNITS, Deploying, wait_for
from tests.node.runs import Run

BOOT_ID = "cat /proc/sys/kernel/random/boot_id"
ACTIVATIONS = "'userns-node-activate-*'"
IMAGES = "io.containerd.cri.v1.images"
# To containerd that is a text; its CRI plugin takes it for a duration, and fails when it starts.
NO_CRI = {"image_pull_progress_timeout": "soon"}


@dataclass
class Scene:
    """One deploy that is broken."""

    ground: Ground
    goal: Settings
    """Where the node is to be at last."""
    asked: Settings
    """What the deploy that is broken asks for: the goal, or what can't work."""
    wanted: list[Settings]
    """What may be there after it, beside the set of before."""
    random: Random
    ends_containers: bool = False
    """The machine went down, and all that ran on it."""
    ends_who_cleans: bool = False
    """So did whoever was at work on the node or at the controller."""
    stops_the_way_back: bool = False
    """Nothing can be put back while it lasts: where the run says so, the next run or boot is to do it."""
    speechless: bool = False
    """Nor can the run say so: the mark on the node has to."""
    problems: list[str] = field(default_factory=list)
    run: Run | None = None

    def begin(self) -> Deploying:
        """Begin the deploy."""
        self.deploying = self.ground.deploying(**self.asked)
        return self.deploying

    def on_node(self, command: str, *, check: bool = True) -> str:
        """Run a command on the node."""
        return self.ground.inside.ssh(command, check=check).stdout


Blow = Callable[[Scene], Generator[None]]


# --- the controller and the way to it --------------------------------------------------------------------------------


def controller_killed(scene: Scene) -> Generator[None]:
    scene.ends_who_cleans = True
    yield
    scene.deploying.kill()
    yield


def controller_interrupted(scene: Scene) -> Generator[None]:
    scene.ends_who_cleans = True
    yield
    scene.deploying.interrupt()
    yield


def ssh_cut(scene: Scene) -> Generator[None]:
    scene.ends_who_cleans = True
    yield
    scene.on_node("pkill -KILL -f '[s]shd-session'", check=False)
    yield


def network_lost(scene: Scene) -> Generator[None]:
    """For a while: what runs on the node goes on, and the connection finds its way again."""
    yield
    with scene.ground.node.unplugged():
        scene.ground.steps.release()
        time.sleep(scene.random.uniform(1, 5))
    yield


def two_controllers(scene: Scene) -> Generator[None]:
    """One of them wins; both, where the second one comes after the commit, and plans from what is there then."""
    yield
    committed = any(
        step.startswith("mv -f ") and step.endswith("/committed") for step in scene.ground.steps.seen()[:-1]
    )
    other = _second(scene)
    scene.ground.steps.release()
    runs = [scene.deploying.end(), other.end()]
    yield
    lost = [run for run in runs if run.code]
    if [run.code for run in lost] != [1] and not (committed and not lost):
        scene.problems.append(f"of two controllers one has to win: {[run.code for run in runs]}")
    if any(STALE not in run.said(scene.ground.node) for run in lost):
        scene.problems.append(f"the other was not told why: {lost[0].text[-500:]}")


def killed_before_a_second_controller(scene: Scene) -> Generator[None]:
    """The lock goes with the process that had it: who waits for it goes on, or is told."""
    yield
    unit = scene.on_node(f"{UNITS} --state=active").split()[0]
    other = _second(scene)
    scene.on_node(f"systemctl kill --signal SIGKILL {unit}")
    runs = [scene.deploying.end(), other.end()]
    yield
    if runs[1].code and STALE not in runs[1].said(scene.ground.node):
        scene.problems.append(f"the second was not told why: {runs[1].text[-500:]}")


def _second(scene: Scene) -> Deploying:
    """Another deploy, of other settings, that has come to the lock."""
    settings = scene.ground.changed("runc")
    scene.wanted.append(settings)
    other = scene.ground.deploying(**settings)
    wait_for(lambda: len(scene.on_node(f"{UNITS} --state=active").splitlines()) == 2 or other.ended())
    return other


# --- the change on the node ------------------------------------------------------------------------------------------


def killed(scene: Scene) -> Generator[None]:
    yield
    scene.on_node(f"systemctl kill --signal SIGKILL {ACTIVATIONS}")
    yield


def stopped(scene: Scene) -> Generator[None]:
    yield
    scene.on_node(f"systemctl stop --no-block {ACTIVATIONS}")
    yield


def step_fails(scene: Scene) -> Generator[None]:
    """Where it is the unit for a boot or its script that is not removed, that boot does it."""
    yield
    step = scene.ground.steps.seen()[-1]
    scene.stops_the_way_back = step.startswith("rm -f ") and any(FOR_A_BOOT.match(path) for path in step.split())
    scene.ground.steps.release(fails=True)
    yield


def power_cut(scene: Scene) -> Generator[None]:
    scene.ends_containers = scene.ends_who_cleans = True
    yield
    scene.ground.node.cut_power()
    scene.deploying.kill()
    scene.ground.node.start()
    scene.ground.node.wait()
    yield


def reboot(scene: Scene) -> Generator[None]:
    scene.ends_containers = scene.ends_who_cleans = True
    yield
    before = scene.on_node(BOOT_ID)
    scene.on_node("systemctl reboot", check=False)
    yield
    wait_for(lambda: scene.ground.node.ssh(BOOT_ID, check=False).stdout not in ("", before))
    scene.ground.node.wait()


def full(directory: str) -> Blow:
    def blow(scene: Scene) -> Generator[None]:
        yield
        scene.on_node(f"cat /dev/zero >{directory}/fill", check=False)
        yield
        scene.on_node(f"rm -f {directory}/fill")

    return blow


def full_run(scene: Scene) -> Generator[None]:
    """Where the output of a change goes, and containerd has its state: systemd gives it a fifth of the memory."""
    scene.speechless = scene.stops_the_way_back = True
    size = scene.on_node("df --output=size /run | tail -n 1").strip()
    scene.on_node("mount -o remount,size=32M /run")
    try:
        yield from full("/run")(scene)
    finally:
        scene.on_node(f"mount -o remount,size={size}k /run")


def read_only(directory: str) -> Blow:
    def blow(scene: Scene) -> Generator[None]:
        scene.stops_the_way_back = True
        yield
        # With what is mounted below it: an /etc without its /etc/containerd is another fault, and no read-only one.
        above = f"mount --rbind {directory} {directory} && mount --make-rprivate {directory}"
        scene.on_node(f"{above} && mount -o remount,bind,ro {directory}")
        yield
        scene.on_node(f"umount -l {directory}")

    return blow


# Without a process more, for there may be none; the process itself is one that was there before.
_LIMIT = "mount -t proc proc /mnt && while read -r most; do echo $most >/mnt/sys/kernel/pid_max; done"
_FIRST_FREE, _MOST = 300, 4194304  # the kernel's, for the numbers of later processes


def no_processes(scene: Scene) -> Generator[None]:
    """Hardly a process can be started on the node, as where a pod starts them without end.

    By the numbers for them, which a PID namespace has for itself since Linux 6.14. Before, they are the machine's.
    """
    if tuple(map(int, os.uname().release.split(".")[:2])) < (6, 14):
        raise LabError(f"this machine's kernel {os.uname().release} limits the numbers of all processes at once: 6.14")
    scene.stops_the_way_back = scene.speechless = scene.ends_containers = scene.ends_who_cleans = True
    enter = [tool("nsenter"), f"--target={scene.ground.node.leader}", "--pid", tool("unshare"), "--mount"]
    with subprocess.Popen([*enter, "sh", "-c", _LIMIT], stdin=subprocess.PIPE, text=True) as limiter:
        assert limiter.stdin
        try:
            yield
            print(_FIRST_FREE + scene.random.choice([1, 2, 3, 5, 8, 12]), file=limiter.stdin, flush=True)
            yield
        finally:
            print(_MOST, file=limiter.stdin, flush=True)
    # systemd tries again to start what it could not; the check has only the operator to do so, who was told.
    wait_for(lambda: scene.on_node("systemctl is-active containerd", check=False).strip() == "active")
    scene.on_node("systemctl restart userns-node-check", check=False)


# --- containerd ------------------------------------------------------------------------------------------------------


def does_not_start(scene: Scene) -> Generator[None]:
    scene.asked["containerd_version"] = scene.ground.releases.broken
    scene.wanted.clear()
    yield
    yield


def has_no_cri(scene: Scene) -> Generator[None]:
    scene.asked["containerd_config"] = {"plugins": {IMAGES: NO_CRI}}
    scene.wanted.clear()
    yield
    yield


def refuses_its_config(scene: Scene) -> Generator[None]:
    scene.asked["containerd_config"] = {"oom_score": "high"}
    scene.wanted.clear()
    yield
    yield


def hangs_on_stop(scene: Scene) -> Generator[None]:
    drop_in = "/etc/systemd/system/containerd.service.d/hangs.conf"
    text = "[Service]\nExecStop=/bin/sleep 3600\nTimeoutStopSec=5\n"
    scene.ground.node.put(drop_in, text.encode())
    scene.on_node("systemctl daemon-reload")
    try:
        yield
        yield
    finally:
        scene.on_node(f"rm {drop_in}; systemctl daemon-reload")


def frozen(scene: Scene) -> Generator[None]:
    """It does not even hear that it is to stop: systemd kills it after its minute and a half.

    One that froze when the change had found it healthy is nothing that a change can undo: it thaws in the end.
    """
    yield
    scene.on_node("systemctl kill --kill-whom=main --signal SIGSTOP containerd")
    yield
    scene.on_node("systemctl kill --kill-whom=main --signal SIGCONT containerd")


# --- the mirror ------------------------------------------------------------------------------------------------------


def mirror(how: Misbehaviour) -> Blow:
    def blow(scene: Scene) -> Generator[None]:
        releases, served = scene.ground.releases, scene.ground.served
        served.misbehave(releases.mirror.asset("containerd", scene.goal["containerd_version"]).path, how)
        served.misbehave(releases.mirror.asset("runc", scene.goal["runc_version"]).path, how)
        try:
            yield
            yield
        finally:
            served.behave()

    return blow


def mirror_dead(scene: Scene) -> Generator[None]:
    scene.asked["release_url"] = f"http://{CONTROLLER}:9"
    yield
    yield


# --- the clock -------------------------------------------------------------------------------------------------------


def clock(moves: str) -> Blow:
    """The node's clock, as its scripts read it: a container can't set its own."""

    def blow(scene: Scene) -> Generator[None]:
        text = f'#!/bin/sh\n[ ! -e /root/moved ] || set -- --date={shlex.quote(moves)} "$@"\nexec /usr/bin/date "$@"\n'
        scene.ground.node.put("/usr/local/sbin/date", text.encode(), 0o755)
        try:
            yield
            scene.on_node("touch /root/moved")
            yield
        finally:
            scene.on_node("rm -f /usr/local/sbin/date /root/moved")

    return blow


DIRECTORIES = {"etc": "/etc", "local": "/usr/local", "state": f"/{STATE}"}
