"""What is run on a node, recorded there: a deploy's commands, as one script for another node, and a plan's answer."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import PurePosixPath

from lab import LabNode

# What sshd runs in the place of every command that it is asked for, and beside it what it has recorded.
_RECORDER = "/var/lib/lab-steps/recorder"
_RECORD = """#!/bin/sh
# The client leaves the input open where a command has none.
cd "${0%/*}" && step=$(date +%s%N) && printf '%s' "$SSH_ORIGINAL_COMMAND" >$step.command && timeout 1 cat >$step.input
exec sh -c "$SSH_ORIGINAL_COMMAND" <$step.input
"""
_BEGIN = "set -eu\nwork=$(mktemp -d)\ntrap 'rm -rf \"$work\"' EXIT\n"
# Each in a shell of its own with an input of its own, as sshd starts it. What it prints is told where it fails.
_STEP = """command=$(base64 -d <<'END'
{command}END
)
base64 -d >"$work/input" <<'END'
{input}END
sh -c "$command" <"$work/input" >"$work/told" 2>&1 || {{ cat "$work/told"; exit 1; }}
"""
DONE = "all steps are done"
# Whatever is asked, the answer is that of the first question.
_ANSWER = """#!/bin/sh
cd "${0%/*}" && { [ -e answer ] || { sh -c "$SSH_ORIGINAL_COMMAND" >answer.new && mv answer.new answer; }; } &&
    exec cat answer
"""
_FORCED = "/etc/ssh/sshd_config.d/zz-steps.conf"


def record(node: LabNode) -> None:
    """Have everything recorded that is run on a node over connections that begin from now on."""
    _force(node, _RECORD)


@contextmanager
def answering(node: LabNode) -> Iterator[None]:
    """Have what a node says to the first command from now on said to all later ones, at once."""
    _force(node, _ANSWER)
    yield
    node.ssh(f"rm -rf {_FORCED} {PurePosixPath(_RECORDER).parent} && systemctl reload ssh")


def _force(node: LabNode, recorder: str) -> None:
    node.put(_RECORDER, recorder.encode(), 0o755)
    node.put(_FORCED, f"ForceCommand {_RECORDER}\n".encode())
    node.ssh("systemctl reload ssh")


def recorded(node: LabNode) -> str:
    """A script that does the same, in the same order, for `ssh NODE sh -s`; it ends with DONE where all of it worked.

    On a node that is like the one that was recorded: an answer that differs would have led to other steps.
    """
    home = PurePosixPath(_RECORDER).parent
    files = {path.name: path.read_bytes() for path in (node.root / home.relative_to("/")).iterdir()}
    steps = sorted(name.removesuffix(".command") for name in files if name.endswith(".command"))
    texts = (
        _STEP.format(command=_encoded(files[f"{step}.command"]), input=_encoded(files[f"{step}.input"]))
        for step in steps
    )
    return f"{_BEGIN}{''.join(texts)}echo {DONE}\n"


def _encoded(content: bytes) -> str:
    return base64.encodebytes(content).decode()
