"""The mount namespace that jobs' are copies of (workerd/init/template.c): it is made before
the job is asked for, and yet what a job sees is the host as it is when the job starts."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.host.daemon import until, wchan
from tests.host.firststage import namespaces, zygote
from tests.host.mounthost import Host, MountedOver, sleeps, still
from tests.host.tracing import OPENAT2, held_after
from workerd.errors import StartFailed
from workerd.job import Mount, MountKind, Net

FIRST_KEPT = 20
"""the number of the first of six descriptors that the first stage keeps all the time"""
SET_ATTRIBUTES = """
import ctypes, sys
attributes = (ctypes.c_uint64 * 4)(8)  # MOUNT_ATTR_NOEXEC
raise SystemExit(ctypes.CDLL(None).syscall(442, -100, sys.argv[1].encode(), 0, attributes, 32))
"""
BOTTOM = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
here = os.open("/proc/self/ns/mnt", os.O_RDONLY)
assert libc.umount2(b"/", 2) == 0
assert libc.setns(here, 0) == 0
for top, directories, files in os.walk("/"):
    print(top, sorted(directories), sorted(files))
"""

BELOW_BOTH = BOTTOM.replace("assert", 'libc.umount2(b"/", 2)\nassert')
"""where something is mounted over / in the job, too"""


def _mount(host: Host) -> Callable[[], object]:
    host.directory("disk")
    return host.disk


def _unmount(host: Host) -> Callable[[], object]:
    disk = host.disk()
    return lambda: host.inside("umount", disk)


def _detach(host: Host) -> Callable[[], object]:
    disk = host.disk()
    return lambda: host.inside("umount", "--lazy", disk)


def _bind(host: Host) -> Callable[[], object]:
    disk, target = host.disk("one"), host.directory("disk")
    return lambda: host.inside("mount", "--bind", disk, target)


def _move(host: Host) -> Callable[[], object]:
    outer = host.directory("outer")
    host.inside("mount", "-t", "tmpfs", "none", outer)
    host.inside("mount", "--make-private", outer)
    host.inside("mkdir", outer / "disk")
    host.inside("mount", "-t", "tmpfs", "none", outer / "disk")
    host.inside("touch", outer / "disk/file")
    target = host.directory("disk")
    return lambda: host.inside("mount", "--move", outer / "disk", target)


def _upon_another(host: Host) -> Callable[[], object]:
    host.disk()
    return lambda: host.disk(content="another\n")


def _below_a_private_one(host: Host) -> Callable[[], object]:
    disk = host.disk()
    host.inside("mount", "--make-private", disk)
    host.inside("mkdir", disk / "inner")
    return lambda: host.inside("mount", "-t", "tmpfs", "none", disk / "inner")


def _remount(host: Host) -> Callable[[], object]:
    disk = host.disk()
    return lambda: host.inside("mount", "-o", "remount,bind,noexec", disk)


def _set_attributes(host: Host) -> Callable[[], object]:
    disk = host.disk()
    return lambda: host.inside(sys.executable, "-c", SET_ATTRIBUTES, disk)


def _of_a_peer(host: Host) -> Callable[[], object]:
    """Mounted in another mount namespace, from where it comes to the daemon's."""
    disk = host.disk()
    host.inside("mount", "--make-shared", disk)
    host.inside("mkdir", disk / "inner")
    command = ["unshare", "--mount", "--propagation", "unchanged", "mount", "-t", "tmpfs", "none", disk / "inner"]
    return lambda: host.inside(*command)


CHANGES = (
    _mount,
    _unmount,
    _detach,
    _bind,
    _move,
    _upon_another,
    _below_a_private_one,
    _remount,
    _set_attributes,
    _of_a_peer,
)


@pytest.mark.parametrize("change", CHANGES, ids=[change.__name__.strip("_") for change in CHANGES])
@pytest.mark.parametrize("asleep", [True, False], ids=["asleep", "awake"])
def test_a_job_sees_what_was_changed_just_before(
    host: Host, change: Callable[[Host], Callable[[], object]], asleep: bool
) -> None:
    """`asleep`: its first stage did not even see the change by itself."""
    look = f"grep -o '{host.top}.*' /proc/self/mountinfo | cut -d' ' -f1,2; cat {host.top}/disk/file"
    do = change(host)
    pid = host.settled()
    before = host.shell(look)[1]
    host.settled()
    with still(pid) if asleep else contextlib.nullcontext(), ThreadPoolExecutor() as pool:
        do()
        seen = pool.submit(host.shell, look)
        if asleep:
            until(lambda: any(host.runtime.glob("jobs/*/control")))
            os.kill(pid, signal.SIGCONT)
        after = seen.result()[1]
    assert after != before
    assert after == _without_the_template(host, look)
    assert zygote(host) == pid


def _without_the_template(host: Host, look: str) -> str:
    """What a job sees for which its PID 1 prepares everything by itself."""
    return host.shell(look, net=Net.HOST)[1]


class TestOfTheHostAlone:
    """The copy has not the host's /proc, /sys, /dev and /run; a job that names them gets what the host has."""

    @pytest.fixture(autouse=True)
    def run(self, host: Host) -> None:
        """It is a mount, with something in it."""
        host.inside("mount", "-t", "tmpfs", "none", "/run")
        host.inside("mkdir", "/run/place")
        host.inside("sh", "-c", "echo here >/run/place/file")
        host.settled()

    def test_root_may_have_what_is_below_run(self, host: Host) -> None:
        assert host.ctl("run", "-f", "--bind", "/run/place:/tmp/x", "cat", "/tmp/x/file").stdout == b"here\n"

    def test_a_link_may_lead_there(self, host: Host) -> None:
        link = host.top / "link"
        link.symlink_to("/run/place")
        assert host.ctl("run", "-f", "--bind", f"{link}/file:/tmp/x", "cat", "/tmp/x").stdout == b"here\n"

    def test_beside_what_the_copy_has(self, host: Host) -> None:
        own = host.directory("own")
        (own / "file").write_text("own\n")
        words = ["--bind", f"{own}:/tmp/own", "--rw", str(own), "--bind", "/run/place:/tmp/x"]
        look = f"cat /tmp/own/file /tmp/x/file; echo more >>{own}/file"
        assert host.ctl("run", "-f", *words, "--", "sh", "-c", look).stdout == b"own\nhere\n"
        assert (own / "file").read_text() == "own\nmore\n"

    def test_all_of_the_host(self, host: Host) -> None:
        look = "cat /tmp/x/run/place/file; ls -A /tmp/x/proc"
        for _ in range(2):  # the second time upon another /proc
            assert host.ctl("run", "-f", "--bind", "/:/tmp/x", "--", "sh", "-c", look).stdout == b"here\n"
            host.inside("mount", "-t", "proc", "proc", "/proc")

    def test_after_many_long_names(self, host: Host) -> None:
        """All of them are looked up once more."""
        deep = host.top
        for _ in range(12):
            deep /= "x" * 250
        deep.mkdir(parents=True)
        link = host.directory("links") / "deep"
        link.symlink_to(deep)
        words = [word for _ in range(200) for word in ("--ro", str(link))]
        done = host.ctl("run", "-f", *words, "--ro", "/run/place", "true")
        assert (done.stderr, done.returncode) == (b"", 0)

    @pytest.mark.parametrize("directory", ["/dev/shm", "/proc", "/run", "/sys/kernel"])
    def test_the_working_directory(self, host: Host, directory: str) -> None:
        done = host.ctl("run", "-f", "-w", directory, "pwd")
        assert (done.stdout, done.stderr, done.returncode) == (f"{directory}\n".encode(), b"", 0)

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            (("-w", "/dev/shm/none"), b"working directory: /dev/shm/none: No such file or directory"),
            (("--bind", "/run/none:/tmp/x"), b"bind: /run/none: No such file or directory"),
            (("--bind", "/dev/shm:/tmp/x"), b"bind: /dev/shm: Operation not permitted"),
            (("--rw", "/srv/none"), b"writable path: /srv/none: No such file or directory"),
        ],
    )
    def test_what_cannot_be_had_is_told(self, host: Host, words: tuple[str, ...], said: bytes) -> None:
        done = host.ctl("run", "-f", *words, "true")
        assert (done.stdout, said in done.stderr) == (b"", True)

    def test_it_is_told_in_the_callers_words(self, host: Host) -> None:
        link = host.top / "link"
        link.symlink_to("/dev/null")
        with pytest.raises(StartFailed, match=f"writable path: {link}: Operation not permitted"):
            host.run("true", mounts=(Mount(MountKind.RW, str(link)),))


def test_what_comes_later_is_withheld_too(host: Host) -> None:
    """A /proc that was mounted just before the job: it shows the host's processes."""
    second = host.directory("second")
    for _ in range(3):
        host.settled()
        host.inside("mount", "-t", "proc", "proc", second)
        assert host.shell(f"ls -A {second}")[1] == ""
        host.settled()
        done = host.ctl("run", "--wait", "--bind", f"{second}:/tmp/x", "true")
        assert "Operation not permitted" in done.stderr.decode()
        host.inside("umount", second)


@pytest.mark.parametrize("net", [Net.NONE, Net.HOST])  # the second one without the first stage that stays
def test_nor_is_it_seen_when_it_comes_at_any_other_moment(host: Host, net: Net) -> None:
    second, over = host.directory("second"), threading.Event()
    host.settled()
    script = f"for n in 1 2 3 4 5 6 7 8; do mount -t proc proc {second}; umount -l {second}; done"

    def come_and_go() -> None:
        while not over.is_set():
            host.inside("sh", "-c", script)

    with ThreadPoolExecutor() as pool:
        coming = pool.submit(come_and_go)
        try:
            seen = {host.shell(f"ls -A {second}", net=net)[1] for _ in range(60)}
        finally:
            over.set()
        coming.result()
    assert seen == {""}


def test_two_that_change_places_while_it_is_made(host: Host) -> None:
    one, two = (host.directory(name) for name in ("one", "two"))
    for top in (one, two):
        (top / "proc").mkdir()
        host.inside("mount", "--bind", "/proc", top / "proc")
    look = f"ls -A {one}/proc {two}/proc"
    pid = left(host)
    with ThreadPoolExecutor() as pool, held_after(pid, OPENAT2) as reached:  # the first look at either
        seen = pool.submit(host.shell, look)
        assert reached.wait(30)
        exchange(one, two)
    assert seen.result()[1] == host.shell(look)[1] == f"{one}/proc:\n\n{two}/proc:\n"


def left(host: Host) -> int:
    """The first stage, which has no copy any more: it makes the next one for a job."""
    pid = host.settled()
    assert host.process is not None
    theirs = namespaces(host.process.pid)["mnt"]
    host.disk()
    until(lambda: namespaces(pid)["mnt"] == theirs and sleeps(pid))
    return pid


def exchange(one: Path, two: Path) -> None:
    here, swap = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    assert ctypes.CDLL(None).renameat2(here, bytes(one), here, bytes(two), swap) == 0


ANSWERS_NEVER = """
import ctypes, os, sys, time
fuse = os.open("/dev/fuse", os.O_RDWR)
options = f"fd={fuse},rootmode=40000,user_id=0,group_id=0,allow_other".encode()
assert ctypes.CDLL(None).mount(b"fuse", sys.argv[1].encode(), b"fuse", 0, options) == 0
print("there", flush=True)
time.sleep(1000)
"""
MOUNTS_WHEN_ASKED = """
import ctypes, fcntl, os, struct, sys
AUTOFS_IOC_READY = 0x9360
top, (asked, asks) = sys.argv[1], os.pipe()
mount = lambda name, place, kind, options: ctypes.CDLL(None).mount(
    name, place.encode(), kind, 0, options.encode())
os.setpgrp()
options = f"fd={asks},pgrp={os.getpgrp()},minproto=5,maxproto=5,indirect"
assert mount(b"auto", top, b"autofs", options) == 0
print("there", flush=True)
directory = os.open(top, os.O_RDONLY)
packet = os.read(asked, 304)
token, length = struct.unpack_from("=I", packet, 8)[0], struct.unpack_from("=I", packet, 40)[0]
place = top + "/" + packet[44:44 + length].decode()
os.mkdir(place)
assert mount(b"none", place, b"tmpfs", "mode=755") == 0
with open(place + "/file", "w") as file:
    file.write("here\\n")
fcntl.ioctl(directory, AUTOFS_IOC_READY, token)
os.read(asked, 304)
"""


@contextlib.contextmanager
def mounted(host: Host, program: str, place: Path) -> Iterator[None]:
    """By a program there that serves it."""
    assert host.process is not None
    words = ["nsenter", f"--mount=/proc/{host.process.pid}/ns/mnt", sys.executable, "-c", program, str(place)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            if server.stdout.readline() != "there\n":
                pytest.skip("this kernel does not mount it")
            yield
        finally:
            server.kill()


@pytest.mark.parametrize("host", ["shared"], indirect=True)
@pytest.mark.parametrize(
    ("cwd", "net"),
    # the second one is the host's alone, and the last one without the first stage that stays
    [("/", Net.NONE), ("/dev/shm", Net.NONE), ("/", Net.HOST)],
)
class TestWhatIsWaitedFor:
    """While PID 1 looks something up in its copy of the host's mounts."""

    def test_an_unmount_is_not_held_up(self, host: Host, cwd: str, net: Net) -> None:
        silent, disk = host.directory("silent"), host.disk()
        with mounted(host, ANSWERS_NEVER, silent), ThreadPoolExecutor() as pool:
            host.settled()
            mounts = (Mount(MountKind.BIND, "/tmp/x", source=f"{silent}/name"),)
            asking = pool.submit(host.shell, "true", cwd=cwd, net=net, mounts=mounts)
            until(lambda: any("fuse" in wchan(pid) for pid in host.processes()))
            (pid,) = host.processes()
            assert f" {disk} " in Path(f"/proc/{pid}/mountinfo").read_text()
            host.inside("umount", disk)
            assert f" {disk} " not in Path(f"/proc/{pid}/mountinfo").read_text()
            os.kill(pid, signal.SIGKILL)
            asking.exception(30)

    def test_what_is_mounted_for_it_is_there(self, host: Host, cwd: str, net: Net) -> None:
        auto = host.directory("auto")
        with mounted(host, MOUNTS_WHEN_ASKED, auto):
            host.settled()
            mounts = (Mount(MountKind.BIND, "/tmp/x", source=f"{auto}/name"),)
            assert host.shell("cat /tmp/x/file", cwd=cwd, net=net, mounts=mounts)[1] == "here\n"
            host.inside("umount", auto / "name")
            host.inside("umount", "--lazy", auto)


class TestUnmounted:
    @pytest.fixture
    def image(self, host: Host) -> Iterator[Path]:
        """Of an ext4 that is mounted there; its loop device goes with the last of its mounts."""
        image = host.base / "image"
        with image.open("wb") as file:
            file.truncate(16 << 20)
        try:
            subprocess.run(["mkfs.ext4", "-q", image], check=True)
            host.inside("mount", "-o", "loop", image, host.directory("disk"))
        except subprocess.CalledProcessError as error:
            pytest.skip(f"no ext4 on a loop device can be had here: {error.stderr}")
        yield image

    def test_a_disk_is_free(self, host: Host, image: Path) -> None:
        pid = host.settled()
        disk = host.directory("disk")
        assert f" {disk} " in Path(f"/proc/{pid}/mountinfo").read_text()
        assert devices(image)
        host.inside("umount", disk)
        until(lambda: not devices(image))

    @pytest.mark.parametrize("host", ["shared"], indirect=True)
    def test_it_is_free_at_once_where_mounts_are_shared(self, host: Host, image: Path) -> None:
        """All that was written is on it when umount(2) returns, whatever the first stage does."""
        with still(host.settled()):
            host.inside("umount", host.directory("disk"))
            assert not devices(image)


def devices(image: Path) -> str:
    return subprocess.run(["losetup", "-j", image], check=True, capture_output=True, text=True).stdout


def test_nothing_wakes_it_while_nothing_happens(host: Host) -> None:
    pid = host.settled()
    switches = switches_of(pid)
    time.sleep(0.5)
    assert switches_of(pid) == switches


def test_of_many_changes_without_a_job_the_first_alone_wakes_it(host: Host) -> None:
    """It leaves the copy, and makes another one for the next job."""
    assert host.process is not None
    second, theirs = host.directory("second"), namespaces(host.process.pid)["mnt"]
    pid = left(host)
    switches = switches_of(pid)
    for _ in range(3):
        host.inside("mount", "-t", "proc", "proc", second)
        host.inside("umount", second)
    host.inside("mount", "-t", "proc", "proc", second)
    time.sleep(0.2)
    assert switches_of(pid) == switches
    assert namespaces(pid)["mnt"] == theirs
    assert host.shell(f"cat {host.top}/disk/file; ls -A {second}")[1] == "here\n"
    until(lambda: namespaces(pid)["mnt"] != theirs)
    assert zygote(host) == pid


def switches_of(pid: int) -> list[str]:
    """How often it has slept and been woken."""
    return [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if "ctxt" in line]


def beneath(host: Host, program: str, **spec: Any) -> list[str]:
    """What it prints, with all rights, in the root of such a job."""
    with host.client() as client:
        pid = client.status(host.run("sleep", "1000", **spec)).pid
    there = [f"--mount=/proc/{pid}/ns/mnt", f"--pid=/proc/{pid}/ns/pid", f"--root=/proc/{pid}/root", "--wd=/"]
    words = ["nsenter", *there, "/usr/bin/python3", "-c", program]
    return sorted(subprocess.run(words, check=True, capture_output=True, text=True).stdout.splitlines())


def test_below_a_jobs_root_is_nothing(host: Host) -> None:
    lines = ["/ ['empty', 'host', 'sys'] ['nothing']", "/empty [] []", "/host [] []", "/sys [] []"]
    for rights in ({}, {"cap_add": ("SYS_ADMIN",)}):  # the second one without the first stage that stays
        assert beneath(host, BOTTOM, **rights) == lines


def test_what_is_mounted_later_does_not_come_into_a_running_job(host: Host) -> None:
    disk = host.directory("disk")
    job = host.run("sleep", "1000")
    host.disk()
    assert host.ctl("exec", job, "ls", str(disk)).stdout == b""
    assert host.shell(f"ls {disk}")[1] == "file\n"


def test_where_it_cannot_be_made_each_job_prepares_its_own(host: Host) -> None:
    pid = host.settled()
    _, most = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (FIRST_KEPT + 6, most))
    host.disk()
    second = host.directory("second")
    host.inside("mount", "-t", "proc", "proc", second)
    assert host.shell(f"cat {host.top}/disk/file; ls -A {second}; ls -d /proc/self")[1] == "here\n/proc/self\n"
    assert zygote(host) == pid
    assert host.process is not None
    assert namespaces(pid)["mnt"] == namespaces(host.process.pid)["mnt"]


def test_where_something_is_mounted_over_the_hosts_root(place: Path) -> None:
    top = place / "mounted-over"
    top.mkdir()
    (top / "file").write_text("here\n")
    daemon = MountedOver("private", top)
    try:
        daemon.start()
        daemon.ahead()
        for net in (Net.NONE, Net.HOST):  # the second one without the first stage that stays
            assert daemon.shell(f"cat {top}/file", net=net)[1] == "here\n"
            assert "/host [] []" in beneath(daemon, BELOW_BOTH, net=net)
    finally:
        daemon.close()
