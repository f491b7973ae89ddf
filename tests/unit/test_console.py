"""The console of the command lines: a terminal that lacks characters, and a reader that has seen enough."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.test_explain import NODE
from userns.__main__ import ROOT


def start(*arguments: str, **environment: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", *arguments],
        cwd=ROOT,
        env=os.environ | environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def ascii_only(code: int, *arguments: str, given: bytes = b"") -> str:
    """What it prints where only ASCII can be encoded."""
    process = start(*arguments, PYTHONIOENCODING="ascii")
    out, err = process.communicate(given)
    assert (process.returncode, err) == (code, b"")
    return out.decode("ascii")


def test_a_help_with_an_ellipsis_is_printed_without_it() -> None:
    assert "COMPONENT VERSION\\u2026" in ascii_only(0, "artifacts", "add", "--help")


def test_a_diagnosis_with_an_ellipsis_is_printed_without_it() -> None:
    given = b"x" * 999 + b" runtime does not support user namespaces"
    assert ascii_only(0, "userns", "diagnose", given=given).startswith("line 1: \\u2026 xxx")


def test_json_is_json_there_too(tmp_path: Path) -> None:
    fact = tmp_path / "nodes.json"
    fact.write_text(json.dumps({"caf\xe9-\U0001f600": NODE.to_json()}))
    assert list(json.loads(ascii_only(0, "userns", "explain", "--json", str(fact)))) == ["caf\xe9-\U0001f600"]


@pytest.mark.parametrize("arguments", [("explain", "--containerd", "2.3.5"), ("explain", "--help")])
def test_a_reader_that_has_seen_enough_is_no_verdict(arguments: tuple[str, ...]) -> None:
    process = start("userns", *arguments, PYTHONUNBUFFERED="")  # with it argparse drops the error of its help itself
    assert process.stdout
    assert process.stderr
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait(300) == 141
