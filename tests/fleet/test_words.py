"""What a node says in its own words is told and kept, and no terminal obeys it, then or later."""

from __future__ import annotations

import json
from pathlib import Path

from tests import nodes
from tests.deploy.fleet import CHANGE, PROVE, PROVEN, READ, Fleet
from tests.fleet.runs import fleet_py
from tests.words import HARMLESS, HOSTILE, obeyed


def test_no_word_of_a_node_is_obeyed_by_the_terminal_then_or_later(tmp_path: Path) -> None:
    made = Fleet(tmp_path)
    for script in (READ, CHANGE, PROVE):
        failed = {"success": False, "stderr": f"bad {HOSTILE}"}
        made.add(script.split(".")[0], answers={script: failed})
    line = HOSTILE.replace("\t", " ")
    made.add("is", nodes.bare(os_id=line), answers={PROVE: PROVEN.replace("overlay overlay rw", f"overlay {line} rw")})
    options = ("-y", "--max-failures", "9", "--max-unavailable", "9", "--canary", "@fake/is")
    verbose = fleet_py("apply", made.inventory, *options, "--verbose", home=tmp_path)
    run = fleet_py("apply", made.inventory, *options, "--json", home=tmp_path)
    told = json.loads(run.stdout)["nodes"]
    for name in ("node", "launch", "verify"):
        assert f"bad {HARMLESS}" in told[f"@fake/{name}"]["reasons"], run.text
    assert HARMLESS.replace("\t", " ") in told["@fake/is"]["system"]
    report = fleet_py("report", "--json", "-", home=tmp_path)
    shown = [fleet_py("show", "1", *more, home=tmp_path) for more in ([], ["@fake/is"], ["--json"])]
    assert f"bad {HARMLESS}" in shown[0].stdout
    assert [obeyed(each.text) for each in (verbose, run, report, *shown)] == [set()] * 6


def test_nor_why_a_node_could_not_be_reached(tmp_path: Path) -> None:
    made = Fleet(tmp_path)
    made.add_unreachable("gone")
    inventory = made.inventory
    inventory.write_text(
        f"{inventory.read_text()}\n"
        "from pyinfra.api.exceptions import ConnectError\n"
        "from pyinfra.connectors.ssh import SSHConnector\n"
        "def _refuse(self):\n"
        f"    raise ConnectError({HOSTILE!r})\n"
        "SSHConnector.connect = _refuse\n"
    )
    run = fleet_py("plan", inventory, "--json", home=tmp_path)
    assert run.json["nodes"]["gone"]["reasons"] == [HARMLESS], run.text
    assert obeyed(run.text) == set()
