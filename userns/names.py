"""Names of settings: which one was meant by a name that is not ours, if any."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

__all__ = ["distance", "near_miss"]

# `host.data` is shared with pyinfra and with other deploys, so a wrong refusal is as bad as a missed typo:
# `max_pids`, `alloy` or `containerd_port` are somebody's own names. A letter replaced by another makes another
# word in a short one; a letter too many, too few or swapped is a slip of the keyboard everywhere. So is the last letter
# of a name whose other words are ours: `max_podz`, `release_uri`.
_SHORT = 5
_LONG = 9


@lru_cache(maxsize=4096)
def near_miss(name: str, known: tuple[str, ...]) -> str | None:
    """The one of `known` that `name` was probably meant to be; None where it is somebody else's name.

    Case and separators do not count. Otherwise the words must be the same in number and each be close to its
    counterpart; where they were run together (`slowchown`, `kubelet_idrange`), one slip in all is let through.
    """
    if name in known or name.startswith("_"):  # pyinfra's global arguments: _sudo, _env
        return None
    close = [(cost, setting) for setting in known if (cost := _cost(_words(name), _words(setting))) is not None]
    return min(close)[1] if close else None


def distance(a: str, b: str) -> int:
    """Insertions, deletions, replacements and swaps of neighbours that turn `a` into `b` (optimal string alignment)."""
    before: list[int] = []
    previous = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        row = [i]
        for j, y in enumerate(b, 1):
            cost = min(previous[j] + 1, row[j - 1] + 1, previous[j - 1] + (x != y))
            if i > 1 and j > 1 and x == b[j - 2] and a[i - 2] == y:
                cost = min(cost, before[j - 2] + 1)
            row.append(cost)
        before, previous = previous, row
    return previous[-1]


@lru_cache(maxsize=4096)
def _words(name: str) -> tuple[str, ...]:
    return tuple(word for word in re.split(r"[\W_]+", name.casefold()) if word)


def _cost(words: tuple[str, ...], wanted: tuple[str, ...]) -> int | None:
    """How far `words` are from `wanted`, or None where they are not a slip of it."""
    joined, target = "".join(words), "".join(wanted)
    if abs(len(joined) - len(target)) > 2:
        return None
    if joined == target:
        return 0
    if len(words) != len(wanted):
        return 1 if len(target) > _SHORT and distance(joined, target) == 1 else None
    costs = [distance(word, meant) for word, meant in zip(words, wanted, strict=True)]
    if len(words) > 1 and joined[:-1] == target[:-1] and sum(costs) == 1:
        return 1
    each_close = all(_slip(*pair) for pair in zip(words, wanted, costs, strict=True))
    return sum(costs) if each_close and sum(costs) <= 2 else None


def _slip(word: str, meant: str, cost: int) -> bool:
    if cost == 0:
        return True
    if len(meant) <= _SHORT:
        return cost == 1 and (len(word) != len(meant) or sorted(word) == sorted(meant))
    return cost <= (2 if len(meant) >= _LONG else 1)


def closest(name: str, known: Iterable[str]) -> str | None:
    """The nearest of `known`, for a message that has refused `name` already."""
    best = min(((distance(name, other), other) for other in known), default=(99, ""))
    return best[1] if best[0] <= max(2, len(name) // 4) else None
