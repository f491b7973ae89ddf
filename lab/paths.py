"""Where the lab keeps things: all of it under build/, which git ignores and `rm -r` may take."""

import os
import sys
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent
BUILD = Path(os.environ.get("USERNS_NODE_BUILD", REPO / "build"))
CACHE = BUILD / "cache"
NODES = BUILD / "nodes"
LABS = BUILD / "labs"
# Of the same Python environment, whatever else is on the PATH.
PYINFRA = Path(sys.executable).parent / "pyinfra"
