"""What needs neither a node nor root."""
