"""What the node script reads of containerd's cgroup driver, where a kubelet works that would have asked for it."""

from __future__ import annotations

import pytest

from tests import nodes
from tests.deploy.node_trees import Tree, kubelet
from userns import changes, paths

PODS = "var/lib/kubelet/pods"
CONFIG = "etc/containerd/config.toml"
RUNTIME = "plugins.'io.containerd.cri.v1.runtime'.containerd"
OLD = 'plugins."io.containerd.grpc.v1.cri".containerd'
RUNC = f"version = 3\n[{RUNTIME}.runtimes.runc.options]\n"
TRUE, FALSE = "SystemdCgroup = true\n", "SystemdCgroup = false\n"


@pytest.fixture
def works(tree: Tree) -> Tree:
    """A node with a kubelet that runs and has made the directory of its pods."""
    kubelet(tree)
    (tree.root / PODS).mkdir(parents=True)
    return tree


def test_the_driver_is_read_where_a_kubelet_works(tree: Tree, shell: list[str]) -> None:
    tree.write(CONFIG, RUNC + TRUE)
    assert tree.read(shell).cgroup_driver == ""
    kubelet(tree)
    assert tree.read(shell).cgroup_driver == "", "it has not joined a cluster yet"
    (tree.root / PODS).mkdir(parents=True)
    assert tree.read(shell).cgroup_driver == "systemd"


def test_a_kubelet_that_does_not_run_now_is_known_by_its_configuration(tree: Tree, shell: list[str]) -> None:
    (tree.root / PODS).mkdir(parents=True)
    assert tree.read(shell).cgroup_driver == ""
    tree.write("var/lib/kubelet/config.yaml", "cgroupDriver: cgroupfs\n")
    node = tree.read(shell)
    assert (node.cgroup_driver, node.running_kubelet) == ("cgroupfs", None)


def test_without_a_config_toml_it_is_containerds_default(works: Tree, shell: list[str]) -> None:
    works.write("etc/containerd/conf.d/a.toml", RUNC + TRUE)  # which nothing imports
    assert works.read(shell).cgroup_driver == "cgroupfs"


def test_a_config_toml_that_cannot_be_read_tells_nothing(works: Tree, shell: list[str]) -> None:
    (works.root / CONFIG).mkdir(parents=True)
    assert works.read(shell).cgroup_driver == ""
    (works.root / CONFIG).rmdir()
    works.write(CONFIG, RUNC + TRUE)
    (works.programs / "awk").unlink()
    assert works.read(shell).cgroup_driver == ""


@pytest.mark.parametrize(
    ("setting", "containerd"), [("systemd", "2.3.4"), ("systemd", "1.7.34"), ("cgroupfs", "2.3.4")]
)
def test_ours_is_read_as_it_was_meant(works: Tree, shell: list[str], setting: str, containerd: str) -> None:
    kubernetes = "1.26" if containerd.startswith("1.") else "1.33"
    plan = nodes.plan(nodes.bare(), cgroup_driver=setting, containerd_version=containerd, kubernetes_version=kubernetes)
    files = [each for each in plan.changes if isinstance(each, changes.WriteFile)]
    works.write(CONFIG, next(each.content for each in files if each.path == paths.CONFIG))
    works.write("etc/containerd/conf.d/nvidia.toml", f"version = 3\n[{RUNTIME}.runtimes.nvidia.options]\n{FALSE}")
    assert works.read(shell).cgroup_driver == setting


@pytest.mark.parametrize(
    ("text", "driver"),
    [
        ("", "cgroupfs"),
        (RUNC + TRUE, "systemd"),
        (RUNC + "\tSystemdCgroup=true # as the kubelet", "systemd"),
        (RUNC + FALSE + "# SystemdCgroup = true\n", "cgroupfs"),
        (RUNC + "SystemdCgroup = false # true\n", "cgroupfs"),
        (f"version = 2\n  [{OLD}.runtimes.runc]\n    [{OLD}.runtimes.runc.options]\n      {TRUE}", "systemd"),
        (f"[ plugins . cri . containerd.runtimes.'runc' . options ]\n{TRUE}", "systemd"),
        (f"version = 3\n[{OLD}.runtimes.runc.options]\n{TRUE}", "cgroupfs"),  # not read in version 3
        (f"version = 3\n[{RUNTIME}.runtimes.runc]\noptions.{TRUE}", "systemd"),
        (f"version = 3\n[{RUNTIME}.runtimes.runc]\noptions = {{ BinaryName = '', SystemdCgroup = true }}\n", "systemd"),
        (f"version = 3\n[{RUNTIME}.runtimes]\nrunc = {{ options = {{SystemdCgroup=true}} }}\n", "systemd"),
        (f"version = 3\n{RUNTIME}.runtimes.runc.options.{TRUE}", "systemd"),
        # Not the default handler's.
        (f"{RUNC}{FALSE}[{RUNTIME}.runtimes.nvidia.options]\n{TRUE}", "cgroupfs"),
        (f"{RUNC}{TRUE}[{RUNTIME}.runtimes.crun.options]\n{FALSE}", "systemd"),
        (f"{RUNC}{FALSE}[other.runc.options]\n{TRUE}", "cgroupfs"),
        # Another default.
        (f"{RUNC}{FALSE}[{RUNTIME}.runtimes.x.options]\n{TRUE}[{RUNTIME}]\ndefault_runtime_name = 'x'", "systemd"),
        (f'{RUNC}{TRUE}[{RUNTIME}.runtimes.x.options]\nRoot = ""\n[{RUNTIME}]\ndefault_runtime_name="x"', "cgroupfs"),
        # One without options, or of another type, has no driver: the next by name has.
        (f'{RUNC}{TRUE}[{RUNTIME}]\ndefault_runtime_name="x"\n', "systemd"),
        (
            f'{RUNC}{TRUE}[{RUNTIME}]\ndefault_runtime_name="kata"\n[{RUNTIME}.runtimes.kata]\n'
            f'runtime_type = "io.containerd.kata.v2"\n[{RUNTIME}.runtimes.kata.options]\nConfigPath = "/k"\n',
            "systemd",
        ),
        # Lines of an array are no table.
        (f'{RUNC}a = [\n["x"],\n["y"]\n]\n{TRUE}', "systemd"),
    ],
)
def test_the_default_handlers_driver_counts(works: Tree, shell: list[str], text: str, driver: str) -> None:
    works.write(CONFIG, text)
    works.write("etc/containerd/config-old.toml", RUNC + TRUE)
    works.write("etc/containerd/conf.d/a.toml", RUNC + TRUE)  # nothing imports it
    assert works.read(shell).cgroup_driver == driver


@pytest.mark.parametrize(
    ("imports", "driver"),
    [
        ('imports = ["/etc/containerd/conf.d/*.toml"]', "systemd"),
        ("imports=['/x.toml', 'conf.d/*.toml'] # mine", "systemd"),
        (
            'imports = [ # some\n  "/x.toml",\n  # "/y.toml",\n  "/etc/containerd/conf.d/a.toml"\n]',
            "systemd",
        ),
        ('imports = [\n  # "/etc/containerd/conf.d/a.toml",\n]', "cgroupfs"),
        ('# imports = ["/etc/containerd/conf.d/a.toml"]', "cgroupfs"),
        ('imports = []\noem = "/etc/containerd/conf.d/a.toml"', "cgroupfs"),
        ('[x]\nimports = ["/etc/containerd/conf.d/a.toml"]', "cgroupfs"),
    ],
)
def test_what_config_toml_imports_counts(works: Tree, shell: list[str], imports: str, driver: str) -> None:
    works.write(CONFIG, f"{imports}\n{RUNC}{FALSE}")
    works.write("etc/containerd/conf.d/a.toml", RUNC + TRUE)
    assert works.read(shell).cgroup_driver == driver


def test_a_drop_in_that_takes_systemd_away_stays_and_is_no_change(works: Tree, shell: list[str]) -> None:
    works.write(CONFIG, f'imports = ["conf.d/*.toml"]\n{RUNC}{TRUE}')
    works.write("etc/containerd/conf.d/a.toml", RUNC + FALSE)
    assert works.read(shell).cgroup_driver == "systemd"


@pytest.mark.parametrize("flags", [("--config", "/usr/share/c.toml"), ("-c=/usr/share/c.toml",)])
def test_a_containerd_with_a_file_of_its_own(works: Tree, shell: list[str], flags: tuple[str, ...]) -> None:
    works.write("usr/share/c.toml", 'imports = ["more.toml"]\n')
    works.write("usr/share/more.toml", RUNC + TRUE)
    words = "".join(f"{word}\0" for word in ("/usr/bin/containerd", *flags))

    def runs_in(unit: str) -> None:
        works.write("proc/50/comm", "containerd\n")
        works.write("proc/50/cgroup", f"0::/system.slice/{unit}\n")
        works.write("proc/50/cmdline", words)

    runs_in("docker.service")
    assert works.read(shell).cgroup_driver == "cgroupfs"
    runs_in("containerd.service")
    assert works.read(shell).cgroup_driver == "systemd"


@pytest.mark.parametrize(
    ("text", "driver"),
    [
        (f"version = 3\n[{RUNTIME}]\nruntimes = {{ runc = {{ options = {{ SystemdCgroup = true }} }} }}\n", "systemd"),
        (f'version = 3\n[{RUNTIME}.runtimes."r\\u0075nc".options]\n"SystemdCgroup"\t=\ttrue\r\n', "systemd"),
        (f"{RUNC}{FALSE}note = '''\n[{RUNTIME}.runtimes.runc.options]\n{TRUE}'''\n", "cgroupfs"),
        (f"{RUNC}args = [\n'x', # [\n]\n{TRUE}", "systemd"),
    ],
)
def test_the_driver_is_read_as_toml_has_it(works: Tree, shell: list[str], text: str, driver: str) -> None:
    works.write(CONFIG, text)
    assert works.read(shell).cgroup_driver == driver
