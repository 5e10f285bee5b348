"""Root trees of the caller's: honest ones work, hostile ones lead nowhere."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

import pytest

from tests.host.attackers import Attacker
from workerd.errors import StartFailed
from workerd.job import Mount, MountKind

DIRECTORIES = ("proc", "sys", "dev", "run", "tmp", "var/tmp", "etc", "bin", "site")


def busybox(attacker: Attacker) -> str:
    """A static shell, where there is one."""
    found = shutil.which("busybox")
    if found is None:
        pytest.skip("busybox is not installed: apt-get install busybox-static")
    return found


@pytest.fixture
def tree(attacker: Attacker) -> Path:
    """A root tree of the attacker's own, with the probe as its only program."""
    top = attacker.own_directory("root")
    for name in DIRECTORIES:
        (top / name).mkdir(parents=True)
    shutil.copy(attacker.probe, top / "bin" / "probe")
    for path in (top, *top.rglob("*")):
        os.chown(path, attacker.uid, attacker.uid)
    return top


def look(attacker: Attacker, tree: Path, path: str, **spec: object) -> str:
    """What open(2) of a path gives inside."""
    return attacker.run("/bin/probe", "call", "2", path, "0", rootfs=str(tree), **spec)[1].strip()


class TestHonest:
    def test_it_has_its_own_proc_dev_and_sys(self, attacker: Attacker, tree: Path) -> None:
        for path in (
            "/proc/self/status",
            "/dev/null",
            "/dev/pts/ptmx",
            "/sys/class/net/lo",
            "/dev/shm",
            "/tmp",
            "/run",
        ):
            assert look(attacker, tree, path) == "3", path
        assert not list((tree / "dev").iterdir())

    def test_nothing_of_the_host_is_there(self, attacker: Attacker, tree: Path) -> None:
        for path in ("/etc/passwd", "/usr", "/srv", str(attacker.probe), "/.."):
            assert look(attacker, tree, path) == ("3" if path == "/.." else "E2"), path

    def test_it_is_read_only_but_for_what_is_asked_for(self, attacker: Attacker, tree: Path) -> None:
        make = ("/bin/probe", "call", "83", "/site/made", "0755")
        assert attacker.run(*make, rootfs=str(tree))[1] == "E30\n"
        assert attacker.run(*make, rootfs=str(tree), mounts=(Mount(MountKind.RW, "/site"),))[1] == "0\n"
        assert (tree / "site" / "made").is_dir()

    def test_a_shell_runs_in_it(self, attacker: Attacker, tree: Path) -> None:
        shutil.copy(busybox(attacker), tree / "bin" / "busybox")
        job, text = attacker.run("/bin/busybox", "sh", "-c", "cd /site && pwd", rootfs=str(tree), cwd="/site")
        assert (job.exit_code, text) == (0, "/site\n")


class TestHostile:
    """CVE-2025-31133, CVE-2025-52565, CVE-2025-52881, CVE-2021-30465, CVE-2019-16884 and
    their like: whatever the tree has in these places, the host stays as it is."""

    @pytest.mark.parametrize("name", ["proc", "sys", "dev"])
    @pytest.mark.parametrize("to", ["/", "/etc", "../../..", "site", "/proc/self/root", "loop"])
    def test_kernel_file_systems_are_not_redirected(self, attacker: Attacker, tree: Path, name: str, to: str) -> None:
        (tree / "loop").symlink_to("loop")
        (tree / name).rmdir()
        (tree / name).symlink_to(to)
        with pytest.raises(StartFailed):
            attacker.start("/bin/probe", rootfs=str(tree))

    @pytest.mark.parametrize("name", ["proc", "sys", "dev"])
    def test_nor_by_a_file(self, attacker: Attacker, tree: Path, name: str) -> None:
        (tree / name).rmdir()
        (tree / name).write_text("no directory")
        with pytest.raises(StartFailed):
            attacker.start("/bin/probe", rootfs=str(tree))

    def test_null_and_console_of_the_tree_are_not_used(self, attacker: Attacker, tree: Path) -> None:
        for name in ("null", "console", "ptmx", "pts", "shm", "mqueue", "fd"):
            (tree / "dev" / name).symlink_to("/proc/sysrq-trigger")
        assert look(attacker, tree, "/dev/null") == "3"
        assert look(attacker, tree, "/dev/console") == "E2"
        assert attacker.run("/bin/probe", "call", "2", "/proc/kcore", "0", rootfs=str(tree))[1] in ("E2\n", "E13\n")
        assert sorted(os.listdir(tree / "dev")) == sorted(("null", "console", "ptmx", "pts", "shm", "mqueue", "fd"))

    @pytest.mark.parametrize("name", ["run", "tmp", "var/tmp", "var"])
    def test_private_places_do_not_lead_out(self, attacker: Attacker, tree: Path, name: str) -> None:
        for path in sorted((tree / name).rglob("*"), reverse=True):
            path.rmdir()
        (tree / name).rmdir()
        (tree / name).symlink_to(f"/../../..{attacker.place}")
        before = sorted(os.listdir(attacker.place))
        assert look(attacker, tree, "/proc/self") == "3"
        assert look(attacker, tree, f"/{name}/{attacker.probe.name}") == "E2"
        assert sorted(os.listdir(attacker.place)) == before

    def test_a_working_directory_that_leads_out(self, attacker: Attacker, tree: Path) -> None:
        (tree / "out").symlink_to("/srv")
        (tree / "up").symlink_to("../../../../srv")
        (tree / "magic").symlink_to("/proc/self/fd/3")
        for cwd in ("/out", "/up", "/magic", "/../../srv"):
            with pytest.raises(StartFailed):
                attacker.start("/bin/probe", rootfs=str(tree), cwd=cwd)

    def test_a_program_that_leads_out(self, attacker: Attacker, tree: Path) -> None:
        (tree / "bin" / "out").symlink_to(attacker.probe)
        with pytest.raises(StartFailed):
            attacker.start("/bin/out", "caps", rootfs=str(tree))

    def test_writable_paths_stay_in_the_tree(self, attacker: Attacker, tree: Path) -> None:
        (tree / "etc" / "out").symlink_to("/srv")
        with pytest.raises(StartFailed):
            attacker.start("/bin/probe", rootfs=str(tree), mounts=(Mount(MountKind.RW, "/etc/out"),))
        (tree / "srv").mkdir()  # now it leads somewhere: to the tree's own
        job, _ = attacker.run("/bin/probe", rootfs=str(tree), mounts=(Mount(MountKind.RW, "/etc/out"),))
        assert job.exit_code == 64

    def test_devices_of_the_tree_do_not_work(self, attacker: Attacker, tree: Path) -> None:
        node = tree / "site" / "kmsg"
        os.mknod(node, stat.S_IFCHR | 0o666, os.makedev(1, 11))
        node.chmod(0o666)
        assert look(attacker, tree, "/site/kmsg") == "E13"
        mounts = (Mount(MountKind.RW, "/site"),)
        assert look(attacker, tree, "/site/kmsg", mounts=mounts) == "E13"
