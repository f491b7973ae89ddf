"""What keeps containerd from tracing a child, by which it holds each user namespace, is named before a change."""

from __future__ import annotations

import json
import os

import pytest

from tasks.files import templates
from tests import nodes
from tests.conftest import unavailable
from tests.selinux import RUNTIME, enforce
from tests.unit.check_place import Place
from userns import check, conflicts, readiness
from userns.node import ConfLine, Image, ImageKernel, Node, SelinuxDomain
from userns.policy import Policy
from userns.tracing import PTRACE_SCOPE

DENIES = {
    "/usr/local/bin/containerd": SelinuxDomain(context=RUNTIME, denied=("process ptrace", "user_namespace create"))
}
FORBIDS, ALLOWS = (ConfLine(file=f"/etc/sysctl.d/{n}.conf", line=f"{PTRACE_SCOPE} = {n}") for n in (3, 2))
OURS = ("ptrace-forbidden", "selinux-denies-containerd")


def image(**changed: object) -> Node:
    return nodes.bare(image=Image(kernels=(ImageKernel(release="6.12.48", overlay="module"),)), **changed)


def found(node: Node, policy: Policy | None = None) -> dict[str, tuple[str, str]]:
    return {
        each.id: (each.severity.value, each.message)
        for each in conflicts.of_node(node, policy or nodes.policy())
        if each.id in OURS
    }


@pytest.mark.parametrize("scope", [None, 0, 1, 2])
def test_a_parent_with_the_capability_may_trace_up_to_scope_2(scope: int | None) -> None:
    live = nodes.bare().sysctls | ({} if scope is None else {PTRACE_SCOPE: scope})
    assert found(nodes.bare(sysctls=live, ptrace_lines=(FORBIDS, ALLOWS))) == {}


def test_scope_3_is_refused_and_told_with_the_file_that_sets_it() -> None:
    forbidden = nodes.bare(sysctls=nodes.bare().sysctls | {PTRACE_SCOPE: 3})
    [(severity, message)] = found(forbidden).values()
    assert severity == "blocker"
    assert "where it is set" in message
    [(_, message)] = found(forbidden.model_copy(update={"ptrace_lines": (ALLOWS, FORBIDS)})).values()
    assert "Set it to 2 in /etc/sysctl.d/3.conf" in message


def test_a_file_that_forbids_it_from_the_next_boot_on_is_a_warning_and_in_an_image_refused() -> None:
    lines = {"ptrace_lines": (ALLOWS, FORBIDS), "sysctls": nodes.bare().sysctls | {PTRACE_SCOPE: 1}}
    assert [severity for severity, _ in found(nodes.bare(**lines)).values()] == ["warning"]
    baked = image(ptrace_lines=(ALLOWS, FORBIDS), selinux="enforcing", selinux_domains=DENIES)
    assert [(id, severity) for id, (severity, _) in found(baked).items()] == [("ptrace-forbidden", "blocker")]
    assert found(image(ptrace_lines=(FORBIDS, ALLOWS))) == {}


def test_what_selinux_denies_the_domain_of_the_containerd_to_come_is_refused() -> None:
    node = nodes.bare(selinux="enforcing", selinux_domains=DENIES)
    severity, message = found(node)["selinux-denies-containerd"]
    assert severity == "blocker"
    assert f"denies process ptrace and user_namespace create to {RUNTIME}, in which" in message
    assert '"(allow container_runtime_t self (process (ptrace)))"' in message
    assert found(node.model_copy(update={"selinux": "permissive"})) == {}
    assert found(node, nodes.policy(install_from="package", containerd_version="2.1.9", runc_version="1.3.6")) == {}
    allowed = {"/usr/local/bin/containerd": SelinuxDomain(context=RUNTIME)}
    assert found(node.model_copy(update={"selinux_domains": allowed})) == {}


def test_containerd_1_traces_nothing() -> None:
    node = nodes.bare(selinux="enforcing", selinux_domains=DENIES, sysctls=nodes.bare().sysctls | {PTRACE_SCOPE: 3})
    old = nodes.policy(kubernetes_version="1.26", containerd_version="1.7.34")
    assert (len(found(node)), found(node, old)) == (2, {})


# --- the check that stays on the node ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Place:
    if os.geteuid() != 0:
        unavailable("only root is told what the kernel says")
    return Place(tmp_path_factory.mktemp("tracing"))


def said(here: Place, **wanted: str) -> dict[str, str]:
    policy = nodes.policy(**wanted)
    ready = readiness.of_node(nodes.bare(), policy)
    done = here.run(check.text(templates(), policy, ready, check.Expected(None, 16384)))
    assert done.returncode in (1, 2)  # the record is missing
    findings = json.loads(done.stdout)["findings"]
    return {each["id"]: each["detail"] for each in findings if each["id"] in OURS and each["severity"] == "blocker"}


def test_the_check_reads_the_scope_and_asks_the_policy(here: Place) -> None:
    here.be(nodes.bare())
    assert said(here) == {}
    scope = here.root / "proc/sys/kernel/yama/ptrace_scope"
    scope.parent.mkdir(parents=True)
    scope.write_text("2\n")
    assert said(here) == {}
    scope.write_text("3\n")
    assert said(here) == {"ptrace-forbidden": "kernel.yama.ptrace_scope is 3"}
    scope.unlink()
    enforce(here.root, allowed="3ffffff")
    here.program("matchpathcon", 'echo "label of $*"')
    assert said(here) == {}
    enforce(here.root, allowed="3ffffdf")
    assert said(here) == {"selinux-denies-containerd": f"it denies process:ptrace to {RUNTIME}"}
    assert said(here, kubernetes_version="1.26", containerd_version="1.7.34") == {}
