"""What a node needs for Kubernetes user namespaces, and why: plain functions, no I/O, no pyinfra, no clock."""

__version__ = "0.1.0"
