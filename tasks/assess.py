"""Read a node once, decide, and say what was decided: a plan for this host, or its refusal."""

from __future__ import annotations

import atexit
import gc
import os
import re
from base64 import b64decode
from collections.abc import Callable, Hashable, Sequence
from contextlib import suppress
from datetime import UTC, date, datetime

import click
import gevent
from paramiko import SSHException
from pyinfra import host
from pyinfra.api.arguments import CONNECTOR_ARGUMENT_KEYS, pop_global_arguments
from pyinfra.api.exceptions import PyinfraError
from pyinfra.context import ctx_host, ctx_state

import userns.planning
from tasks import settings
from tasks.files import run, templates
from tasks.node import READ_SECONDS, Node
from tasks.pushing import su_reads_stdin
from tasks.refusal import refuse
from tasks.telling import say, tell_finding
from userns.changes import RemoveFile, WriteFile
from userns.containerd.config import ConfigError
from userns.diff import unified
from userns.findings import Finding, Severity
from userns.overlay import metacopy_differs
from userns.planning import Decision, Plan
from userns.policy import Policy, PolicyError

DIFF_COLOURS = {"+": "green", "-": "red", "@": "cyan"}

# At its end Python searches all that there is for garbage, which costs a bake 0.15 s and a fleet more, for nothing.
atexit.register(gc.freeze)

# Called with each host's name and plan as it is made, by who runs pyinfra and wants more than text (fleet.runner).
watchers: list[Callable[[str, Plan], None]] = []

# A line of text.sh.
_TEXT = re.compile(r"-|=[A-Za-z0-9+/]*={0,2}")

# What was told in this run, and of which host first: the nodes of a fleet have most of it in common.
_told: dict[Hashable, str] = {}
# The first node of each group, and its metacopy.
_metacopy: dict[str, tuple[str, str]] = {}


def plan_or_refuse() -> Plan | None:
    """The plan for this host, told to the operator; None where the host is refused, with every reason told."""
    made = plan()
    if made is None:
        return None
    tell(made)
    _tell_differences(made)
    if made.refused:
        ids = ", ".join(f'"{id}"' for id in dict.fromkeys(each.id for each in made.blockers))
        refuse([f"refused: this node is left as it is. What the operator may accept: allow = [{ids}]"])
        return None
    return made


def plan(*, looks_only: bool = False) -> Plan | None:
    """The plan for this host, or None where it has been failed: bad settings, or a node that could not be read.

    `looks_only`: whoever asks will not change anything, also where the plan would.
    """
    policy = policy_or_refuse()
    if policy is None:
        return None
    gevent.spawn(_prepare, policy, image=host.data.get("image_root") is not None)
    node = host.get_fact(
        Node,
        containerd_root=policy.containerd_root,
        kubelet_root=policy.kubelet_root,
        verify_digests=policy.verify_digests,
        _timeout=READ_SECONDS,
    )
    if _failed():  # pyinfra has said why
        return None
    if node is None:  # pyinfra does not even look at an answer without a line
        refuse(["refused: the node answered nothing, though its shell says that all went well. Does sh run there?"])
        return None
    try:
        made = userns.planning.plan(node, policy, templates(), today=_today())
    except ConfigError as error:
        refuse([f"refused: {error}"])
        return None
    if made.changes and not looks_only and su_reads_stdin(pop_global_arguments(ctx_state.get(), host, {})[0]):
        why = "su reads its password from standard input, over which a node gets its files"
        refuse([f"refused: {why}. Use _sudo, or _su_user without _su_password"])
        return None
    for watcher in watchers:
        watcher(host.name, made)
    return made


def _prepare(policy: Policy, *, image: bool) -> None:
    """Has its turn while the node is waited for. What goes wrong here goes wrong in the plan too, which tells it."""
    with suppress(Exception):
        userns.planning.prepare(policy, templates(), image=image)


def policy_or_refuse() -> Policy | None:
    """This host's settings, or None after every mistake in them has been told."""
    try:
        return settings.load(host.data.dict())
    except PolicyError as error:
        refuse(f"refused: {problem}" for problem in error.problems)
        return None


def tell(plan: Plan) -> None:
    """Say what the node is, what would change, and why; with `--diff`, how each file would change."""
    state = ctx_state.get()
    acts = bool(plan.changes) and not plan.refused
    curious = state.print_noop_info  # -v
    tell_node(plan, notes=acts or curious)
    if (acts and state.config.DIFF) or curious:
        _tell_decisions([each for each in plan.decisions if each.name != "tier"])
    if plan.refused:
        return
    if not plan.steps:
        say(click.style("nothing to do", fg="green"))
    for step in plan.steps:
        say(f"{click.style('will', fg='cyan')} {step}")
    if state.config.DIFF:
        _tell_diffs(plan)


def tell_node(plan: Plan, *, notes: bool = False) -> None:
    """Say what the node is: its tier, and what was found of it."""
    say(f"tier {click.style(plan.readiness.tier, bold=True)}: {plan.readiness.summary}")
    _tell_findings([each for each in plan.findings if notes or each.severity is not Severity.NOTE])


def _tell_differences(plan: Plan) -> None:
    """What differs between the nodes of a group that should not. Its groups that hold no other one, so not "all"."""
    members = {group: {each.name for each in host.inventory.groups[group]} for group in host.groups}
    for group, names in members.items():
        if not any(each < names for each in members.values()):
            other, value = _metacopy.setdefault(group, (host.name, plan.metacopy))
            _tell_findings(list(metacopy_differs(plan.metacopy, other, group, value)))


def _tell_findings(findings: Sequence[Finding]) -> None:
    """Each in full, or by its id where it was told of another host; but why a node is refused, always in full."""
    again: dict[str, dict[str, None]] = {}
    for finding in findings:
        first = _first(finding)
        if finding.severity is not Severity.BLOCKER and first != host.name:
            again.setdefault(first, {})[f"{finding.severity} {finding.id}"] = None
            continue
        tell_finding(finding)
    for first, ids in again.items():
        say(f"{', '.join(ids)}: as told of {first}")


def _tell_decisions(decisions: Sequence[Decision]) -> None:
    first = _first(tuple(decisions))
    if first != host.name:
        say(f"decided all as for {first}")
        return
    for decision in decisions:
        say(str(decision) if decision.name == "because" else f"decided {decision}")


def diffs(plan: Plan) -> dict[str, list[str]]:
    """The unified diff of each file that would change, by path, secrets masked; the node is asked for the old texts.

    Raises PyinfraError where they could not be read.
    """
    files = [change for change in plan.changes if isinstance(change, WriteFile | RemoveFile)]
    there = [change.path for change in files if plan.exists(change.path)]
    old = dict(zip(there, _texts(there) if there else [], strict=True))
    secrets = plan.policy.secrets
    return {
        change.path: unified(change.path, old.get(change.path), getattr(change, "content", None), secrets)
        for change in files
    }


def _tell_diffs(plan: Plan) -> None:
    for path, diff in diffs(plan).items():
        first = _first(tuple(diff))
        if first != host.name:
            say(f"{path} changes as shown of {first}")
            continue
        for line in diff:
            click.echo(f"{host.print_prefix}{click.style(line, fg=DIFF_COLOURS.get(line[:1]))}", err=True)


def _first(told: Hashable) -> str:
    """The host of which this was, or now is, told first."""
    return _told.setdefault(told, host.name)


def _texts(paths: Sequence[str]) -> list[str]:
    """The text of each of these files on the node.

    No fact: `-vvv` prints whatever a fact's command answers, and config.toml may hold a registry's password.
    """
    state = ctx_state.get()
    arguments, _ = pop_global_arguments(state, host, {"_timeout": READ_SECONDS})
    connection = {key: value for key, value in arguments.items() if key in CONNECTOR_ARGUMENT_KEYS}
    try:
        whole, output = host.run_shell_command(run("text.sh", *paths), print_input=state.print_fact_input, **connection)
    except (OSError, SSHException) as error:
        raise PyinfraError(f"the node's files could not be read for a diff: {error}") from error
    # What a login prints stands before the answer.
    lines = [line for line in output.stdout_lines if _TEXT.fullmatch(line)][-len(paths) :]
    if not whole or len(lines) != len(paths):
        raise PyinfraError(
            f"the node's files could not be read for a diff: {output.stderr or 'the answer is not whole'}"
        )
    # "-" stands for what is no file.
    return [b64decode(line[1:]).decode(errors="replace") if line != "-" else "" for line in lines]


def _failed() -> bool:
    return ctx_host.get() in ctx_state.get().failed_hosts


def _today() -> date:
    """The date of SOURCE_DATE_EPOCH, where that is set: what an image tells of itself is not to change with the day."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH", "")
    now = datetime.fromtimestamp(int(epoch), UTC) if epoch.isdecimal() else datetime.now(UTC)
    return now.date()
