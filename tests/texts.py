"""What logs, events and errors say where user namespaces fail (texts.toml), and the symptom that each of them is."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Text:
    """A text and its symptom. `kernel`, `containerd` and `runtime` say what said it, where tests/vm saw it."""

    symptom: str
    text: str
    kernel: str = ""
    containerd: str = ""
    runtime: str = ""


TEXTS = tuple(Text(**row) for row in tomllib.loads(Path(__file__).with_suffix(".toml").read_text("utf-8"))["text"])
