"""docs/security.md: every claim names tests, and every test that it names is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parent.parent
DOCUMENT = (TESTS.parent / "docs" / "security.md").read_text("utf-8")
NAMED = re.findall(r"`([\w/]+\.py)::(test_\w+)`", DOCUMENT)
ROWS = [
    row
    for table in re.findall(r"\| claim \| tests \|\n\| --- \| --- \|\n((?:\|.*\n)+)", DOCUMENT)
    for row in table.splitlines()
]


def test_it_claims_something() -> None:
    assert len(ROWS) > 20
    assert len(NAMED) > 40


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.split("|")[1].strip()[:50])
def test_a_claim_has_its_tests(row: str) -> None:
    _, claim, tests, _ = row.split("|")
    assert claim.strip()
    assert re.fullmatch(r" `[\w/]+\.py::test_\w+`(, `[\w/]+\.py::test_\w+`)* ", tests)


@pytest.mark.parametrize(("file", "name"), sorted(set(NAMED)), ids=str)
def test_a_test_that_it_names_is_there(file: str, name: str) -> None:
    assert re.search(rf"^ *def {name}\(", (TESTS / file).read_text("utf-8"), re.M)
