"""The fault harness: break a real node while it is changed, at every step and at random, and judge what is there then.

    python -m tests.faults                       what `make test-faults` runs
    python -m tests.faults --seed 7              the same draw of cases as another day
    python -m tests.faults kill@config:17        this case alone

A case is a fault, a change, and where it makes sense when it strikes: at a step of the change (17), or some way through
the deploy (~0.4 of the time that it takes); its name says all three. `catalogue` has the faults, `steps` finds the
steps, `ground` has the node, `verdict` judges.
"""
