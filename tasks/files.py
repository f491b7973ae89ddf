"""The texts that this project ships: shell scripts for nodes and templates of managed files, read once."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from pyinfra.api import HiddenValue, QuoteString, StringCommand

ROOT = Path(__file__).resolve().parent.parent


@cache
def script(name: str) -> str:
    """The text of `tasks/scripts/NAME`."""
    return (ROOT / "tasks" / "scripts" / name).read_text()


@cache
def templates() -> dict[str, str]:
    """Each template of `templates/` by its file name, and the scripts that are part of one."""
    found = {path.name: path.read_text() for path in sorted((ROOT / "templates").iterdir()) if path.is_file()}
    return found | {
        name: script(name) for name in ("probe.sh", "node-kernel.sh", "options.sh", "check-tell.sh", "metrics.sh")
    }


def base64(text: str) -> str:
    """`text` in a form that no shell, log or terminal gives a second meaning."""
    return b64encode(text.encode()).decode()


# A login shell reads each command before sh does. To a csh a quotation ends with its line, and each further line of a
# script would be a command; fish drops a backslash from every two, quoted or not. Neither gets beyond these lines: csh
# has a variable `shell`, and `$?shell` is 1 where it is set; elsewhere that is an exit status with a word behind it.
# (csh's own `exit` goes on with the next line.)
_SAY = "echo userns-node: the login shell of this user is {shell}, and has to be a POSIX one such as sh or bash >&2"
_POSIX = f"""
test $?shell = 1 && exec sh -c "{_SAY.format(shell="a csh")}; exit 97"
case '\\\\' in
??) ;;
*) {_SAY.format(shell="fish")}; exit 97 ;;
esac
"""


def for_sh(text: str) -> str:
    """A script, to be quoted as the argument of `sh -c`, that no login shell but a POSIX one begins to run."""
    return _POSIX + text


def run(name: str, *arguments: str | HiddenValue, parts: Sequence[str] = (), stdin: str | None = None) -> StringCommand:
    """The command that runs `tasks/scripts/NAME`, with other `parts` of it first, on a node with quoted arguments.

    The script travels inside the command: nothing is left on the node, and one round trip does it. `-vv` prints
    the script's name in the place of its text. `stdin` is for what may be secret: all users of a node can read the
    arguments of its processes, and pyinfra prints a stdin nowhere. (It ends it with a line end and closes it.)
    """
    text = HiddenValue(for_sh("".join(script(each) for each in (*parts, name))), name)
    words = ("sh", "-c", QuoteString(text), name, *(QuoteString(each) for each in arguments))
    if stdin is None:
        return StringCommand(*words)
    # A terminal would echo it, and takes no line of more than 4096 bytes.
    return StringCommand(*words, _stdin=stdin, _get_pty=False)
