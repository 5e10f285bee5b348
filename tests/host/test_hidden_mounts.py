"""Kernel file systems of the host's to which no path leads, for something else is mounted
over the way there (workerd/init/hostmounts.c): a user's FUSE, for which a tmpfs stands here."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.host.mounthost import Host, MountedOver, still
from workerd.errors import StartFailed
from workerd.job import Mount, MountKind, Net

FILE_SYSTEMS = {
    "proc": "-t proc proc {}",
    "sys": "--rbind /sys {}",
    "dev": "-t devtmpfs dev {}",
    "run": "--bind /run {}",
}
"""what a chroot has of the host's"""
FAR = """
import os, subprocess, sys
os.chdir(sys.argv[1])
for number in range(20):
    os.mkdir("x" * 250)
    os.chdir("x" * 250)
os.mkdir("proc")
subprocess.run(["mount", "-t", "proc", "proc", "./proc"], check=True)
print(os.listdir("proc").count("version"))
"""
LOOK = """
import os, sys
os.chdir(sys.argv[1])
for number in range(20):
    os.chdir("x" * 250)
print(os.listdir("proc"))
"""


@pytest.fixture(params=[Net.NONE, Net.HOST], ids=["template", "alone"])
def net(request: pytest.FixtureRequest) -> Net:
    """Whether its PID 1 begins with a copy that was prepared, or prepares its own."""
    return Net(request.param)


@pytest.fixture
def chroot(host: Host) -> Path:
    """With its file systems two directories below `top/x`."""
    chroot = host.top / "x" / "chroot"
    for name, how in FILE_SYSTEMS.items():
        (chroot / name).mkdir(parents=True)
        host.inside("mount", *how.format(chroot / name).split())
        host.inside("mount", "--make-rprivate", chroot / name)  # what is mounted upon it is so there alone
    return chroot


def seen(host: Host, path: Path, net: Net) -> str:
    """In each of the chroot's directories."""
    job, text = host.shell(f"cd {path} && ls -A {' '.join(FILE_SYSTEMS)}", net=net)
    assert job.exit_code == 0, text
    return text


EMPTY = "dev:\n\nproc:\n\nrun:\n\nsys:\n"
COVERS = {
    "above": ["x"],
    "many": ["x", "x", "x"],
    "one above the other": ["x/chroot", "x"],
    "at the same places": [f"x/chroot/{name}" for name in FILE_SYSTEMS] * 2,
    "both": ["x/chroot/proc", "x/chroot", "x/chroot", "x", "x"],
}


class TestCovered:
    @pytest.mark.parametrize("places", COVERS.values(), ids=COVERS.keys())
    def test_a_job_sees_what_the_host_shows(self, host: Host, chroot: Path, places: list[str], net: Net) -> None:
        for number, place in enumerate(places):
            host.inside("mount", "-t", "tmpfs", f"cover-{number}", host.top / place)
            host.inside("touch", host.top / place / f"file-{number}")
        look = ("find", host.top, "!", "-path", f"{chroot}/*/*/*")
        job, text = host.shell(" ".join(map(str, look)), net=net)
        assert (job.exit_code, sorted(text.split())) == (0, sorted(host.inside(*look).split()))
        assert f"file-{len(places) - 1}\n" in text

    def test_none_is_among_its_mounts(self, host: Host, chroot: Path, net: Net) -> None:
        """Not in its root, nor its working directory, nor in what is bound for it."""
        host.inside("mount", "-t", "tmpfs", "cover", host.top / "x")
        bound = Mount(MountKind.BIND, "/tmp/bound", source=str(host.top))
        look = f"grep -F -e {host.top} -e /tmp/bound /proc/self/mountinfo"
        mounts = host.shell(look, net=net, cwd=str(host.top), mounts=(bound,))[1].splitlines()
        found = [line.rpartition(" - ")[2].split() for line in mounts]
        assert [source for _, source, _ in found].count("cover") == 3
        assert {kind for kind, *_ in found}.isdisjoint({"proc", "sysfs", "devtmpfs", "cgroup", "cgroup2"})

    def test_what_it_lies_on_may_be_covered_too(self, host: Host, net: Net) -> None:
        disk = host.disk("x")
        host.inside("mkdir", disk / "proc")
        host.inside("mount", "-t", "proc", "proc", disk / "proc")
        host.disk("x", "upon\n")
        assert host.shell(f"ls -A {disk}; cat {disk}/file", net=net)[1] == "file\nupon\n"

    def test_a_file_may_be_covered(self, host: Host, net: Net) -> None:
        target = host.directory("x") / "version"
        target.write_text("here\n")
        for source in ("/proc/version", "/etc/hostname"):
            host.inside("mount", "--bind", source, target)
        assert host.shell(f"cat {target}", net=net)[1] == Path("/etc/hostname").read_text()

    def test_one_that_covers_another(self, host: Host, chroot: Path, net: Net) -> None:
        host.inside("mount", "-t", "proc", "proc", chroot / "proc")
        host.inside("mount", "-t", "sysfs", "sysfs", chroot / "proc")
        assert seen(host, chroot, net) == EMPTY

    @pytest.mark.parametrize("host", ["shared"], indirect=True)
    def test_the_cover_is_held_no_longer_than_the_host_has_it(self, host: Host, chroot: Path) -> None:
        host.inside("mount", "-t", "tmpfs", "cover", host.top / "x")
        with still(host.settled()) as pid:
            assert " cover " in Path(f"/proc/{pid}/mountinfo").read_text()
            host.inside("umount", host.top / "x")
            assert " cover " not in Path(f"/proc/{pid}/mountinfo").read_text()


class TestUncovered:
    def test_it_is_withheld_when_the_cover_goes(self, host: Host, chroot: Path, net: Net) -> None:
        host.inside("mount", "-t", "tmpfs", "cover", host.top / "x")
        assert host.shell(f"ls -A {host.top}/x", net=net)[1] == ""
        host.inside("umount", host.top / "x")
        assert seen(host, chroot, net) == EMPTY
        for name in FILE_SYSTEMS:
            with pytest.raises(StartFailed, match="Operation not permitted"):
                host.run("true", net=net, mounts=(Mount(MountKind.BIND, "/tmp/x", source=str(chroot / name)),))

    def test_it_does_not_come_out_from_beneath_the_cover(self, host: Host, chroot: Path, net: Net) -> None:
        """Who has a directory that is between the two open, or the file system elsewhere, renames it."""
        host.inside("mount", "-t", "tmpfs", "cover", host.top / "x")
        host.settled()
        running = host.run("sleep", "1000", net=net)
        outside = host.directory("y") / "chroot"
        os.rename(chroot, outside)  # where we are, nothing is mounted there
        assert "version" in host.inside("ls", outside / "proc")
        assert host.ctl("exec", running, "sh", "-c", f"cd {outside} && ls -A *").stdout.decode() == EMPTY
        assert seen(host, outside, net) == EMPTY

    def test_nor_from_beneath_a_jobs_own_run(self, host: Host, net: Net) -> None:
        if Path("/run").is_mount():
            pytest.skip("nothing is renamed out of a /run that is a file system of its own")
        within, outside = Path(tempfile.mkdtemp(prefix="worker-test-", dir="/run")), host.top / "outside"
        try:
            (within / "inner" / "proc").mkdir(parents=True)
            host.inside("mount", "-t", "proc", "proc", within / "inner" / "proc")
            host.settled()
            running = host.run("sleep", "1000", net=net)
            os.rename(within / "inner", outside)
            assert host.ctl("exec", running, "ls", "-A", str(outside / "proc")).stdout == b""
            assert host.shell(f"ls -A {outside}/proc", net=net)[1] == ""
        finally:
            shutil.rmtree(within)


class TestFarAway:
    def test_where_the_path_is_too_long_for_the_kernel(self, host: Host, net: Net) -> None:
        assert host.inside(sys.executable, "-c", FAR, host.top) == "1\n"
        assert host.shell(f"python3 -c '{LOOK}' {host.top}", net=net)[1] == "[]\n"


class TestOutOfReach:
    @pytest.fixture
    def host(self, place: Path) -> Iterator[Host]:
        """What is mounted over the root there is a place that `/..` leads to, and nothing else does."""
        daemon = MountedOver("private", place / "out-of-reach")
        try:
            daemon.start()
            yield daemon
        finally:
            daemon.close()

    def test_no_job_starts_and_is_told_why(self, host: Host, net: Net) -> None:
        second = host.directory("") / "second"
        second.mkdir(exist_ok=True)
        host.inside("mount", "-t", "proc", "proc", f"/..{second}")
        with pytest.raises(StartFailed) as caught:
            host.run("true", net=net)
        assert str(caught.value) == (
            f"cannot hide from the job: {second}: Device or resource busy: "
            "unmount it on the host, or what is mounted over the way to it"
        )
        host.inside("umount", f"/..{second}")
        assert host.shell("echo well", net=net)[1] == "well\n"
