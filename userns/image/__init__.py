"""Images: root directories that boot later, on a kernel of their own."""
