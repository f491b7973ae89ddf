"""containerd's configuration: config.toml, its drop-ins and imports, its unit, and what else could be a containerd."""
