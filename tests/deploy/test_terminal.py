"""What a node says in its own words is shown, and no terminal obeys it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import nodes
from tests.deploy.fleet import CHANGE, FETCH, PROVE, PROVEN, READ, Fleet
from tests.words import HARMLESS, HOSTILE, obeyed

FAILED = {"success": False, "stderr": f"error: {HOSTILE}"}


@pytest.mark.parametrize("options", [["-y"], ["-y", "-vvv"], ["-y", "--debug"]], ids=" ".join)
def test_no_word_of_a_node_is_obeyed_by_the_terminal(tmp_path: Path, options: list[str]) -> None:
    made = Fleet(tmp_path)
    for script in (READ, FETCH, CHANGE, PROVE):
        made.add(script.split(".")[0], answers={script: FAILED})
    made.add("warns", answers={CHANGE: f"warning: {HOSTILE}"})
    mount = f"rw - overlay {HOSTILE} rw".replace("\t", " ")
    made.add("proves", answers={PROVE: PROVEN.replace("rw - overlay overlay rw", mount)})
    made.add("is", nodes.bare(os_id=HOSTILE.replace("\t", " ")))
    run = made.deploy(*options)
    for name in ("node", "fetch", "launch", "verify"):
        assert [line for line in run.said(f"@fake/{name}") if HARMLESS in line], run.text
    assert [line for line in run.said("@fake/warns") if line == f"warning: {HARMLESS}"]
    assert obeyed(run.text) == set()
