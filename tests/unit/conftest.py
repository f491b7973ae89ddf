"""Where the check is run, and by which shells."""

from __future__ import annotations

import os

import pytest

from tests.conftest import program, unavailable
from tests.unit.check_place import SHELLS, Place


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Place:
    if os.geteuid() != 0:
        unavailable("only root is told what the kernel says")
    return Place(tmp_path_factory.mktemp("check"))


@pytest.fixture(params=sorted(SHELLS))
def shell(request: pytest.FixtureRequest) -> list[str]:
    program(SHELLS[request.param][0])
    return SHELLS[request.param]
