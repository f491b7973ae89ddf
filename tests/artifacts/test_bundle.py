"""`python -m artifacts bundle`, and `check` of what it made."""

from __future__ import annotations

import json
import os
import subprocess
import tarfile
from pathlib import Path

import pytest

from artifacts.bundlefile import BundleFile
from artifacts.errors import Refused, Unusable
from artifacts.lockfile import ROOT
from tests.artifacts.conftest import Run, whole_lock
from tests.artifacts.loopback import Answer, LoopbackSite, content, digests, release
from userns.policy import PolicyError, load
from userns.releases import Lock

DEFAULTS = [("containerd", "2.3.5"), ("runc", "1.4.4")]
ALL = ("amd64", "arm64", "ppc64le", "riscv64", "s390x")


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    """A lock file of which the site and the folder have everything."""
    return whole_lock(tmp_path / "whole.toml", 'verified = "by hand"\n')


@pytest.fixture
def bundle(run: Run, lock: Path, folder: Path, tmp_path: Path) -> Path:
    file = tmp_path / "bundle.tar"
    ran = run("bundle", file, "--lock", lock, "--from", folder)
    assert ran.code == 0, ran.err
    return file


def path(component: str, version: str, arch: str) -> str:
    return release(component, version).assets()[arch]


def start_of(bundle: Path, component: str, version: str, arch: str) -> int:
    """Where an asset's content begins in the file."""
    with tarfile.open(bundle) as tar:
        return tar.getmember(path(component, version, arch).lstrip("/")).offset_data


class TestMaking:
    def test_without_versions_it_has_what_a_host_without_settings_gets(self, bundle: Path) -> None:
        held = BundleFile(bundle).bundle
        assert [(each.component, each.version, each.architecture) for each in held.assets] == [
            (component, version, arch) for component, version in DEFAULTS for arch in ALL
        ]

    def test_the_manifest_says_what_it_has_and_where_the_digests_come_from(self, bundle: Path, lock: Path) -> None:
        with tarfile.open(bundle) as tar:
            assert tar.getnames()[0] == "manifest.json"
            file = tar.extractfile("manifest.json")
            assert file
            manifest = json.load(file)
        assert manifest["assets"][0] == {
            "component": "containerd",
            "version": "2.3.5",
            "architecture": "amd64",
            "path": path("containerd", "2.3.5", "amd64"),
            "size": len(content("containerd", "2.3.5", "amd64")),
            "sha256": digests("containerd", "2.3.5")["amd64"],
            "verified": "by hand",
            "source": "a test",
        }

    def test_the_same_versions_give_the_same_bytes_wherever_they_come_from(
        self, run: Run, bundle: Path, mirror: LoopbackSite, lock: Path, tmp_path: Path
    ) -> None:
        again = tmp_path / "elsewhere" / "other-name.tar"
        again.parent.mkdir()
        lock.write_text(f"# Somebody's own, who has added others.\n{lock.read_text()}")
        words = ["runc", "1.4.4", "containerd=2.3.5"]
        assert run("bundle", again, *words, "--lock", lock, "--from", mirror.url).code == 0
        assert again.read_bytes() == bundle.read_bytes()
        assert again.stat().st_mode & 0o777 == 0o644

    @pytest.mark.parametrize("words", [["containerd=2.3.5"], ["runc", "1.4.4"], ["crun="]])
    def test_a_forgotten_file_is_usage_and_nothing_is_written(
        self,
        run: Run,
        lock: Path,
        folder: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        words: tuple[str, ...],
    ) -> None:
        (tmp_path / "here").mkdir()
        monkeypatch.chdir(tmp_path / "here")
        ran = run("bundle", *words, "--lock", lock, "--from", folder, "--arch", "amd64")
        assert ran.code == 2
        assert f"'{words[0]}' is what goes in: name the file before it, such as bundle.tar {words[0]}" in ran.err
        assert list(Path.cwd().iterdir()) == []
        assert run("bundle", f"./{words[0]}", "--lock", lock, "--from", folder).code == 0  # if that is what is meant

    def test_only_the_architectures_that_are_named(self, run: Run, lock: Path, folder: Path, tmp_path: Path) -> None:
        file = tmp_path / "arm.tar"
        assert run("bundle", file, "--arch", "arm64", "--lock", lock, "--from", folder).code == 0
        assert {each.architecture for each in BundleFile(file).bundle.assets} == {"arm64"}

    def test_unpacked_it_is_a_mirror(self, run: Run, bundle: Path, lock: Path, tmp_path: Path) -> None:
        root = tmp_path / "unpacked"
        root.mkdir()
        subprocess.run(["tar", "-xf", bundle, "-C", root], check=True)
        only = [f"--only={component}={version}" for component, version in DEFAULTS]
        assert run("check", root, *only, "--lock", lock) == (0, f"{root}: 10 good\n", "")

    def test_what_the_hosts_of_an_inventory_ask_for(self, run: Run, lock: Path, folder: Path, tmp_path: Path) -> None:
        inventory = tmp_path / "inventory.py"
        inventory.write_text(
            "print('hello')\n"
            f"old = (['a'], {{'containerd_version': '2.2.8', 'artifact_lock': {str(lock)!r}}})\n"
            f"new = (['b', 'c'], {{'artifact_lock': {str(lock)!r}, 'install_from': 'bundle', "
            "'artifact_bundle': 'not-there-yet.tar'})\n"
            "packages = (['d'], {'install_from': 'package', 'containerd_version': '1.7.1', 'runc_version': '1.1.1'})\n"
        )
        file = tmp_path / "bundle.tar"
        ran = run("bundle", file, "--inventory", inventory, "--arch", "amd64", "--from", folder)
        assert ran.code == 0, ran.err
        assert [(each.component, each.version) for each in BundleFile(file).bundle.assets] == [
            ("containerd", "2.2.8"),
            ("containerd", "2.3.5"),
            ("runc", "1.4.4"),
        ]

    def test_an_inventory_of_images(
        self, run: Run, lock: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Such hosts have a connector of this project's."""
        monkeypatch.setenv("IMAGE_ROOTS", str(tmp_path))
        words = ("--inventory", ROOT / "inventories/golden.py", "--lock", lock, "--from", folder, "--arch", "amd64")
        file = tmp_path / "bundle.tar"
        ran = run("bundle", file, *words)
        assert ran.code == 0, ran.err
        assert {each.component for each in BundleFile(file).bundle.assets} == {"containerd", "runc"}

    def test_what_json_has_no_word_for_is_refused_by_the_settings_name(
        self, run: Run, folder: Path, tmp_path: Path
    ) -> None:
        inventory = tmp_path / "inventory.py"
        inventory.write_text("from pathlib import Path\nhosts = (['a'], {'artifact_lock': Path('lock1.toml')})\n")
        ran = run("bundle", tmp_path / "bundle.tar", "--inventory", inventory, "--from", folder)
        assert ran.code == 2
        assert "there is no lock file PosixPath('lock1.toml')" in ran.err

    def test_an_inventory_with_a_mistake_is_refused_with_the_host(self, run: Run, folder: Path, tmp_path: Path) -> None:
        inventory = tmp_path / "inventory.py"
        inventory.write_text("hosts = (['a'], {'max_pods': 'many'})\n")
        ran = run("bundle", tmp_path / "bundle.tar", "--inventory", inventory, "--from", folder)
        assert ran.code == 2
        assert "a: one setting is refused:\n  max_pods = 'many'" in ran.err

    def test_a_slip_of_a_settings_name_is_refused_as_a_deploy_refuses_it(
        self, run: Run, folder: Path, tmp_path: Path
    ) -> None:
        data = {
            "containerd_versoin": "2.2.7",
            "containerd_confg": {"password": "hunter2"},
            "relase_url": "https://robot:hunter2@mirror.example",
            "max_unavailabel": 2,
            "somebody_elses": "own",
        }
        inventory = tmp_path / "inventory.py"
        inventory.write_text(f"hosts = (['a'], {data | {'max_pod': 'SET'}!r})\n".replace("'SET'", "{5}"))
        ran = run("bundle", tmp_path / "bundle.tar", "--inventory", inventory, "--from", folder)
        assert (ran.code, ran.out) == (2, "")
        with pytest.raises(PolicyError) as deploys:
            load(data | {"max_pod": "{5}"}, "")
        slips = [str(each) for each in deploys.value.problems if each.meant]
        assert len(slips) == 5
        assert ran.err.splitlines()[1:] == [f"  {each}" for each in slips]
        assert "hunter2" not in ran.err

    @pytest.mark.parametrize(
        ("inventory", "helper", "says"),
        [
            ("x = 1\nhosts = (['a'], {'allow': [nosuch]})\n", "", "{inventory}, line 2: NameError: name 'nosuch' is "),
            ("import nosuch_module\n", "", "{inventory}, line 1: ModuleNotFoundError: No module named 'nosuch_module'"),
            ("hosts = [['a', {}]]\n", "", "{inventory}: CliError: hosts is no group of hosts as pyinfra takes it, "),
            ("x = 1\nhosts = (['a'\n", "", "{inventory}, line 2: SyntaxError: '[' was never closed"),
            (
                "\nimport its_helper\n",
                "\n\nx = y\n",
                "{inventory}, line 2: {helper}, line 3: NameError: name 'y' is not defined",
            ),
        ],
    )
    def test_an_inventory_that_python_cannot_run_is_one_line_with_its_place(
        self, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inventory: str, helper: str, says: str
    ) -> None:
        places = {"inventory": tmp_path / "inventory.py", "helper": tmp_path / "its_helper.py"}
        places["inventory"].write_text(inventory)
        places["helper"].write_text(helper)
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        ran = run("bundle", tmp_path / "bundle.tar", "--inventory", places["inventory"])
        assert (ran.code, ran.out) == (2, "")
        head, line = ran.err.splitlines()
        assert head == f"python -m artifacts bundle: the inventory {places['inventory']} cannot be used:"
        assert line.startswith(says.format(**places))

    @pytest.mark.parametrize(
        ("spoil", "says"),
        [
            ("absent", "containerd 2.3.5 arm64: "),
            ("swapped", "containerd 2.3.5 arm64 is not what the lock file pins"),
            ("short", "containerd 2.3.5 arm64 is not what the lock file pins: 10 bytes"),
        ],
    )
    def test_what_is_not_as_pinned_is_not_bundled(
        self, run: Run, lock: Path, folder: Path, bundle: Path, spoil: str, says: str
    ) -> None:
        before = bundle.read_bytes()
        asset = folder / path("containerd", "2.3.5", "arm64").lstrip("/")
        other = folder / path("containerd", "2.3.5", "amd64").lstrip("/")
        if spoil == "absent":
            asset.unlink()
        else:
            asset.write_bytes(other.read_bytes()[: 10 if spoil == "short" else None])
        ran = run("bundle", bundle, "--lock", lock, "--from", folder)
        assert ran.code == 1
        assert says in ran.err
        assert f"{bundle} was not written" in ran.err
        assert bundle.read_bytes() == before
        assert sorted(each.name for each in bundle.parent.iterdir()) == ["bundle.tar", "mirror", "whole.toml"]

    def test_every_asset_that_a_mirror_lacks_is_named(
        self, run: Run, lock: Path, mirror: LoopbackSite, tmp_path: Path
    ) -> None:
        del mirror.answers[path("containerd", "2.3.5", "amd64")]
        mirror.answers[path("runc", "1.4.4", "arm64")] = Answer(status=403)
        ran = run("bundle", tmp_path / "bundle.tar", "--lock", lock, "--from", mirror.url, "--retries", 0)
        assert ran.code == 1
        assert "containerd 2.3.5 amd64: " in ran.err
        assert "runc 1.4.4 arm64: " in ran.err

    def test_a_version_that_is_not_locked_is_refused_with_the_way_to_add_it(
        self, run: Run, lock: Path, folder: Path, tmp_path: Path
    ) -> None:
        ran = run("bundle", tmp_path / "bundle.tar", "crun=1.31", "--lock", lock, "--from", folder)
        assert ran.code == 2
        assert "python -m artifacts add crun 1.31" in ran.err

    def test_a_folder_is_no_name_for_a_bundle(self, run: Run, lock: Path, folder: Path, tmp_path: Path) -> None:
        ran = run("bundle", tmp_path, "--lock", lock, "--from", folder)
        assert ran.code == 2
        assert f"name the file, such as {tmp_path}/bundle.tar" in ran.err

    def test_what_is_no_file_is_not_replaced_and_a_link_stays_one(
        self, run: Run, lock: Path, folder: Path, tmp_path: Path
    ) -> None:
        """/dev/null among others: no device is named here, for root would lose it."""
        pipe, link, file = tmp_path / "pipe", tmp_path / "link.tar", tmp_path / "elsewhere.tar"
        os.mkfifo(pipe)
        ran = run("bundle", pipe, "--lock", lock, "--from", folder, "--arch", "amd64")
        assert (ran.code, pipe.is_fifo()) == (2, True)
        assert f"{pipe} is there and no file" in ran.err
        link.symlink_to(file)
        assert run("bundle", link, "--lock", lock, "--from", folder, "--arch", "amd64").code == 0
        assert link.is_symlink()
        assert BundleFile(file).bundle.assets


class TestChecking:
    def test_all_is_well(self, run: Run, bundle: Path, lock: Path) -> None:
        assert run("check", bundle, "--lock", lock) == (0, f"{bundle}: 10 good\n", "")

    def test_what_it_ought_to_have_is_named(self, run: Run, bundle: Path, lock: Path) -> None:
        ran = run("check", bundle, "--only", "containerd=2.2.8", "--only", "runc", "--lock", lock)
        assert ran == (1, f"containerd 2.2.8: missing: {', '.join(ALL)}\n{bundle}: 5 good, 5 missing\n", "")

    def test_what_a_host_without_settings_gets_is_told_where_it_is_not_in_it(
        self, run: Run, lock: Path, folder: Path, tmp_path: Path
    ) -> None:
        """A deploy refuses such a host; one whose settings name the older version is well, so it is no fault."""
        old, words = tmp_path / "old.tar", ["containerd=2.2.8", "runc=1.4.4"]
        made = run("bundle", old, *words, "--arch", "amd64", "--arch", "arm64", "--lock", lock, "--from", folder)
        assert made.code == 0
        told = "containerd 2.3.5 is not in it for amd64, arm64: a node whose settings name no version is refused"
        assert run("check", old, "--lock", lock) == (0, f"{told}\n{old}: 4 good\n", "")
        assert json.loads(run("check", old, "--lock", lock, "--json").out)["lacking"] == [
            {"component": "containerd", "version": "2.3.5", "architecture": arch} for arch in ("amd64", "arm64")
        ]
        only = [f"--only={word}" for word in words]
        assert run("check", old, *only, "--arch", "amd64", "--lock", lock) == (0, f"{old}: 2 good\n", "")
        # A lock file from which no such host gets anything.
        lock.write_text(lock.read_text().partition("[runc]")[0])
        assert run("check", old, "--lock", lock).code == 0

    def test_swapped_contents_are_found(self, run: Run, bundle: Path, lock: Path) -> None:
        amd64, arm64 = content("containerd", "2.3.5", "amd64"), content("containerd", "2.3.5", "arm64")
        assert len(amd64) == len(arm64)
        with bundle.open("r+b") as file:
            for arch, swapped in (("amd64", arm64), ("arm64", amd64)):
                file.seek(start_of(bundle, "containerd", "2.3.5", arch))
                file.write(swapped)
        ran = run("check", bundle, "--lock", lock)
        assert ran.code == 1
        assert "containerd 2.3.5 amd64: wrong: it is containerd 2.3.5 for arm64: " in ran.out
        assert f"{bundle}: 8 good, 2 wrong" in ran.out

    def test_what_another_lock_pins_is_not_good_here(self, run: Run, bundle: Path, lock: Path) -> None:
        text = lock.read_text()
        assert Lock.parse(text)
        lock.write_text(text.replace(digests("runc", "1.4.4")["amd64"], "0" * 64))
        ran = run("check", bundle, "--lock", lock)
        assert ran.code == 1
        assert "runc 1.4.4 amd64: wrong: " in ran.out

    def test_a_bundle_is_read_whole_or_refused_wherever_it_was_cut(self, run: Run, bundle: Path, lock: Path) -> None:
        whole = bundle.read_bytes()
        end = start_of(bundle, "runc", "1.4.4", "s390x") + len(content("runc", "1.4.4", "s390x"))
        for size in (0, 1, 512, 700, 5000, end - 4600, end - 1):
            bundle.write_bytes(whole[:size])
            ran = run("check", bundle, "--lock", lock)
            assert ran.code == 1, size
            assert "is no whole bundle: " in ran.err
            assert "Traceback" not in ran.err

    @pytest.mark.timeout(30)
    @pytest.mark.parametrize(
        "size",
        # GNU's binary form, for sizes beyond 8 GiB and below 0: the next header is this one, or the one before it.
        [b"\x80" + b"\xff" * 11, (-512).to_bytes(12, "big", signed=True), (-6656).to_bytes(12, "big", signed=True)],
        ids=["beyond every file", "this header once more", "a header before it"],
    )
    def test_a_size_that_no_file_can_have_is_a_refusal(self, run: Run, bundle: Path, lock: Path, size: bytes) -> None:
        header = start_of(bundle, "runc", "1.4.4", "amd64") - 512
        with bundle.open("r+b") as file:
            file.seek(header)
            block = bytearray(file.read(512))
            block[124:136] = size
            block[148:156] = b" " * 8
            block[148:156] = b"%06o\0 " % sum(block)
            file.seek(header)
            file.write(block)
        ran = run("check", bundle, "--lock", lock)
        assert (ran.code, ran.out) == (1, "")
        assert "is no whole bundle: " in ran.err
        assert ran.err.count("\n") == 1

    @pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.GNUTYPE_SPARSE])
    def test_headers_that_a_reader_of_tar_breaks_on_are_a_refusal(
        self, run: Run, bundle: Path, lock: Path, kind: bytes
    ) -> None:
        """Thousands that each describe the next one, and one that goes on beyond the end of the file."""
        end = start_of(bundle, "runc", "1.4.4", "s390x") + len(content("runc", "1.4.4", "s390x"))
        entry = tarfile.TarInfo("x")
        entry.type, entry.size = kind, 12 if kind == tarfile.XHDTYPE else 0
        block = bytearray(entry.tobuf(tarfile.GNU_FORMAT))
        block[482] = 1  # of a sparse file: more of its map follows
        block[148:156] = b" " * 8
        block[148:156] = b"%06o\0 " % sum(block)
        more = b"12 a=bcdefg\n".ljust(512, b"\0") if kind == tarfile.XHDTYPE else b""
        bundle.write_bytes(bundle.read_bytes()[: -(-end // 512) * 512] + (bytes(block) + more) * (3000 if more else 1))
        ran = run("check", bundle, "--lock", lock)
        assert (ran.code, ran.out) == (1, "")
        assert "is no whole bundle: " in ran.err
        assert ran.err.count("\n") == 1

    def test_an_asset_that_the_manifest_promises_and_the_file_lacks_is_named(
        self, run: Run, bundle: Path, lock: Path, tmp_path: Path
    ) -> None:
        lacks, gone = tmp_path / "lacks.tar", path("runc", "1.4.4", "arm64").lstrip("/")
        with tarfile.open(bundle) as whole, tarfile.open(lacks, "w") as tar:
            for member in whole:
                if member.name != gone:
                    tar.addfile(member, whole.extractfile(member))
        ran = run("check", lacks, "--lock", lock)
        assert (ran.code, ran.out) == (1, "")
        assert ran.err.endswith(
            f"{lacks} is no whole bundle: runc 1.4.4 for arm64 is not in it as its manifest says. Copy it anew\n"
        )
        assert ran.err.count("\n") == 1

    def test_a_file_that_is_no_bundle_is_refused(self, run: Run, lock: Path) -> None:
        ran = run("check", lock, "--lock", lock)
        assert ran.code == 1
        assert "is no whole bundle" in ran.err


class TestReading:
    def test_an_asset_is_read_once_however_many_nodes_get_it(
        self, bundle: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        file = BundleFile(bundle)
        asset = file.bundle.assets[0]
        file.prove(asset)
        monkeypatch.setattr(file, "pieces", lambda _: pytest.fail("it was read again"))
        file.prove(asset)

    def test_what_is_damaged_is_refused_by_name(self, bundle: Path) -> None:
        with bundle.open("r+b") as raw:
            raw.seek(start_of(bundle, "runc", "1.4.4", "arm64"))
            raw.write(b"X")
        file = BundleFile(bundle)
        arm64 = next(each for each in file.bundle.assets if str(each) == "runc 1.4.4 for arm64")
        with pytest.raises(Refused, match=r"is damaged: runc 1\.4\.4 for arm64 in it has the SHA-256"):
            file.prove(arm64)

    def test_a_file_that_gets_shorter_meanwhile_is_an_error(self, bundle: Path) -> None:
        file = BundleFile(bundle)
        with bundle.open("r+b") as raw:
            raw.truncate(start_of(bundle, "runc", "1.4.4", "arm64") + 5)
        arm64 = next(each for each in file.bundle.assets if str(each) == "runc 1.4.4 for arm64")
        with pytest.raises(OSError, match="ends in the middle of runc"):
            list(file.pieces(arm64))

    def test_what_cannot_be_read_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(Unusable, match="cannot be read: No such file"):
            BundleFile(tmp_path / "nothing.tar")
        with pytest.raises(Unusable, match="is no file"):
            BundleFile(tmp_path)

    @pytest.mark.parametrize("extra", ["file", "link"])
    def test_what_the_manifest_does_not_name_is_refused(self, bundle: Path, extra: str) -> None:
        with tarfile.open(bundle, "a") as tar:
            entry = tarfile.TarInfo("more")
            entry.type = tarfile.SYMTYPE if extra == "link" else tarfile.REGTYPE
            tar.addfile(entry)
        with pytest.raises(Refused, match="holds what its manifest does not name, or twice: 'more'"):
            BundleFile(bundle)

    def test_what_is_there_twice_is_refused(self, bundle: Path) -> None:
        name = path("runc", "1.4.4", "arm64").lstrip("/")
        with tarfile.open(bundle, "a") as tar:
            tar.addfile(tarfile.TarInfo(name))
        with pytest.raises(Refused, match=f"holds what its manifest does not name, or twice: {name!r}"):
            BundleFile(bundle)
