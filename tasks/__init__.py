"""pyinfra's side: reads nodes and changes nodes. It decides nothing; that is for `userns`."""

import os
import sys

# pyinfra turns it on, lest a config.pyc come of config.py; all of this project would be compiled anew in every run. Not
# where somebody else, as root who bakes an image, would leave files of his in the owner's checkout.
if os.stat(__file__).st_uid == os.geteuid():
    sys.dont_write_bytecode = bool(sys.flags.dont_write_bytecode)
