"""The pages that are made, by their place in the documentation."""

from __future__ import annotations

from collections.abc import Mapping

from docs_reference import commands, findings, paths, settings


def made() -> Mapping[str, str]:
    """Path below docs/ → Markdown."""
    return {
        "reference/settings.md": settings.page(),
        "reference/findings.md": findings.page(),
        "reference/commands.md": commands.page(),
        "reference/paths.md": paths.page(),
    }
