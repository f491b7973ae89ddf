"""The main job with the systemd, the shell and the tools of older distributions: Debian 12's, and Debian 11's.

Theirs are about as old as those of Ubuntu 22.04 and 20.04. The kernel is this machine's, and the programs that are
installed are Debian testing's (see portable.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from lab import Lab, LabNode
from lab.mirror import Mirror
from tests.node import portable, there_and_back
from tests.node import releases as made
from tests.node.releases import Releases
from tests.node.runs import Operator

# Debian 11 has no getsubids, without which a kubelet with a range of its own does not start.
RANGE = (131072, 7208960)
RANGES = {"bookworm": RANGE, "bullseye": None}


@dataclass(frozen=True)
class Older:
    """A node of an older Debian, and what there is to install."""

    node: LabNode
    operator: Operator
    releases: Releases


@pytest.fixture(scope="module", params=RANGES)
def older(
    lab: Lab, mirror: Mirror, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Older]:
    releases = made.build(portable.build(mirror))
    served = lab.serve(releases.mirror)
    operator = Operator(
        lab,
        tmp_path_factory.mktemp("older"),
        **releases.settings(served.url),
        kubelet_id_range=RANGES[request.param],
    )
    node = lab.node(request.param, request.param)
    portable.give_libraries(node)
    yield Older(node, operator, releases)
    node.stop()
    served.stop()


def test_a_range_is_refused_where_no_package_has_getsubids(older: Older) -> None:
    run = older.operator.dry(older.node, kubelet_id_range=RANGE)
    refused = "getsubids-missing" in run.findings(older.node)
    assert refused == (RANGES[older.node.name] is None) == ("No package of debian 11 has it" in run.stderr)
    assert run.code == int(refused)


def test_a_deploy_an_undone_one_and_a_rollback(older: Older) -> None:
    there_and_back.run(older.operator, older.node, older.releases)
