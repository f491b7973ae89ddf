"""pyinfra's side: reads nodes and changes nodes. It decides nothing; that is for `userns`."""

import sys

# pyinfra turns it on, lest a config.pyc come of config.py. All of this project would be compiled anew in every run.
sys.dont_write_bytecode = bool(sys.flags.dont_write_bytecode)
