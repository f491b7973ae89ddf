"""Makes the reference pages of the documentation from the code: `make reference` writes them to docs/reference/."""
