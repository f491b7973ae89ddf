"""A machine whose kernel is too old for nodes is told so before anything is built."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lab import demo, host, idmap


def answering(monkeypatch: pytest.MonkeyPatch, directory: Path, *answer: str) -> None:
    """A kernel that answers the probe so."""
    probe = directory / "probe.sh"
    probe.write_text("probe() { printf '%s\\t' probe tmpfs " + " ".join(f"'{word}'" for word in answer) + "; echo; }\n")
    monkeypatch.setattr(idmap, "PROBE", probe)


def test_the_demo_ends_with_the_kernel_that_is_too_old(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answering(monkeypatch, tmp_path, "cannot", "mount_setattr", "EINVAL", "")
    monkeypatch.setattr(host, "fingerprint", lambda: pytest.fail("it went on"))
    with pytest.raises(SystemExit) as ended:
        demo.main([])
    needed = f"this machine's kernel {os.uname().release} has no idmapped tmpfs: 6.3 or later is needed"
    assert (ended.value.code, capsys.readouterr()) == (1, ("", f"demo: {needed}\n"))


@pytest.mark.parametrize(
    "answer", [("ok", "", "", ""), ("unknown", "perl", "", "there is no perl"), ("cannot", "uid_map", "EPERM", "")]
)
def test_what_says_nothing_of_the_kernel_holds_nobody_up(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, answer: tuple[str, ...]
) -> None:
    answering(monkeypatch, tmp_path, *answer)
    assert idmap.lacking() == ""


def test_the_probe_itself_is_understood() -> None:
    assert idmap.PROBE.exists()
    assert idmap.lacking() in (
        "",
        f"this machine's kernel {os.uname().release} has no idmapped tmpfs: 6.3 or later is needed",
    )
