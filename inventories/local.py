"""This machine itself. As root: `pyinfra inventories/local.py deploy.py --dry`"""

local = ["@local"]
