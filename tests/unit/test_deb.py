"""`make deb`: what is in the package. tests/system installs it for real."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import workerd
from tests.packages import build_deb, copy_tree, empty_wheel, run

pytestmark = pytest.mark.skipif(not shutil.which("dpkg-deb"), reason="dpkg-deb is not installed (dpkg)")
HOME = "usr/lib/worker"


@pytest.fixture(scope="module")
def wheelhouse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheelhouse")
    for name, version in (("cgroupspy", "0.2.3"), ("msgspec", "0.22.0"), ("pyroute2", "0.9.7"), ("rich", "15.0.0")):
        empty_wheel(folder, name, version)
    return folder


@pytest.fixture(scope="module")
def deb(wheelhouse: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("deb")
    return build_deb(copy_tree(base / "tree"), wheelhouse, base / "dist", "3.11", "3.13")


@pytest.fixture(scope="module")
def members(deb: Path) -> dict[str, tarfile.TarInfo]:
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", deb], stdout=subprocess.PIPE) as process:
        with tarfile.open(fileobj=process.stdout, mode="r|") as archive:
            return {member.name.removeprefix("./"): member for member in archive}


@pytest.fixture(scope="module")
def unpacked(deb: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    root = tmp_path_factory.mktemp("unpacked")
    run("dpkg-deb", "--raw-extract", deb, root)
    yield root


class TestPackage:
    def test_belongs_to_root_and_nobody_else_may_write(self, members: dict[str, tarfile.TarInfo]) -> None:
        assert {(member.uid, member.gid) for member in members.values()} == {(0, 0)}
        assert [name for name, member in members.items() if not member.issym() and member.mode & 0o022] == []
        assert members[f"{HOME}/packages/workerd/init/worker-init"].mode == 0o755

    def test_serves_each_python_from_one_copy(self, members: dict[str, tarfile.TarInfo], deb: Path) -> None:
        for python in ("3.11", "3.13"):
            assert members[f"{HOME}/lib/python{python}/site-packages"].linkname == "../../packages"
        assert "python3 (>= 3.11), python3 (<< 3.14)," in run("dpkg-deb", "--field", deb, "Depends")

    def test_has_the_units_in_the_distributions_place(self, unpacked: Path) -> None:
        units = unpacked / "usr/lib/systemd/system"
        assert "\nExecStart=/usr/lib/worker/bin/workerd\n" in (units / "workerd.service").read_text()
        assert not [path for path in units.iterdir() if "/usr/local" in path.read_text()]

    def test_has_completion_where_debians_shells_look(self, members: dict[str, tarfile.TarInfo]) -> None:
        places = "bash-completion/completions/workerctl", "zsh/vendor-completions/_workerctl"
        assert {f"usr/share/{place}" for place in places} <= members.keys()

    def test_the_policy_is_a_configuration_file(self, unpacked: Path) -> None:
        assert (unpacked / "DEBIAN/conffiles").read_text() == "/etc/workerd/workerd.toml\n"
        assert (unpacked / "etc/workerd/workerd.toml").is_file()

    def test_has_the_sums_of_all_else(self, unpacked: Path) -> None:
        lines = (unpacked / "DEBIAN/md5sums").read_text().splitlines()
        sums = {name: digest for digest, name in (line.split("  ", 1) for line in lines)}
        files = {path for path in (unpacked / "usr").rglob("*") if path.is_file() and not path.is_symlink()}
        assert sums.keys() == {str(path.relative_to(unpacked)) for path in files}
        init = f"{HOME}/packages/workerd/init/worker-init"
        assert sums[init] == hashlib.md5((unpacked / init).read_bytes(), usedforsecurity=False).hexdigest()

    def test_version_and_name(self, deb: Path) -> None:
        assert re.fullmatch(rf"worker-jobs_{re.escape(workerd.__version__)}_[a-z0-9]+\.deb", deb.name)

    def test_holds_nothing_of_where_it_was_made(self, unpacked: Path, deb: Path) -> None:
        needle = str(deb.parent.parent).encode()
        files = [path for path in unpacked.rglob("*") if path.is_file() and not path.is_symlink()]
        assert [path for path in files if needle in path.read_bytes()] == []

    def test_the_same_tree_elsewhere_gives_the_same_bytes(self, deb: Path, wheelhouse: Path, tmp_path: Path) -> None:
        again = build_deb(copy_tree(tmp_path / "elsewhere"), wheelhouse, tmp_path / "dist", "3.11", "3.13")
        assert hashlib.sha256(again.read_bytes()).digest() == hashlib.sha256(deb.read_bytes()).digest()


class TestMake:
    def test_without_wheels_of_what_is_needed_there_is_none(self, tmp_path: Path) -> None:
        (tmp_path / "empty").mkdir()
        with pytest.raises(AssertionError, match="msgspec"):
            build_deb(copy_tree(tmp_path / "tree"), tmp_path / "empty", tmp_path / "dist", "3.11")
        with pytest.raises(AssertionError, match="no such folder: WHEELHOUSE=/nowhere"):
            run("scripts/deb", WHEELHOUSE="/nowhere", PYTHON=sys.executable)
