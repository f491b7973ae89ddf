"""What somebody writes who wants a terminal to do something."""

from __future__ import annotations

__all__ = ["HARMLESS", "HOSTILE", "obeyed"]

# The clipboard, the title, a reset, the screen by one character (C1), text that nobody sees, or reads backwards.
HOSTILE = "a\x1b]52;c;cm0gLXJmIC8=\x07b\x1b]0;title\x1b\\c\x1bcd\x9b2Je\x1b[8mf\bg\th\x7f\u202e"
HARMLESS = "a\\x1b]52;c;cm0gLXJmIC8=\\x07b\\x1b]0;title\\x1b\\c\\x1bcd\\x9b2Je\\x1b[8mf\\x08g\th\\x7f\\u202e"


def obeyed(text: str) -> set[str]:
    """The characters in a text that a terminal does not just show."""
    return {each for each in text if not each.isprintable() and each not in "\t\n"}
