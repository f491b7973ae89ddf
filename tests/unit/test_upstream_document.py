"""docs/upstream-statements.md names its tests: each of them has to be there, and each has to be in it."""

from __future__ import annotations

import re
from pathlib import Path

TESTS = Path(__file__).resolve().parent.parent
DOCUMENT = (TESTS.parent / "docs/upstream-statements.md").read_text("utf-8")
# A name that ends with an ellipsis is the beginning of one.
NAMED = re.findall(r"`(test_\w+?)(_…)?`", DOCUMENT)


def defined(path: Path) -> set[str]:
    return set(re.findall(r"^def (test_\w+)\(", path.read_text("utf-8"), re.MULTILINE))


def test_every_test_that_the_document_names_is_there() -> None:
    files = [*TESTS.glob("vm/test_upstream_*.py"), TESTS / "unit/test_upstream_requirements.py"]
    there = {name for path in files for name in defined(path)}
    assert len(NAMED) > 30
    assert [name for name, more in NAMED if not any(t == name or (more and t.startswith(name)) for t in there)] == []


def test_every_test_of_a_statement_on_a_real_kernel_is_in_the_document() -> None:
    named = {name for name, _ in NAMED}
    for path in TESTS.glob("vm/test_upstream_*.py"):
        assert f"`{path.name}`" in DOCUMENT
        assert defined(path) - named == set(), path.name


def test_every_file_that_the_document_names_is_there() -> None:
    for name in re.findall(r"`(tests/[\w/]+\.py)`", DOCUMENT):
        assert (TESTS.parent / name).is_file(), name
