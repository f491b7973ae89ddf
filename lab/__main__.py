"""python -m lab up NAME… | ssh NAME [COMMAND] | down: nodes to try things on, which run until they are ended."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from lab import Lab, LabError, detached
from lab.errors import in_one_line


def main(argv: Sequence[str] | None = None) -> int:
    """Run one of the commands."""
    parser = argparse.ArgumentParser(prog="python -m lab", description="Nodes that run until they are ended.")
    commands = parser.add_subparsers(dest="command", required=True)
    up = commands.add_parser("up", help="boot nodes, and leave them running")
    up.add_argument("names", nargs="+", metavar="NAME")
    up.add_argument("--suite", default="testing", help="the Debian suite of the nodes")
    ssh = commands.add_parser("ssh", help="log in to a node, or run a command on it")
    ssh.add_argument("name")
    ssh.add_argument("words", nargs=argparse.REMAINDER, metavar="COMMAND")
    commands.add_parser("down", help="end every node that was left running")
    arguments = parser.parse_args(argv)
    with in_one_line("lab", "`python -m lab down` ends what still runs"):
        match arguments.command:
            case "up":
                if taken := set(arguments.names) & {name for lab in detached.running() for name in lab.nodes}:
                    raise LabError(f"already running: {', '.join(sorted(taken))} (`python -m lab down` ends them all)")
                with Lab() as lab:
                    nodes = [lab.node(name, arguments.suite) for name in arguments.names]
                    lab.detach()
                print(*(f"{node.name}: {lab.login(node)}" for node in nodes), sep="\n")
            case "ssh":
                words = detached.ssh(arguments.name, " ".join(arguments.words))
                os.execvp(words[0], words)
            case "down":
                ended = detached.end()
                print(f"ended: {', '.join(ended)}" if ended else "no node was left running")
    return 0


if __name__ == "__main__":
    sys.exit(main())
