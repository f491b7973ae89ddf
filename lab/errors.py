"""The one error that the lab raises for what a reader can do something about."""


class LabError(RuntimeError):
    """Something that the lab needs is missing or did not work; the message says what to do."""
