"""This machine itself: `pyinfra inventories/local.py deploy.py --dry`, as root."""

local = ["@local"]
