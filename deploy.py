"""Make a node ready for Kubernetes user namespaces: assess it, install, configure, prove.

From this directory:

    pyinfra inventories/INVENTORY.py deploy.py --dry --diff     what would change, and why
    pyinfra inventories/INVENTORY.py deploy.py                  change it
"""

from tasks import assess, containerd, install, verify
from tasks.refusal import contained

with contained():
    plan = assess.plan_or_refuse()

    if plan and plan.changes:
        stage = install.stage(plan)
        containerd.stage(plan, stage)
        containerd.activate(plan, stage)

    if plan and plan.proves:
        verify.prove(plan, of_a_change=True)
