"""The fleet: what all nodes of an inventory are and would become, and how they get there wave by wave.

pyinfra connects to nodes and changes them, in a process of its own (`runner`), with the same deploy.py as by hand. Here
is what surrounds it: in which order, how many at a time, what became of each node, and how that is told.
"""
