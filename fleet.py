"""The fleet: look at all nodes of an inventory, or change them in waves. `python fleet.py --help` says how."""

import sys

from fleet.cli import main
from userns import console

if __name__ == "__main__":
    sys.exit(console.run(main))
