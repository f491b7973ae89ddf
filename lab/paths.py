"""Where the lab keeps things: all of it under build/, which git ignores and `rm -r` may take."""

import os
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent
BUILD = Path(os.environ.get("USERNS_NODE_BUILD", REPO / "build"))
CACHE = BUILD / "cache"
NODES = BUILD / "nodes"
LABS = BUILD / "labs"
