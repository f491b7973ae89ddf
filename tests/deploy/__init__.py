"""pyinfra and the node scripts against a fake node or a tree of files."""
