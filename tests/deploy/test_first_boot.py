"""The first boot's script, run for real in a directory of its own: what it does where it cannot do all of it."""

from __future__ import annotations

import fcntl
import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.unit import test_image as images
from userns import paths
from userns.changes import WriteFile

# A check that finds this tier, and says which of the texts it is.
CHECK = '#!/bin/sh\n# {name}\nprintf \'{{\\n  "tier": "chown",\\n}}\\n\' >"$3"\n'
FILES = (paths.CONFIG, paths.CHECK, *paths.CONFIG_FOR.values(), *paths.CHECK_FOR.values())


@dataclass(frozen=True)
class Booting:
    """A machine whose image was baked for 6.12, and whose kernel is one that needs slow_chown."""

    root: Path

    def at(self, path: str) -> Path:
        """Where a path of the node's is here."""
        return self.root / path.lstrip("/")

    def boot(self, *shell: str) -> str:
        """What the first boot says. It may never fail."""
        path = f"{self.root}/bin:{os.environ['PATH']}"
        done = subprocess.run(
            [*(shell or ("sh",)), self.at(paths.FIRST_BOOT)],
            env={"PATH": path},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stderr == ""
        return done.stdout

    def fail(self, program: str, word: str) -> None:
        """Let a program fail where a word is among its arguments."""
        fake = self.root / "bin" / program
        fake.write_text(f'#!/bin/sh\ncase "$*" in *{word}*) exit 1 ;; esac\nexec /usr/bin/{program} "$@"\n')
        fake.chmod(0o755)

    @property
    def limit(self) -> Path:
        """user.max_user_namespaces of this machine."""
        return self.root / "proc/sys/user/max_user_namespaces"

    def fits(self) -> tuple[bool, bool]:
        """Whether config.toml and the check are those of this kernel."""
        pairs = (paths.CONFIG, paths.CONFIG_FOR["slow-chown"]), (paths.CHECK, paths.CHECK_FOR["chown"])
        config, check = (self.at(path).read_text() == self.at(rendering).read_text() for path, rendering in pairs)
        return config, check


@pytest.fixture
def booting(tmp_path: Path) -> Booting:
    machine = Booting(tmp_path)
    texts = {
        each.path: each.content for each in images.plan("6.12.48").changes if isinstance(each, WriteFile) and each.path
    }
    for path in (*FILES, paths.FIRST_BOOT, paths.PRE_START, paths.MANIFEST, paths.READINESS):
        machine.at(path).parent.mkdir(parents=True, exist_ok=True)
    for path in FILES:
        text = CHECK.format(name="baked" if path == paths.CHECK else path) if path.startswith(paths.CHECK) else path
        machine.at(path).write_text(text)
        machine.at(path).chmod(0o755)
    machine.at(paths.CONFIG).write_text(paths.CONFIG_FOR["idmapped"])
    machine.at(paths.CHECK).write_text(machine.at(paths.CHECK_FOR["idmapped"]).read_text())
    machine.at(paths.MANIFEST).write_text(f"file\t{machine.at(paths.CONFIG)}\told\n")
    machine.at(paths.PRE_START).write_text("#!/bin/sh\necho >>$0.ran\n")
    machine.at(paths.PRE_START).chmod(0o755)
    tops = "|".join({f"/{each.split('/')[1]}" for each in (*FILES, paths.STATE, paths.READINESS)} | {"/proc"})
    script = re.sub(rf"(?<=[ =\"\n])({tops})/(?!dev)", rf"{tmp_path}\1/", texts[paths.FIRST_BOOT])
    machine.at(paths.FIRST_BOOT).write_text(re.sub(r"^PATH=.*\n", "", script, count=1, flags=re.M))
    (tmp_path / "bin").mkdir()
    for path, text in (("user/max_user_namespaces", "16384"), ("kernel/threads-max", "500000")):
        file = tmp_path / "proc/sys" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{text}\n")
    return machine


def test_what_fits_the_kernel_is_put_in_place_and_recorded(booting: Booting) -> None:
    said = booting.boot()
    assert booting.fits() == (True, True)
    assert f"put in place what fits: {booting.at(paths.CONFIG)} {booting.at(paths.CHECK)}" in said
    assert "error" not in said
    assert "old" not in booting.at(paths.MANIFEST).read_text()
    assert booting.at(f"{paths.PRE_START}.ran").exists()
    assert "put in place" not in booting.boot()


@pytest.mark.parametrize("state", ["missing", "no directory"])
def test_without_a_state_directory_the_machine_is_fitted_all_the_same(booting: Booting, state: str) -> None:
    """/var may be a new volume, or cannot be written to."""
    booting.at(paths.MANIFEST).unlink()
    booting.at(paths.STATE).rmdir()
    if state == "no directory":
        booting.at(paths.STATE).touch()
    said = booting.boot()
    assert booting.fits() == (True, True)
    assert "put in place what fits" in said
    assert booting.at(paths.READINESS).exists()


def test_what_a_cut_off_change_has_begun_is_left_to_the_unit_that_undoes_it(booting: Booting) -> None:
    booting.at(f"{paths.STATE}/activation").touch()
    assert booting.boot().startswith("userns-node: a change of this node was cut off")
    assert booting.fits() == (False, False)
    assert not booting.at(f"{paths.PRE_START}.ran").exists()


def test_so_it_is_in_every_shell(booting: Booting, shell: list[str]) -> None:
    """Each can hold the lock."""
    assert "put in place what fits" in booting.boot(*shell)
    assert booting.fits() == (True, True)


def test_where_the_lock_cannot_be_had_no_deploy_can_be_running(booting: Booting) -> None:
    booting.fail("flock", "9")
    flock = booting.root / "bin/flock"
    flock.write_text(flock.read_text().replace("exit 1", "exit 65"))
    assert "put in place what fits" in booting.boot()


def test_beside_a_deploy_that_is_running_nothing_is_changed(booting: Booting) -> None:
    flock = booting.root / "bin/flock"
    flock.write_text('#!/bin/sh\nshift 2; exec /usr/bin/flock -n "$@"\n')  # not the ten seconds
    flock.chmod(0o755)
    with booting.at(f"{paths.STATE}/lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert booting.boot() == "userns-node: a deploy is changing this node: nothing is changed here\n"
    assert booting.fits() == (False, False)
    booting.boot()
    assert booting.fits() == (True, True)


@pytest.mark.parametrize(("broken", "fits"), [(paths.CHECK, (True, False)), (paths.CONFIG, (False, True))])
def test_one_file_that_cannot_be_replaced_keeps_the_other_from_nothing(
    booting: Booting, broken: str, fits: tuple[bool, bool]
) -> None:
    """/usr may be read-only, or the disk too full for the larger one."""
    booting.fail("cp", Path(broken).name + ".userns")
    said = booting.boot()
    assert booting.fits() == fits
    assert f"error: could not be replaced, and left as it was: {booting.at(broken)}\n" in said
    assert "old" not in booting.at(paths.MANIFEST).read_text()
    (booting.root / "bin/cp").unlink()
    booting.boot()
    assert booting.fits() == (True, True)


@pytest.mark.parametrize(
    ("live", "threads", "then"), [(16384, 500000, 250000), (16384, 9000, 16384), (20000, 500000, 20000)]
)
def test_the_images_limit_takes_nothing_from_a_large_machine(
    booting: Booting, live: int, threads: int, then: int
) -> None:
    """What the kernel gives at boot, half of threads-max, was lowered by the image's file; another's figure stays."""
    booting.limit.write_text(f"{live}\n")
    (booting.root / "proc/sys/kernel/threads-max").write_text(f"{threads}\n")
    booting.boot()
    assert int(booting.limit.read_text()) == then
