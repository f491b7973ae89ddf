"""userns/ alone: no node, no root, no network."""
