"""Prove on a node that user namespaces work: what the kernel says of real containers, not what was configured."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from typing import Any

import click
from pyinfra import host, logger
from pyinfra.api import HiddenValue, Host, State, StringCommand, operation
from pyinfra.connectors.util import CommandOutput

from tasks import assess, next_step
from tasks.files import run
from tasks.refusal import contained, refuse, unexpected
from tasks.telling import tell_finding
from userns import proof
from userns.findings import Finding, Severity, apply_allow
from userns.paths import UNPROVEN
from userns.planning import Plan
from userns.proof import cri
from userns.readiness import Readiness

# The script bounds each step by itself; this is for a connection that died.
PROVE_SECONDS = 1800
ALONE = "tasks.verify.user_namespace"

# What the kernel said on the hosts that were proven in this run (or whose proof `allow` accepts), in words, by host.
proven: dict[str, tuple[str, ...]] = {}
# Those of them of which `allow` accepts what the kernel said.
allowed: set[str] = set()

# What verify.sh is made of beside itself.
PARTS = ("pod.sh",)


class ProofCommand(StringCommand):
    """Runs the proof and tells its result: an operation's output is otherwise shown only with -vvv."""

    def __init__(
        self,
        command: StringCommand,
        ready: Readiness,
        handlers: tuple[str, ...],
        allow: tuple[str, ...],
        snapshotter: str,
        refused: tuple[str, ...],
        awaits_kubelet: bool,
    ) -> None:
        super().__init__(*command.bits)
        self.refused = refused
        self.awaits_kubelet = awaits_kubelet
        self.ready = ready
        self.handlers = handlers
        self.snapshotter = snapshotter
        self.allow = allow

    def execute(self, state: State, host: Host, connector_arguments: Any) -> tuple[bool, CommandOutput]:
        """Run it; true where every handler is proven and nothing contradicts the plan, or `allow` accepts what does."""
        status, output = super().execute(state, host, connector_arguments)
        try:
            result = proof.parse(output.stdout)
            findings = self._tell(host, result)
        except proof.ProofError as error:
            logger.error(f"{host.print_prefix}{error}")
            return False, output
        except Exception as error:  # pyinfra would end the run of all hosts
            logger.error(f"{host.print_prefix}{unexpected(error, ALONE)}")
            return False, output
        is_allowed = any(each.allowed for each in findings)
        good = not any(each.severity is Severity.BLOCKER for each in findings) and (status or is_allowed)
        if good and self.refused:
            ids = ", ".join(self.refused)
            logger.error(
                f"{host.print_prefix}containers start in user namespaces here, but this node is refused: {ids}"
            )
            good = False
        if good:
            proven[host.name] = tuple(result.summary)
            if is_allowed:
                allowed.add(host.name)
            elif self.ready.tier != "unsupported":
                logger.info(f"{host.print_prefix}tier {click.style(self.ready.tier, fg='green', bold=True)} is proven")
                next_step.ready(host.name, self.ready.tier, awaits_kubelet=self.awaits_kubelet)
        # The script's own lines have been told: pyinfra prints what it gets of a command that failed.
        return good, output if good else CommandOutput([])

    def _tell(self, host: Host, result: proof.Proof) -> Sequence[Finding]:
        """Tell what the kernel said, and what of it is not as planned, which is the answer, too."""
        for line in result.summary:
            logger.info(f"{host.print_prefix}{click.style(line, fg='green' if result.ok else 'red')}")
        for each in result.handlers.values():
            if each.mount:
                logger.info(f"{host.print_prefix}{each.handler}: its / is {each.mount}")
        judged = proof.judge(
            result,
            proof.rootfs_to_expect(self.ready.rootfs, self.snapshotter),
            self.handlers,
            volumes=self.ready.volumes,
            idmaps_volumes=self.ready.idmaps_volumes,
        )
        findings = apply_allow(judged, self.allow)
        for finding in findings:
            tell_finding(finding)
        return findings


@operation()
def start_containers(
    programs: Mapping[str, str],
    snapshotter: str,
    handlers: Mapping[str, str],
    ready: Readiness,
    volumes: str,
    requests: str,
    allow: Sequence[str] = (),
    of_a_change: bool = False,
    refused: Sequence[str] = (),
    awaits_kubelet: bool = False,
) -> Generator[StringCommand, None, None]:
    """Start a container in a user namespace with each handler, then pods; read their maps and mounts from all sides.

    `of_a_change`: its success is written down on the node. Until then every deploy tries it again. `refused`: the ids
    of what stands against the node besides. Its containers are looked at all the same, and then it fails.
    `awaits_kubelet`: a proof is no reason for a label yet.
    """
    command = run(
        "verify.sh",
        programs["ctr"],
        "",
        snapshotter,
        programs["containerd"],
        volumes,
        HiddenValue(requests, "<requests>"),
        *(f"{name}={path}" for name, path in handlers.items()),
        parts=PARTS,
    )
    yield ProofCommand(command, ready, tuple(handlers), tuple(allow), snapshotter, tuple(refused), awaits_kubelet)
    if of_a_change:  # not reached where the proof fails
        yield StringCommand("rm", "-f", UNPROVEN)


def prove(plan: Plan, *, of_a_change: bool = False) -> None:
    """Queue the proof of what this plan sets up, or has set up. An image is proven when it has booted."""
    if plan.node.image is not None:
        return
    volumes = f"{plan.policy.kubelet_root.rstrip('/')}/{cri.NAME}"
    requests = cri.requests(
        tuple(plan.handlers),
        # Both are there anyway, so that no cgroup is left that the pods were in.
        cgroup_parent="system.slice" if plan.policy.cgroup_driver == "systemd" else "/",
        directory=volumes,
        attempts=cri.ATTEMPTS if plan.readiness.idmaps_volumes else cri.PLAIN,
    )
    start_containers(
        name="Prove: start a container in a user namespace with " + " and ".join(plan.handlers),
        programs=dict(plan.programs),
        snapshotter=plan.snapshotter,
        handlers=dict(plan.handlers),
        ready=plan.readiness,
        volumes=volumes,
        requests="\n".join(each.line for each in requests),
        allow=list(plan.policy.allow),
        of_a_change=of_a_change,
        # A deploy does not come here with such a node. The proof alone does: what is refused gets no label.
        refused=list(dict.fromkeys(each.id for each in plan.blockers)),
        awaits_kubelet=plan.awaits_kubelet,
        _timeout=PROVE_SECONDS,
    )


@contained(ALONE)
def user_namespace() -> None:
    """The proof alone, on a node as it is: `pyinfra INVENTORY tasks.verify.user_namespace`. Changes nothing."""
    plan = assess.plan(looks_only=True)
    if plan is None:
        return
    if plan.node.image is not None:
        refuse(["an image is proven when it has booted: run this on a machine that was started from it"])
        return
    assess.tell_node(plan)
    for change in plan.changes:
        logger.warning(f"{host.print_prefix}not as the settings say: a deploy would {change.summary}")
    prove(plan)
