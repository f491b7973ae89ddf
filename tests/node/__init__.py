"""Real containerd on real systemd nodes."""
