"""`python -m artifacts.inventory INVENTORY`: the data of each host of a pyinfra inventory, as JSON on stdout.

A program of its own, for `bundle`: pyinfra must be imported first of all, since it replaces parts of the standard
library. Only our settings are printed, and of them no secret is needed: `containerd_config` and the URL stay out.
"""

# ruff: noqa: I001
from __future__ import annotations

import pyinfra_cli  # type: ignore[import-untyped]

import json
import sys
from pathlib import Path

from pyinfra.api import State
from pyinfra.context import ctx_state
from pyinfra_cli.inventory import make_inventory  # type: ignore[import-untyped]

from userns.settings import SETTINGS

__all__ = ["main"]

_LEFT_OUT = {"containerd_config", "release_url"}


def main(inventory: str) -> int:
    """Print it; 0, or 1 with the reason on stderr."""
    assert pyinfra_cli
    if not Path(inventory).is_file():
        print("there is no such file", file=sys.stderr)
        return 1
    ctx_state.set(State())
    # What an inventory prints itself must not be taken for the answer.
    answer, sys.stdout = sys.stdout, sys.stderr
    try:
        hosts = make_inventory(inventory, cwd=str(Path.cwd()))
        data = {
            host.name: {name: value for name, value in host.data.dict().items() if name in SETTINGS.keys() - _LEFT_OUT}
            for host in hosts
        }
        text = json.dumps(data)
    except Exception as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    finally:
        sys.stdout = answer
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
