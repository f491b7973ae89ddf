"""deploy.py without the proof at its end, which changes nothing and costs as much as a small change does.

What the proof would say is looked at from outside, by the verdict.
"""

from tasks import assess, containerd, install
from tasks.refusal import contained

with contained():
    plan = assess.plan_or_refuse()

    if plan and plan.changes:
        stage = install.stage(plan)
        containerd.stage(plan, stage)
        containerd.activate(plan, stage)
