"""What texts say where user namespaces fail: see the head of symptoms-pods.toml."""

from __future__ import annotations

from userns.tables import Row, rows

__all__ = ["SYMPTOMS", "Symptom"]


class Symptom(Row):
    """Patterns of a text, what they mean, and what helps."""

    id: str
    patterns: tuple[str, ...]
    together: tuple[str, ...] = ()
    instead_of: tuple[str, ...] = ()
    cause: str
    fix: str
    findings: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()


SYMPTOMS = tuple(row for table in ("symptoms-pods", "symptoms-node") for row in rows(table, "symptom", Symptom))
