"""A bake that is stopped ends at once, in the tree as well. The next one leaves nothing of it, nor one that fails."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lab.paths import PYINFRA, REPO
from tasks import image_tree
from tests.image import trees, written
from tests.image.conftest import Copied
from tests.image.trees import Builder
from userns import paths

EPOCH = "1700000000"
RECORDS = {"manifest", "image.json", "image.cdx.json"}


@contextmanager
def holding(root: Path, program: str, words: str) -> Iterator[Path]:
    """While inside, the tree's program waits where it is called with these words; yields what is there once it does."""
    there = root / "usr/bin" / program
    real = there.with_name(f"{program}.real")
    there.rename(real)
    there.write_text(
        f'#!/bin/sh\ncase "$*" in *\'{words}\'*) echo >/waits; sleep 300 ;; esac\nexec /usr/bin/{program}.real "$@"\n'
    )
    there.chmod(0o755)
    try:
        yield root / "waits"
    finally:
        real.replace(there)
        (root / "waits").unlink(missing_ok=True)


@pytest.mark.parametrize(
    ("program", "words", "sign", "code", "left"),
    [
        ("base64", "-d", signal.SIGINT, 130, {"staged"}),  # the texts arrive
        ("find", "! -name baking -exec rm", signal.SIGINT, 130, {"baking", "lock", "unproven"}),
        ("find", "-newermt", signal.SIGKILL, -signal.SIGKILL, {"baking"}),
    ],
)
def test_a_bake_that_is_cut_off_ends_in_the_tree_and_the_next_one_finishes_it(
    builder: Builder,
    copied: Copied,
    tmp_path: Path,
    program: str,
    words: str,
    sign: signal.Signals,
    code: int,
    left: set[str],
) -> None:
    root = copied()
    before = trees.look(root)
    data = [f"--data={name}={json.dumps(value)}" for name, value in builder.settings.items()]
    own = {"IMAGE_ROOTS": str(root), "SOURCE_DATE_EPOCH": EPOCH, "TMPDIR": str(tmp_path)}
    with holding(root, program, words) as waits:
        run = subprocess.Popen(
            [PYINFRA, "-y", *data, "inventories/golden.py", "deploy.py"],
            cwd=REPO,
            env={**os.environ, **own},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        while not waits.exists():
            assert run.poll() is None, run.communicate()
            time.sleep(0.05)
        run.send_signal(sign)
        said, _ = run.communicate(timeout=60)
        assert run.returncode == code, said
        if sign == signal.SIGINT:
            assert said.count("--> stopped.") == 1
            assert list(tmp_path.iterdir()) == []
        else:
            time.sleep(2)
        assert list(image_tree._users(str(root))) == []
    state = root / paths.STATE.lstrip("/")
    assert {each.name for each in state.iterdir()} - RECORDS >= left
    plan = builder.dry(root)
    assert any(line.startswith("will remove ") and f" in {paths.STATE}: " in line for line in plan.said), plan.said
    builder.bake(root, environment={"SOURCE_DATE_EPOCH": EPOCH})
    assert {each.name for each in state.iterdir()} == RECORDS
    assert written.by(before, root) == written.PLAIN - written.NOT_EVERYWHERE
    times = {about.split()[2] for about in trees.contents(root, sorted(written.PLAIN)).values()}
    assert times == {f"{EPOCH}{'0' * 9}"}
    assert "nothing to do" in builder.bake(root, environment={"SOURCE_DATE_EPOCH": EPOCH}).text


def test_a_bake_that_is_refused_late_leaves_nothing(builder: Builder, copied: Copied) -> None:
    root = copied()
    before = trees.look(root)
    mounted = 'mount -t tmpfs -o ro,mode=755 none "$1/usr/local" && shift && exec "$@"'
    run = builder.run(root, "-y", before=("unshare", "--mount", "sh", "-c", mounted, "sh", str(root)))
    assert run.code == 1
    assert "nothing was changed" in run.text
    assert trees.changed(before, trees.look(root)) == set()


def test_nothing_is_left_where_the_records_are_behind_a_link(builder: Builder, copied: Copied) -> None:
    root = copied()
    there = root / "srv/records"
    there.mkdir()
    (root / paths.STATE.lstrip("/")).symlink_to("/srv/records")
    builder.bake(root, environment={"SOURCE_DATE_EPOCH": EPOCH})
    assert {each.name for each in there.iterdir()} == RECORDS
    assert {each.lstat().st_mtime_ns for each in (there, *there.iterdir())} == {int(EPOCH) * 10**9}
    assert "nothing to do" in builder.bake(root, environment={"SOURCE_DATE_EPOCH": EPOCH}).text


def test_why_a_bake_failed_is_told_once(builder: Builder, copied: Copied) -> None:
    run = builder.run(copied(), "-y", release_url="http://127.0.0.1:9")
    assert run.code == 1
    assert "Traceback" not in run.text
    assert "PyinfraError" not in run.text
    assert run.text.count("on this build host: ") == 1
    assert run.text.count("curl: (7)") == 1
