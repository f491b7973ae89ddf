"""`python -m artifacts.inventory INVENTORY`: the data of each host of a pyinfra inventory, as JSON on stdout.

A program of its own, for `bundle`: pyinfra must be imported first of all, since it replaces parts of the standard
library. Only our settings are printed, and what is a slip of one, for the policy to refuse it as a deploy does. Of them
no secret is needed: `containerd_config` and the URLs stay out.
"""

# ruff: noqa: I001
from __future__ import annotations

import pyinfra_cli  # type: ignore[import-untyped]

import json
import sys
from collections.abc import Mapping
from pathlib import Path

from pyinfra.api import State
from pyinfra.context import ctx_state
from pyinfra_cli.inventory import make_inventory  # type: ignore[import-untyped]

from artifacts.slip import slip
from tasks import hosts, image_connector
from userns.policy import meant
from userns.secret import URLS
from userns.settings import SETTINGS, mask

__all__ = ["main"]

_LEFT_OUT = {"containerd_config", *URLS}


def main(inventory: str) -> int:
    """Print it; 0, or 1 with the reason on stderr."""
    assert pyinfra_cli
    if not Path(inventory).is_file():
        print("there is no such file", file=sys.stderr)
        return 1
    ctx_state.set(State())
    image_connector.register()
    hosts.leave_none_out()
    # What an inventory prints itself must not be taken for the answer.
    answer, sys.stdout = sys.stdout, sys.stderr
    try:
        found = make_inventory(inventory, cwd=str(Path.cwd()))
        text = json.dumps({host.name: _ours(host.data.dict()) for host in found})
    except Exception as error:
        print(slip(error, inventory), file=sys.stderr)
        return 1
    finally:
        sys.stdout = answer
    print(text)
    return 0


def _ours(data: Mapping[str, object]) -> dict[str, object]:
    """The settings of a host, and the slips of their names."""
    found: dict[str, object] = {}
    for name, value in data.items():
        if name in SETTINGS.keys() - _LEFT_OUT:
            found[name] = _plain(value)
        elif (ours := meant(name)) == "containerd_config":
            found[name] = None  # the refusal does not show it
        elif ours:
            found[name] = mask(str(value)) if ours in URLS else _plain(value)
    return found


def _plain(value: object) -> object:
    """The value, or where JSON has no word for it what Python shows, which the policy refuses by name."""
    try:
        json.dumps(value)
    except (TypeError, ValueError, RecursionError):
        return repr(value)
    return value


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
