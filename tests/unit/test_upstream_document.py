"""docs/upstream-statements.md names its tests: each of them has to be there, and each has to be in it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parent.parent
DOCUMENT = (TESTS.parent / "docs/upstream-statements.md").read_text("utf-8")
# A name that ends with an ellipsis is the beginning of one.
NAMED = re.findall(r"`(test_\w+?)(_…)?`", DOCUMENT)


def defined(path: Path) -> set[str]:
    return set(re.findall(r"^def (test_\w+)\(", path.read_text("utf-8"), re.MULTILINE))


def test_every_test_that_the_document_names_is_there() -> None:
    files = [*TESTS.glob("vm/test_*.py"), TESTS / "unit/test_upstream_requirements.py"]
    there = {name for path in files for name in defined(path)}
    assert len(NAMED) > 30
    assert [name for name, more in NAMED if not any(t == name or (more and t.startswith(name)) for t in there)] == []


# In a row: a file, whose tests are named after it; R, which is one too; a test.
IN_A_ROW = re.compile(r"`(?P<path>(?:tests/\w+/)?test_\w+\.py)`|(?P<r>\bR) (?=`)|`(?P<name>test_\w+?)(?P<more>_…)?`")
ROWS = [line for line in DOCUMENT.splitlines() if line.startswith("| ")]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[:40])
def test_a_test_is_in_the_file_that_is_named_before_it(row: str) -> None:
    there: set[str] = set()
    for match in IN_A_ROW.finditer(row):
        if match["path"]:
            path = TESTS.parent / match["path"] if "/" in match["path"] else TESTS / "vm" / match["path"]
            there = defined(path)
        elif match["r"]:
            there = defined(TESTS / "unit/test_upstream_requirements.py")
        else:
            name, more = match["name"], match["more"]
            assert any(each == name or (more and each.startswith(name)) for each in there), name


def test_every_statement_names_a_test_or_the_row_above() -> None:
    for row in ROWS:
        statement, test, result = row.strip("| ").split(" | ")[:3]
        header = set(test) <= {"-"} or test == "test"
        assert header or "`test_" in test or test.startswith("the same: "), statement
        assert result


def test_every_test_of_a_statement_on_a_real_kernel_is_in_the_document() -> None:
    named = {name for name, _ in NAMED}
    for path in TESTS.glob("vm/test_upstream_*.py"):
        assert f"`{path.name}`" in DOCUMENT
        assert defined(path) - named == set(), path.name


def test_every_file_that_the_document_names_is_there() -> None:
    for name in re.findall(r"`(tests/[\w/]+\.py)`", DOCUMENT):
        assert (TESTS.parent / name).is_file(), name
