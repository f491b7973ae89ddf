"""What ties the commands in images to this run: they end with it, however it ends, and it does not end before them."""

from __future__ import annotations

import atexit
import os
from functools import cache

from gevent.monkey import get_original

__all__ = ["word"]


@cache
def word() -> str:
    """What `image_enter.py` is told of its caller: this process, and in it the pipe to watch and the pipe to hold.

    The first one ends when this run lets go of it, or is killed. The second one ends when no command is left: until
    then the trees are written to, and somebody who removes them would leave a part.
    """
    watched, held = os.pipe()
    gone, holding = os.pipe()
    close = get_original("os", "close")  # gevent's waits for its hub, which runs no more then

    def let_go() -> None:
        for end in (held, holding):
            close(end)
        while os.read(gone, 1):
            pass

    atexit.register(let_go)
    return f"{os.getpid()}:{watched}:{holding}"
