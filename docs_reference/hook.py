"""What mkdocs calls (`hooks:` in mkdocs.yml): puts the pages that are made beside those that are written."""

from __future__ import annotations

import sys
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

# mkdocs loads this file by its path, from wherever it was started.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from docs_reference.pages import made


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the reference."""
    for path, text in made().items():
        files.append(File.generated(config, path, content=text))
    return files
