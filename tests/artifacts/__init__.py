"""python -m artifacts, against a loopback mirror with the upstream layout."""
