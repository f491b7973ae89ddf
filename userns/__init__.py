"""What a node needs for Kubernetes user namespaces, and why: plain functions without pyinfra. Only `python -m userns`
(`__main__`, `console`, `commit`) reads files and looks at the clock.

`planning.plan(node, policy, templates)` gives a `Plan`: decisions with reasons, findings, tier and the exact changes. A
`node.Node` is what `tasks.node.Node` reads; `policy.load` makes a `Policy` of settings.
"""

__version__ = "0.1.0"
