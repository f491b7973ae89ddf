"""`python -m docs_reference`: prints the reference pages, to read them without a site."""

from __future__ import annotations

from docs_reference.pages import made

for path, text in made().items():
    print(f"<!-- {path} -->\n\n{text}")
