"""What is built and installed: the wheel with its binary, and `make install`."""

from __future__ import annotations

import os
import re
import shutil
import struct
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import workerd
from tests.packages import NO_COMPILER, ROOT, build, copy_tree, empty_wheel, run
from workerd import config

BINARY = "workerd/init/worker-init"
PT_DYNAMIC, PT_INTERP = 2, 3


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_tree(tmp_path_factory.mktemp("tree"))


@pytest.fixture(scope="module")
def wheel(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("wheel", tree, tmp_path_factory.mktemp("wheel"))


def segment_types(elf: bytes) -> list[int]:
    """The types in a 64-bit little-endian ELF file's program headers (elf(5))."""
    offset, size, count = struct.unpack_from("<Q", elf, 32)[0], *struct.unpack_from("<HH", elf, 54)
    return [struct.unpack_from("<I", elf, offset + n * size)[0] for n in range(count)]


class TestWheel:
    def test_is_for_every_python_3_and_this_architecture(self, wheel: Path) -> None:
        arch = os.uname().machine
        assert wheel.name.endswith(f"-py3-none-manylinux_2_17_{arch}.musllinux_1_1_{arch}.whl")

    def test_carries_an_executable_static_worker_init(self, wheel: Path, tmp_path: Path) -> None:
        with zipfile.ZipFile(wheel) as archive:
            assert archive.getinfo(BINARY).external_attr >> 16 & 0o777 == 0o755
            program = Path(archive.extract(BINARY, tmp_path))
        assert not {PT_DYNAMIC, PT_INTERP} & set(segment_types(program.read_bytes()))
        program.chmod(0o755)
        assert run(program, "version") == f"worker-init {workerd.__version__}\n"

    def test_holds_both_packages_and_nothing_to_build_with(self, wheel: Path) -> None:
        names = zipfile.ZipFile(wheel).namelist()
        expected = {f"{p.parent.name}/{p.name}" for d in ("workerd", "workerctl") for p in (ROOT / d).glob("*.py")}
        assert expected <= set(names)
        assert not [name for name in names if name.endswith((".c", ".h", "build.py"))]

    def test_declares_both_commands(self, wheel: Path) -> None:
        with zipfile.ZipFile(wheel) as archive:
            (name,) = (name for name in archive.namelist() if name.endswith("entry_points.txt"))
            points = archive.read(name).decode()
            (name,) = (name for name in archive.namelist() if name.endswith(".data/scripts/workerctl"))
            script = archive.read(name).decode()
        assert "workerd = workerd.__main__:main" in points
        assert script.startswith("#!python\n")  # which an installer puts the interpreter in place of
        assert "import re" not in script.splitlines()

    def test_can_be_built_from_the_sdist(self, tree: Path, wheel: Path, tmp_path: Path) -> None:
        with tarfile.open(build("sdist", tree, tmp_path)) as archive:
            archive.extractall(tmp_path, filter="data")
        (unpacked,) = (path for path in tmp_path.iterdir() if path.is_dir())
        again = build("wheel", unpacked, tmp_path / "again")
        assert again.name == wheel.name
        assert zipfile.ZipFile(again).namelist() == zipfile.ZipFile(wheel).namelist()


class TestClientsWheel:
    """For a machine that only talks to another's workerd: whatever its system, without a compiler."""

    @pytest.fixture
    def own_tree(self, tmp_path: Path) -> Path:
        return copy_tree(tmp_path / "tree")

    @pytest.mark.parametrize("setting", [NO_COMPILER, {"WORKER_CLIENT_ONLY": "1"}])
    def test_is_pure_and_has_no_program(self, own_tree: Path, tmp_path: Path, setting: dict[str, str]) -> None:
        made = build("wheel", own_tree, tmp_path / "dist", **setting)
        assert made.name.endswith("-py3-none-any.whl")
        names = zipfile.ZipFile(made).namelist()
        assert "workerctl/cli.py" in names and BINARY not in names

    def test_leaves_out_a_program_that_was_built_before(self, own_tree: Path, tmp_path: Path) -> None:
        (own_tree / BINARY).write_bytes(b"old")
        made = build("wheel", own_tree, tmp_path / "dist", WORKER_CLIENT_ONLY="1")
        assert BINARY not in zipfile.ZipFile(made).namelist()

    def test_can_be_forbidden(self, own_tree: Path, tmp_path: Path) -> None:
        with pytest.raises(AssertionError, match="no C compiler was found"):
            build("wheel", own_tree, tmp_path / "dist", WORKER_CLIENT_ONLY="0", **NO_COMPILER)

    def test_needs_neither_netlink_nor_cgroups(self, wheel: Path) -> None:
        with zipfile.ZipFile(wheel) as archive:
            (name,) = (name for name in archive.namelist() if name.endswith("METADATA"))
            needs = re.findall(r"^Requires-Dist: ([a-z0-9]+)[^;\n]*$", archive.read(name).decode(), re.MULTILINE)
        assert needs == ["msgspec", "rich"]


class TestBuildingWorkerInit:
    @pytest.fixture
    def script(self, tree: Path, tmp_path: Path) -> Path:
        return Path(shutil.copytree(tree / "workerd", tmp_path / "workerd")) / "init" / "build.py"

    def test_happens_again_only_when_a_source_is_newer(self, script: Path) -> None:
        binary = Path(run(sys.executable, script).strip())
        first = binary.stat()
        run(sys.executable, script)
        assert binary.stat().st_ino == first.st_ino
        source = next(script.parent.glob("*.c"))
        os.utime(source, ns=(first.st_mtime_ns + 1, first.st_mtime_ns + 1))
        run(sys.executable, script)
        assert binary.stat().st_ino != first.st_ino

    def test_names_the_packages_to_install_without_a_compiler(self, script: Path) -> None:
        command = [sys.executable, str(script), "--force"]
        done = subprocess.run(command, check=False, env={"PATH": "/nowhere"}, stderr=subprocess.PIPE, text=True)
        assert done.returncode == 1
        assert "apt-get install gcc libc6-dev musl-tools" in done.stderr

    @pytest.mark.skipif(not shutil.which("musl-gcc"), reason="musl-gcc is not installed (musl-tools)")
    def test_works_with_glibc_too(self, script: Path) -> None:
        binary = Path(run(sys.executable, script, "--force", WORKER_INIT_CC="cc").strip())
        assert PT_INTERP not in segment_types(binary.read_bytes())
        assert run(binary, "version").startswith("worker-init ")


class Make:
    """`make TARGET` in the copied tree, into `dest`."""

    def __init__(self, tree: Path, wheelhouse: Path, dest: Path) -> None:
        self.tree, self.wheelhouse, self.dest = tree, wheelhouse, dest

    def __call__(self, target: str, **variables: str) -> str:
        given = {"DESTDIR": str(self.dest), "WHEELHOUSE": str(self.wheelhouse), "PYTHON": sys.executable} | variables
        return run("make", target, *(f"{name}={value}" for name, value in given.items()), cwd=self.tree)


@pytest.fixture(scope="module")
def wheelhouse(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheelhouse")
    shutil.copy(wheel, folder)
    for name, version in (("cgroupspy", "0.2.3"), ("msgspec", "0.22.0"), ("pyroute2", "0.9.7"), ("rich", "15.0.0")):
        empty_wheel(folder, name, version)
    return folder


@pytest.fixture
def make(tree: Path, wheelhouse: Path, tmp_path: Path) -> Make:
    return Make(tree, wheelhouse, tmp_path / "dest")


@pytest.fixture(scope="module")
def installed(tree: Path, wheelhouse: Path, tmp_path_factory: pytest.TempPathFactory) -> Make:
    """For tests that only look."""
    make = Make(tree, wheelhouse, tmp_path_factory.mktemp("installed"))
    make("install")
    return make


@pytest.fixture
def copy(installed: Make, tmp_path: Path) -> Make:
    """Installed once more, cheaply: what is installed does not know its DESTDIR."""
    dest = shutil.copytree(installed.dest, tmp_path / "copy", symlinks=True)
    return Make(installed.tree, installed.wheelhouse, dest)


class TestInstall:
    """`make install` under a DESTDIR, from a WHEELHOUSE; tests/system does it for real."""

    def test_puts_everything_in_its_place(self, installed: Make) -> None:
        home = installed.dest / "usr/local/lib/worker"
        assert os.access(home / "worker-init", os.X_OK)
        assert (installed.dest / "usr/local/bin/workerctl").resolve() == home / "bin/workerctl"
        commands = {path.name for path in (home / "bin").iterdir() if not path.name.startswith("python")}
        assert commands == {"workerctl", "workerd"}
        units = {path.name for path in (installed.dest / "usr/local/lib/systemd/system").iterdir()}
        daemon = {"worker.slice", "workerd.service", "workerd.socket", "workerd-jobs.service"}
        assert units == daemon | {"workerd-metrics.service", "workerd-metrics.timer"}
        for file in ("lib/sysusers.d/worker.conf", "lib/tmpfiles.d/worker.conf"):
            assert (installed.dest / "usr/local" / file).is_file()
        assert (installed.dest / "etc/workerd/workerd.toml").is_file()

    @pytest.mark.parametrize(
        ("place", "source"),
        [
            ("bash-completion/completions/workerctl", "workerctl/completing/scripts/workerctl.bash"),
            ("zsh/site-functions/_workerctl", "workerctl/completing/scripts/_workerctl"),
            ("fish/vendor_completions.d/workerctl.fish", "workerctl/completing/scripts/workerctl.fish"),
            ("man/man1/workerctl.1", "man/workerctl.1"),
            ("man/man5/workerd.toml.5", "man/workerd.toml.5"),
            ("man/man8/workerd.8", "man/workerd.8"),
        ],
    )
    def test_puts_manual_pages_and_completion_where_they_are_looked_for(
        self, installed: Make, place: str, source: str
    ) -> None:
        assert (installed.dest / "usr/local/share" / place).read_bytes() == (ROOT / source).read_bytes()

    def test_leaves_no_trace_of_destdir(self, installed: Make) -> None:
        needle = str(installed.dest).encode()
        files = [path for path in installed.dest.rglob("*") if path.is_file() and not path.is_symlink()]
        assert [path for path in files if needle in path.read_bytes()] == []

    def test_starts_python_deaf_to_the_users_environment(self, installed: Make) -> None:
        for name in ("workerd", "workerctl"):
            script = (installed.dest / "usr/local/bin" / name).read_text()
            assert script.startswith("#!/usr/local/lib/worker/bin/python3 -IS\n")

    @pytest.mark.parametrize(
        ("prefix", "units"), [("/usr", "usr/lib/systemd/system"), ("/opt/worker", "etc/systemd/system")]
    )
    def test_another_prefix_reaches_the_units(self, make: Make, prefix: str, units: str) -> None:
        make("install", PREFIX=prefix)
        for unit, program in (
            ("workerd.service", "bin/workerd\n"),
            ("workerd-jobs.service", "worker-init keep\n"),
            ("workerd-metrics.service", "bin/workerctl metrics "),
        ):
            assert f"ExecStart={prefix}/lib/worker/{program}" in (make.dest / units / unit).read_text()

    def test_again_is_an_upgrade_that_running_programs_survive(self, copy: Make) -> None:
        keeper_path = copy.dest / "usr/local/lib/worker/worker-init"
        config = copy.dest / "etc/workerd/workerd.toml"
        config.write_text("# mine\n")
        with subprocess.Popen([keeper_path, "keep"]) as keeper:
            try:
                copy("install")
                assert keeper.poll() is None
                assert os.access(keeper_path, os.X_OK)
            finally:
                keeper.terminate()
        assert config.read_text() == "# mine\n"
        left = {path.name for path in keeper_path.parent.parent.iterdir()}
        assert left == {"systemd", "sysusers.d", "tmpfiles.d", "worker"}

    def test_failing_leaves_the_old_one_in_place(self, copy: Make, tmp_path: Path) -> None:
        (tmp_path / "empty").mkdir()
        shutil.copy(next(copy.wheelhouse.glob("worker_jobs*")), tmp_path / "empty")  # but none of what it needs
        with pytest.raises(AssertionError, match="msgspec"):
            copy("install", WHEELHOUSE=str(tmp_path / "empty"))
        lib = copy.dest / "usr/local/lib"
        assert os.access(lib / "worker/worker-init", os.X_OK)
        assert not (lib / "worker.new").exists()

    def test_uninstall_keeps_only_a_changed_configuration(self, copy: Make) -> None:
        copy("uninstall")
        assert [path for path in copy.dest.rglob("*") if not path.is_dir()] == []
        copy("install")
        (copy.dest / "etc/workerd/workerd.toml").write_text("# mine\n")
        assert "Kept" in copy("uninstall")
        assert [path.name for path in copy.dest.rglob("*") if not path.is_dir()] == ["workerd.toml"]
        copy("uninstall", PURGE="1")
        assert [path for path in copy.dest.rglob("*") if not path.is_dir()] == []

    @pytest.mark.parametrize("wrong", ["PREFIX=usr", "DESTDIR=dest", "WHEELHOUSE=/nowhere", "PYTHON=/bin/false"])
    def test_refuses_what_cannot_be(self, make: Make, wrong: str) -> None:
        name, value = wrong.split("=")
        with pytest.raises(AssertionError, match=value):
            make("install", **{name: value})
        assert not make.dest.exists()


def settings(unit: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, value in re.findall(r"^(\w+)=(.*)$", (ROOT / "systemd" / unit).read_text(), re.MULTILINE):
        found.setdefault(name, []).append(value)
    return found


class TestUnits:
    def test_jobs_inherit_no_mount_namespace_and_no_filter_that_breaks_their_start(self) -> None:
        """systemd.exec(5): each of these unshares the mounts, or answers ENOSYS to clone3 or openat2."""
        harmful = re.compile(r"Private|Protect(?!Clock)|Read|Inaccessible|Bind|Temporary|Root|Restrict|MemoryDeny")
        assert [name for name in settings("workerd.service") if harmful.match(name)] == []

    def test_stopping_or_restarting_the_daemon_spares_its_children(self) -> None:
        unit = settings("workerd.service")
        assert unit["KillMode"] == ["process"]
        assert unit["RuntimeDirectoryPreserve"] == ["yes"]
        assert not {"BindsTo", "StopPropagatedFrom", "PartOf"} & unit.keys()

    @pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not installed (systemd)")
    @pytest.mark.parametrize(
        ("unit", "tenths"), [("workerd.service", 70), ("workerd-jobs.service", 20), ("workerd-metrics.service", 50)]
    )
    def test_exposure_stays_below(self, unit: str, tenths: int) -> None:
        run("systemd-analyze", "security", "--no-pager", "--offline=true", f"--threshold={tenths}", f"systemd/{unit}")


class TestSampleConfiguration:
    SAMPLE = ROOT / "systemd/workerd.toml"

    def test_changes_nothing(self) -> None:
        assert config.load(self.SAMPLE, required=True) == config.Config()

    def test_shows_the_true_defaults(self, tmp_path: Path) -> None:
        shown = re.sub(r"^#(\w+ = )", r"\1", self.SAMPLE.read_text(), flags=re.MULTILINE)
        assert not re.search(r"^#\S", shown, flags=re.MULTILINE)
        (tmp_path / "shown.toml").write_text(shown)
        assert config.load(tmp_path / "shown.toml", required=True) == config.Config()
