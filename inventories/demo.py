"""The node that `make demo` builds on this machine, and the mirror that stands in for upstream's releases."""

import json
import os
from pathlib import Path

# Written by the demo: {"hosts": {NAME: {ssh data}}, "settings": {…}}. A name without the leading underscore
# would be a group.
_build = Path(os.environ.get("USERNS_NODE_BUILD", Path(__file__).resolve().parent.parent / "build"))
_demo = json.loads((_build / "demo" / "inventory.json").read_text())

nodes = [(name, {**data, **_demo["settings"]}) for name, data in _demo["hosts"].items()]
