"""Images: root directories that are baked on this machine, and booted later."""
