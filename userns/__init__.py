"""What a node needs for Kubernetes user namespaces, and why: plain functions without pyinfra. Only `python -m userns`
(`__main__`, `console`) reads files and looks at the clock.

`plan(node, policy, templates)` gives a `Plan`: decisions with reasons, findings, tier and the exact changes. A `Node`
is what `tasks.node.Node` reads; `userns.policy.load` makes a `Policy` of settings.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from userns.node import Node
    from userns.planning import Plan, plan
    from userns.policy import Policy

__version__ = "0.1.0"
__all__ = ["Node", "Plan", "Policy", "plan"]

_HOMES = {"Node": "userns.node", "Plan": "userns.planning", "Policy": "userns.policy", "plan": "userns.planning"}


def __getattr__(name: str) -> Any:
    """What is exported is loaded when it is first asked for: most of this package needs no pydantic."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
