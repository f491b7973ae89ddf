"""What can go wrong with artifacts, each with the exit code that tells scripts which kind it was."""

from __future__ import annotations

__all__ = ["ArtifactsError", "Refused", "Unusable"]


class ArtifactsError(Exception):
    """A failure whose text says what, why and what to do."""

    code = 2


class Refused(ArtifactsError):
    """What upstream, or a mirror, has is not to be trusted, or is not what the lock pins."""

    code = 1


class Unusable(ArtifactsError):
    """What was asked for could not be done at all: the command line, a file, a missing tool, the network."""
