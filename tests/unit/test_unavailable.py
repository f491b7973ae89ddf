"""What this machine cannot test is told by name: skipped here, a failure in CI."""

from __future__ import annotations

import shutil
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lab.paths import REPO
from tests import labs
from tests.conftest import brought, program, unavailable


def without(program: str) -> Callable[..., str | None]:
    """A search for programs that does not find this one."""
    which = shutil.which
    return lambda name, *rest, **options: None if name == program else which(name, *rest, **options) or f"/bin/{name}"


@pytest.mark.parametrize("program", ["qemu-system-x86_64", "qemu-img", "mkfs.ext4"])
def test_without_qemu_the_missing_program_is_named(monkeypatch: pytest.MonkeyPatch, program: str) -> None:
    monkeypatch.setattr(shutil, "which", without(program))
    assert labs.lacking() == f"the lab needs the program {program}: run lab/install-packages.sh as root"


def test_without_tun_the_device_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", without(""))
    monkeypatch.setattr(labs, "TUN", Path("/nowhere/tun"))
    assert labs.lacking() == "virtual machines need /nowhere/tun, which this machine does not have"


@pytest.mark.parametrize(("ci", "outcome"), [("true", pytest.fail.Exception), ("", pytest.skip.Exception)])
def test_ci_skips_nothing(monkeypatch: pytest.MonkeyPatch, ci: str, outcome: Any) -> None:
    monkeypatch.setenv("CI", ci)
    with pytest.raises(outcome, match="no QEMU"):
        unavailable("no QEMU")


def test_what_a_test_needs_is_installed_on_a_fresh_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    assert program("sh") == shutil.which("sh")
    with pytest.raises(AssertionError, match=r"lab/install-packages\.sh does not bring frobnicate"):
        program("frobnicate")
    monkeypatch.setenv("CI", "true")
    monkeypatch.setattr(shutil, "which", without("shellcheck"))
    with pytest.raises(pytest.fail.Exception, match="shellcheck is not installed: sh lab/install-packages"):
        program("shellcheck")


@pytest.mark.parametrize("name", ["curl", "wget", "mawk", "systemd-analyze", "gpgconf"])
def test_no_debian_has_these_by_itself(name: str) -> None:
    assert name in brought()


def test_a_skip_is_never_silent() -> None:
    options = tomllib.loads((REPO / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]
    assert "-rs" in options["addopts"].split()
