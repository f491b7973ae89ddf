"""Make a node ready for Kubernetes user namespaces: assess it, install, configure, prove.

From this directory:

    pyinfra inventories/INVENTORY.py deploy.py --dry --diff     what would change, and why
    pyinfra inventories/INVENTORY.py deploy.py                  change it
"""

import sys

if __name__ == "deploy":  # pyinfra executes a deploy; among other words it imports it, before it has a host
    sys.exit("--> one at a time: deploy.py alone, and a task such as tasks.verify.user_namespace in a run of its own")

try:
    from tasks import assess, containerd, install, verify
    from tasks.refusal import contained
except ModuleNotFoundError as error:
    if error.name != "tasks":
        raise
    sys.exit("--> run pyinfra from the directory of deploy.py (cd there first): config.py, which it needs, is there")

with contained():
    plan = assess.plan_or_refuse()

    if plan and plan.changes:
        stage = install.stage(plan)
        containerd.stage(plan, stage)
        containerd.activate(plan, stage)

    if plan and plan.proves:
        verify.prove(plan, of_a_change=True)
