"""What a run over a converged fleet costs, beside Ansible: remote commands, seconds, CPU of the controller.

    python -m bench             1 and 10 real nodes, 50 and 100 addresses; as root
    python -m bench --quick     1 and 10 real nodes, once each
    python -m bench many        what a second Dask worker brings; needs neither root nor Ansible

Nearly all of the half hour that it takes is Ansible's.

Both tools reach the same nodes over the same SSH in the same minutes, so that their ratio means something on any
machine. Their absolute times do not: controller and nodes share its cores. A benchmark, not a test.
"""
