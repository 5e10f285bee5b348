"""What a job sees of the host's files, and what it must not, however it asks."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.host.attackers import USER, Attacker
from tests.host.daemon import Daemon
from workerd.errors import InvalidParams, StartFailed
from workerd.job import Mount, MountKind


def bind(source: Path | str, target: Path | str, kind: MountKind = MountKind.BIND) -> Mount:
    return Mount(kind, str(target), source=str(source))


class TestMounts:
    def test_none_gives_set_user_ids_or_devices(self, attacker: Attacker) -> None:
        """But for the five harmless devices of /dev and the terminals of /dev/pts."""
        _, text = attacker.shell("cut -d' ' -f5,6 /proc/self/mountinfo", cwd=str(attacker.own_directory()))
        lines = [line.split() for line in text.splitlines()]
        assert len(lines) > 20
        assert [point for point, options in lines if "nosuid" not in options.split(",")] == []
        masks = {point for point, options in lines if "nodev" not in options.split(",")} - {"/dev", "/dev/pts"}
        assert all(point.startswith("/proc/") for point in masks), masks

    def test_only_its_own_places_are_writable(self, attacker: Attacker) -> None:
        own = attacker.own_directory()
        _, text = attacker.shell("cut -d' ' -f5,6 /proc/self/mountinfo", cwd=str(own))
        writable = {line.split()[0] for line in text.splitlines() if line.split()[1].split(",")[0] == "rw"}
        private = {"/tmp", "/var/tmp", "/run", "/dev/shm", "/dev/pts", "/dev/mqueue"}
        masked = {point for point in writable if point.startswith("/proc/")}
        assert writable - masked == {str(own), "/proc", *private}

    def test_a_read_only_job_writes_nowhere_else(self, attacker: Attacker) -> None:
        own = attacker.own_directory()
        job, text = attacker.shell("touch /tmp/a && touch here", cwd=str(own), read_only=True)
        assert job.exit_code == 1
        assert "Read-only file system" in text
        assert os.listdir(own) == []

    def test_a_read_only_job_may_be_in_a_directory_below_tmp(self, attacker: Attacker) -> None:
        own = attacker.daemon.base / f"tmp-{attacker.uid}"
        own.mkdir()
        os.chown(own, attacker.uid, attacker.uid)
        _, text = attacker.shell("pwd; touch here", cwd=str(own), read_only=True)
        assert text.splitlines()[0] == str(own)
        assert "Read-only file system" in text

    def test_tmpfs_of_a_size(self, attacker: Attacker) -> None:
        target = attacker.own_directory()
        mounts = (Mount(MountKind.TMPFS, str(target), size=1 << 20),)
        _, text = attacker.shell(
            "head -c 2M /dev/zero 2>/dev/null > big; stat -c %s big; pwd", cwd=str(target), mounts=mounts
        )
        assert text.split()[-2:] == ["1048576", str(target)]
        assert list(target.iterdir()) == []

    def test_binds_writable_and_not(self, attacker: Attacker) -> None:
        own = attacker.own_directory()
        mounts = (bind(own, "/tmp/deep/rw"), bind(own, "/tmp/ro", MountKind.BIND_RO))
        _, text = attacker.shell("echo hi > /tmp/deep/rw/made; cat /tmp/ro/made; touch /tmp/ro/no", mounts=mounts)
        assert text.startswith("hi\n")
        assert "Read-only file system" in text
        assert (own / "made").read_text() == "hi\n"

    def test_nothing_is_made_in_a_tree_of_the_hosts(self, attacker: Attacker) -> None:
        """CVE-2024-45310: neither for a target in a bound directory nor in the job's own."""
        own, cwd = attacker.own_directory(), attacker.own_directory()
        for target in ("/tmp/own/new", f"{cwd}/new", f"{cwd}/deep/new", "/srv/worker-test-new"):
            mounts = (bind(own, "/tmp/own"), bind(attacker.probe, target))
            with pytest.raises(StartFailed, match=f"place for a mount: {target}: No such file .*: it must be there"):
                attacker.start("true", cwd=str(cwd), mounts=mounts)
        assert (os.listdir(own), os.listdir(cwd)) == ([], [])

    def test_what_is_masked_says_nothing(self, attacker: Attacker) -> None:
        script = (
            "cat /proc/kcore /proc/keys /proc/timer_list /proc/sched_debug /proc/interrupts 2>/dev/null | wc -c;"
            "ls -A /proc/acpi /proc/scsi /sys/firmware /sys/devices/virtual/powercap 2>/dev/null | grep -v : | wc -w"
        )
        assert attacker.shell(script)[1].split() == ["0", "0"]


class TestForbiddenSources:
    @pytest.mark.parametrize("source", ["/", "/proc", "/proc/self", "/sys", "/dev", "/dev/null", "/run", "/var/run"])
    def test_no_user_binds_kernel_file_systems_or_host_sockets(self, daemon: Daemon, place: Path, source: str) -> None:
        user = Attacker(daemon, USER, place)
        for mounts in ((bind(source, "/tmp/x"),), (bind(f"{source}/.", "/tmp/x"),)):
            with pytest.raises((StartFailed, InvalidParams)):
                user.start("true", mounts=mounts)

    @pytest.mark.parametrize("source", ["/proc", "/sys", "/dev", "/run"])
    def test_nor_through_a_symlink_nor_as_a_root(self, daemon: Daemon, place: Path, source: str) -> None:
        user = Attacker(daemon, USER, place)
        link = user.own_directory() / "link"
        link.symlink_to(source)
        with pytest.raises(StartFailed, match="Operation not permitted"):
            user.start("true", mounts=(bind(link, "/tmp/x"),))
        with pytest.raises(StartFailed, match="Operation not permitted"):
            user.start("true", mounts=(Mount(MountKind.RW, str(link)),))
        for root in (source, str(link)):
            with pytest.raises(StartFailed, match="root file system"):
                user.start("/probe", rootfs=root)

    def test_nor_through_a_descriptor_of_pid_1(self, attacker: Attacker) -> None:
        """CVE-2024-21626: its log, its exit record, whatever it holds, or has from the first stage."""
        for number in (*range(3, 14), *range(20, 31)):
            for top in ("/proc/self/fd", "/proc/thread-self/fd", "/dev/fd"):
                with pytest.raises(StartFailed):
                    attacker.start("true", mounts=(bind(f"{top}/{number}", "/tmp/x"),))
            with pytest.raises(StartFailed):
                attacker.start("true", cwd=f"/proc/self/fd/{number}")
            with pytest.raises(StartFailed):
                attacker.start("true", rootfs=f"/proc/self/fd/{number}")

    @pytest.mark.parametrize("way", ["/proc/1/root", "/proc/self/root", "/proc/self/cwd", "/proc/1/cwd"])
    def test_nor_through_a_magic_link(self, attacker: Attacker, way: str) -> None:
        for spec in ({"mounts": (bind(way, "/tmp/x"),)}, {"cwd": way}, {"rootfs": way}):
            with pytest.raises(StartFailed):
                attacker.start("true", **spec)

    @pytest.mark.parametrize("target", ["/", "/proc", "/proc/x", "/sys/x", "/dev", "/dev/x", "//proc", "/tmp/../proc"])
    def test_nothing_is_mounted_over_them(self, attacker: Attacker, target: str) -> None:
        with pytest.raises(InvalidParams):
            attacker.start("true", mounts=(bind(attacker.own_directory(), target),))

    def test_a_target_tells_nothing_about_a_closed_directory(self, daemon: Daemon, place: Path) -> None:
        user = Attacker(daemon, USER, place)
        closed = place / "closed"
        closed.mkdir(0o700)
        (closed / "exists").touch()
        told = []
        for name in ("exists", "absent"):
            with pytest.raises(StartFailed) as caught:
                user.start("true", mounts=(bind(user.probe, closed / name),))
            told.append(str(caught.value).replace(name, "X").replace(str(caught.value.data["id"]), ""))
        assert told[0] == told[1]
        assert "Permission denied" in told[0]

    def test_a_source_that_is_closed_to_the_caller_stays_closed(self, daemon: Daemon, place: Path) -> None:
        user = Attacker(daemon, USER, place)
        closed = place / "secret"
        closed.mkdir(0o700)
        (closed / "file").write_text("secret")
        with pytest.raises(StartFailed, match="Permission denied"):
            user.start("true", mounts=(bind(closed / "file", "/tmp/x"),))
        job, text = user.shell("cat /tmp/d/file", mounts=(bind(closed, "/tmp/d"),))
        assert (job.exit_code, "Permission denied" in text) == (1, True)


class TestHidden:
    def test_the_daemons_places_also_through_other_ways(self, attacker: Attacker) -> None:
        base = attacker.daemon.base
        look = "ls -A {0}/state {0}/run; ls -l {0}/sock; $P connect path {0}/sock"
        for spec, top in (({"cwd": str(base)}, base), ({"mounts": (bind(base, "/tmp/b"),)}, "/tmp/b")):
            _, text = attacker.shell(look.format(top), **spec)
            lines = text.splitlines()
            assert [line for line in lines[:3] if line] == [f"{top}/run:", f"{top}/state:"], text
            assert lines[-1] in ("E111", "E13"), text

    def test_the_policy(self, attacker: Attacker) -> None:
        _, text = attacker.shell("ls -A /etc/workerd 2>&1")
        assert text in ("", "ls: cannot access '/etc/workerd': No such file or directory\n")


@pytest.fixture
def chroot(place: Path) -> Iterator[Path]:
    """Kernel file systems, and /run, in a second place: as a chroot has them."""
    top = place / "chroot"
    shutil.rmtree(top, ignore_errors=True)
    mounts = {"proc": ["-t", "proc", "proc"], "sys": ["-t", "sysfs", "sysfs"], "dev": ["-t", "devtmpfs", "dev"]}
    mounts["run"] = ["--bind", "/run"]
    mounts["proc two"] = ["-t", "proc", "proc"]
    for name, how in mounts.items():
        (top / name).mkdir(parents=True)
        subprocess.run(["mount", *how, top / name], check=True)
    subprocess.run(["mount", "-t", "sysfs", "sysfs", top / "proc two"], check=True)  # one upon the other
    yield top
    subprocess.run(["umount", "-l", top / "proc two"], check=True)
    for name in mounts:
        subprocess.run(["umount", "-l", top / name], check=True)


class TestSecondPlaces:
    """A chroot's own /proc gives /proc/PID/root of the caller's other processes."""

    LOOK = "for d in proc sys dev run 'proc two'; do ls -A \"{}/$d\"; done"

    def test_nothing_of_them_is_seen(self, attacker: Attacker, chroot: Path) -> None:
        for spec, top in (
            ({}, chroot),
            ({"cwd": str(chroot)}, chroot),
            ({"mounts": (bind(chroot, "/tmp/c"),)}, "/tmp/c"),
            ({"mounts": (bind(chroot.parent, "/tmp/c"),)}, "/tmp/c/chroot"),
            ({"mounts": (Mount(MountKind.RW, str(chroot)),)}, chroot),
        ):
            assert attacker.shell(self.LOOK.format(top), **spec)[1] == ""

    def test_nor_can_they_be_bound(self, attacker: Attacker, chroot: Path) -> None:
        (chroot / "link").symlink_to(chroot / "proc")
        for name in ("proc", "link", "sys/kernel", "run"):
            with pytest.raises(StartFailed, match=f"bind: {chroot / name}: Operation not permitted"):
                attacker.start("true", mounts=(bind(chroot / name, "/tmp/p"),))

    def test_the_hosts_own_stay(self, attacker: Attacker, chroot: Path) -> None:
        attacker.run("true")
        assert (chroot / "proc" / "1").exists()
        assert Path("/proc/1").exists()

    def test_a_socket_in_run_is_out_of_reach(self, attacker: Attacker, chroot: Path) -> None:
        name = f"worker-test-{os.getpid()}.sock"
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(f"/run/{name}")
            try:
                os.chmod(f"/run/{name}", 0o666)  # noqa: S103 - so that only the view stands between
                listener.listen()
                script = "; ".join(f"$P connect path {top}/{name}" for top in ("/run", "/var/run", chroot / "run"))
                assert attacker.shell(script)[1].split() == ["E2"] * 3
            finally:
                os.unlink(f"/run/{name}")
