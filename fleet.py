"""The fleet: look at all nodes of an inventory, or change them in waves. `python fleet.py --help` says how."""

import os
import sys

from fleet.cli import main

if __name__ == "__main__":
    try:
        code = main()
        sys.stdout.flush()
    except BrokenPipeError:  # `| head` has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is still buffered goes there at exit
        code = 128 + 13  # as a program that SIGPIPE ends
    sys.exit(code)
