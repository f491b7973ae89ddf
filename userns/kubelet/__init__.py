"""What a kubelet asks of its node: its configuration, its range of IDs, and the file systems of its volumes."""
