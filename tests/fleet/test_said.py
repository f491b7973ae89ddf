"""What was said of a host is known by its name, whatever that is."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from fleet.said import Said
from tests.deploy.fleet import Fleet
from tests.fleet.runs import fleet_py


@pytest.mark.parametrize(
    ("text", "host", "said"),
    [
        ("[n1] refused: no", "n1", "refused: no"),
        ("    [n1]   refused: no \n", "n1", "refused: no"),
        ("[\x1b[1mn1\x1b[0m]    [x] is odd", "n1", "[x] is odd"),
        ("[a] b] refused: no", "a] b", "refused: no"),
        ("[a] refused: no", "a", "refused: no"),
        ("[\\u200b] refused: no", "\u200b", "refused: no"),
    ],
)
def test_a_line_is_kept_for_its_host(text: str, host: str, said: str) -> None:
    log = Said()
    log.names = {"n1": "n1", "a] b": "a] b", "a": "a", "\\u200b": "\u200b"}
    log.emit(logging.makeLogRecord({"msg": text}))
    assert {name: [*lines] for name, lines in log.lines.items()} == {host: [said]}


@pytest.mark.parametrize("text", ["--> Connecting", "[n2] Oh", "[n1]", "n1] Oh", "[n1] Connected", "[n1", "[] x"])
def test_what_is_about_nobody_or_explains_nothing_is_not(text: str) -> None:
    log = Said()
    log.names = {"n1": "n1"}
    log.emit(logging.makeLogRecord({"msg": text}))
    assert not log.lines


def test_why_a_node_with_an_odd_name_needs_attention_is_told(tmp_path: Path) -> None:
    made = Fleet(tmp_path)
    made.add("a]b", "rubbish")
    made.add("n] 1", max_pods="many")
    told = fleet_py("plan", made.inventory, "--json", home=tmp_path).json["nodes"]
    assert "lacks its first line" in told["@fake/a]b"]["reasons"][0]
    assert told["@fake/n] 1"]["status"] == "refused"
