"""What a run over a converged fleet costs, beside Ansible: remote commands, seconds, CPU of the controller.

    python -m bench             both of these; as root
    python -m bench fleet       1 and 10 real nodes, 50 and 100 addresses
    python -m bench images      a bake of an image, and a second one of the same
    python -m bench many        what a second Dask worker brings; needs neither root nor Ansible
    … --quick                   1 and 10 real nodes; everything once, and no figures are kept

Nearly all of the half hour that it takes is Ansible's.

Both tools reach the same nodes over the same SSH in the same minutes, so that their ratio means something on any
machine. Their absolute times do not: controller and nodes share its cores. A benchmark, not a test.
"""

import os

# As most operators have it: compiled files are kept.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
