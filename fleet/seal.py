"""Whether two runs had the same --data, without a word of what it was: a value may be a password."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from hashlib import scrypt

__all__ = ["SEAL", "seal", "sealed_as"]

# The option under which a run has its seal.
SEAL = "data_seal"


def seal(data: Mapping[str, object]) -> str:
    """Tells whether two runs had the same data, "" where there is none: a slow digest, as a value may be a password."""
    return _sealed(data, os.urandom(16).hex()) if data else ""


def sealed_as(data: Mapping[str, object], sealed: str) -> bool:
    """Whether this is the data that was sealed so; of what was not sealed, nothing is known against it."""
    return not sealed or _sealed(data, sealed.partition(":")[0]) == sealed


def _sealed(data: Mapping[str, object], salt: str) -> str:
    text = json.dumps(data, sort_keys=True, default=str)
    return f"{salt}:{scrypt(text.encode(), salt=bytes.fromhex(salt), n=2**14, r=8, p=1).hex()}"
