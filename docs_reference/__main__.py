"""`python -m docs_reference`: writes the reference pages, which a test compares with the code."""

from __future__ import annotations

from docs_reference.pages import made
from docs_reference.source import ROOT

for path, text in made().items():
    page = ROOT / "docs" / path
    page.parent.mkdir(exist_ok=True)
    page.write_text(text, "utf-8")
