"""What may be installed on a node: the lock file, and the commands that keep it."""
