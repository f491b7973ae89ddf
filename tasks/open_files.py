"""How many files a controller may have open: pyinfra keeps a connection to every host until the end."""

from __future__ import annotations

import contextlib
import resource

__all__ = ["allow"]

# Enough for any inventory. Not all that there may be: some machines allow a billion.
ENOUGH = 65536
# What pyinfra, Python and a deploy have open beside the connections, with room for what runs at the same time.
OTHERS = 100


def allow(connections: int) -> str:
    """See to it that so many connections can be open. Return why they can't, or "".

    The limit that most systems begin with, 1,024, is for old programs; whoever needs more may raise it up to the hard
    limit (getrlimit(2)). Programs that are started from here inherit it.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = connections + OTHERS
    if soft != resource.RLIM_INFINITY and soft < needed:
        most = max(ENOUGH, needed)
        most = most if hard == resource.RLIM_INFINITY else min(hard, most)
        with contextlib.suppress(ValueError, OSError):  # macOS has one more limit, which it does not tell
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
            soft = most
    if not connections or soft == resource.RLIM_INFINITY or soft >= needed:
        return ""
    fewer = f"fleet.py --scheduler local --shard {max(1, soft - OTHERS)}"
    return (
        f"{connections} hosts at once need {needed} open files, and this shell allows {soft}: raise it by "
        f"`ulimit -n {needed}`, or reach fewer hosts at once ({fewer})"
    )
