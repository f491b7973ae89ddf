"""What the check has told of a node after a boot by itself: nobody here starts it."""

from __future__ import annotations

import json
import time
from typing import Any

from lab import Machine
from userns.paths import CHECK_UNIT, READINESS

UNIT = CHECK_UNIT.rpartition("/")[2]
# The check itself ends after 90 seconds at the latest; a busy machine boots slowly.
PATIENCE = 1200


def told(machine: Machine) -> dict[str, Any]:
    """The readiness that the boot's own run wrote, once that run has ended. /run is empty when a boot begins."""
    look = f"systemctl show --value --property ActiveState {UNIT}; cat {READINESS}"
    end = time.monotonic() + PATIENCE
    while True:
        state, _, text = machine.ssh(look, check=False).stdout.partition("\n")
        if text and state in ("inactive", "failed"):
            answer: dict[str, Any] = json.loads(text)
            return answer
        assert time.monotonic() < end, machine.ssh(f"systemctl status --no-pager {UNIT}", check=False).stdout
        time.sleep(0.5)


def times(machine: Machine) -> tuple[int, int]:
    """When multi-user.target was reached and when the check began, in microseconds of the boot's clock."""
    show = "systemctl show --value --property"
    asked = f"{show} ActiveEnterTimestampMonotonic multi-user.target; {show} InactiveExitTimestampMonotonic {UNIT}"
    reached, started = map(int, machine.ssh(asked).stdout.split())
    return reached, started


def journal(machine: Machine) -> str:
    """Every line that the check said in the journal of this boot."""
    return machine.ssh(f"journalctl --quiet --boot --unit {UNIT} --output cat --grep '^userns-node: '").stdout
