"""The proof, run alone on the virtual machines: with all that it needs, cut off, and with less."""

from __future__ import annotations

import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from lab import LabVM
from tests.node.runs import Run
from tests.vm import cri, pods
from tests.vm.rollout import Rollout

# On 5.10 no container starts at all.
KERNELS = ("6.1", "6.12", "newest")
# Whether the sandbox and the container of a pod have a process each, within some time. By a look at what their shims
# write: each `ctr tasks ls` is a second's work for an emulated machine, which has the proof to run meanwhile.
WAIT_FOR_POD = """
for try in $(seq 30); do
    set -- /run/containerd/io.containerd.runtime.v2.task/k8s.io/*/init.pid
    [ $# -lt 2 ] || exit 0
    sleep 0.3
done
exit 1
"""
# The script on the node, and whoever it has forked; not this shell, in which the name stands among others.
KILL = """
for process in /proc/[0-9]*; do
    ! tr '\\0' '\\n' <$process/cmdline | grep -qx verify.sh || kill -KILL ${process#/proc/}
done 2>/dev/null
:
"""


@dataclass(frozen=True)
class Proofs:
    """Runs of the proof alone, as an operator asks for it, with what was on the machines before and after.

    They come right after a boot, with something of what keeps the settings taken away: they mend nothing.

    `killed` was cut off on 6.1 in the midst of a pod, which left what is in `remains`. `whole` came next and ran where
    all is there for pods, beside those remains and, on the newest kernel, a pod that is none of its business. Then on
    6.12 the pause image went, and on the newest kernel a kubelet came; and `less` ran on these two.
    """

    vms: Mapping[str, LabVM]
    whole: Run
    killed: Run
    less: Run
    looks: tuple[Mapping[str, list[str]], ...]
    strangers: tuple[list[str], ...]
    remains: list[str]


def _kill(rollout: Rollout, kernel: str) -> tuple[Run, list[str]]:
    """Cut the proof off when the container of its pod is there, and return what it said and what is left."""
    vm = rollout.vms[kernel]
    with ThreadPoolExecutor(1) as threads:
        running = threads.submit(rollout.prove, kernel)
        end = time.monotonic() + vm.patience
        while vm.ssh(WAIT_FOR_POD, check=False, timeout=vm.patience).returncode:
            assert not running.done(), running.result().text
            assert time.monotonic() < end
        vm.ssh(KILL)
        return running.result(), pods.look(vm)


def run(rollout: Rollout) -> Proofs:
    """All the runs: a machine each for what is different, as each run takes its time."""
    vms = {kernel: rollout.vms[kernel] for kernel in KERNELS}
    with pods.ready(vms):
        before = pods.everywhere(lambda kernel: pods.look(vms[kernel]), vms)
        # First of all: a proof of pods takes a minute of a processor, and the next one is needed in any case.
        killed, remains = _kill(rollout, "6.1")
        with cri.connect(vms["newest"]) as runtime, runtime.pod() as stranger:
            whole = rollout.prove(*KERNELS)
            strangers = ([stranger.id], runtime.pods())
        after = pods.everywhere(lambda kernel: pods.look(vms[kernel]), vms)
        pods.take_pause(vms["6.12"])
        vms["newest"].ssh("systemd-run --quiet --unit=kubelet sleep infinity")
        try:
            less = rollout.prove("6.12", "newest")
        finally:
            vms["newest"].ssh("systemctl stop kubelet")
        without = pods.look(vms["6.12"])
        pods.give_pause(vms["6.12"])
        looks = (before, after, {"6.12": without})
        return Proofs(vms, whole, killed, less, looks, strangers, remains)
