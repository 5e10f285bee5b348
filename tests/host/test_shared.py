"""What jobs share, since one for each would cost more the more jobs there are: a sysfs
(workerd/init/sharedsys.c) and a keyring. Neither leads from one job to another, or to the host."""

from __future__ import annotations

import contextlib
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.host.daemon import Daemon, until
from tests.host.firststage import end, zygotes
from tests.host.mounthost import Host
from tests.host.tracing import SETNS, failing
from workerd.errors import WorkerError
from workerd.job import Net

PYTHON = "/usr/bin/python3"
KEYCTL, GET_ID, JOIN, SESSION = 250, 0, 1, -3
SYSFS = "stat -c %d /sys; ls /sys/class/net; ip -br link | cut -d' ' -f1"
FIRMWARE = Path("/sys/firmware").is_dir() and os.listdir("/sys/firmware")
UNCOVER = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
assert libc.setns(os.open(f"/proc/{sys.argv[1]}/ns/mnt", os.O_RDONLY), 0) == 0
assert libc.umount2(b"/sys/firmware", 2) == 0, os.strerror(ctypes.get_errno())
"""
"""in the first stage's mounts, where the common one is"""
OWN = f"import ctypes; print(ctypes.CDLL(None).syscall({KEYCTL}, {GET_ID}, {SESSION}, 0))"


def sysfs(host: Daemon, script: str = SYSFS, **spec: object) -> list[str]:
    """Its device, and the interfaces that it shows and that there are."""
    return host.shell(script, **spec)[1].split()


def process(host: Daemon, job: str) -> Path:
    """In /proc, the job's PID 1."""
    with host.client() as client:
        return Path(f"/proc/{client.status(job).pid}")


def namespace(host: Daemon, job: str) -> str:
    return os.readlink(process(host, job) / "ns/net")


def device(host: Daemon, job: str) -> str:
    return str((process(host, job) / "root/sys").stat().st_dev)


class TestSysfs:
    def test_jobs_without_a_network_have_the_same(self, host: Host) -> None:
        host.settled()
        job = host.run("sleep", "1000")
        assert sysfs(host) == [device(host, job), "lo", "lo"]
        host.disk()  # and the host's mounts are copied anew
        assert sysfs(host) == [device(host, job), "lo", "lo"]

    def test_it_is_of_no_jobs_network_namespace(self, host: Host) -> None:
        """Else what that one makes would show in the others."""
        host.settled()
        rename = "ip link set lo down; ip link set lo name renamed; "
        assert sysfs(host, rename + SYSFS, cap_add=("NET_ADMIN",))[1:] == ["renamed", "renamed"]
        host.settled()
        assert sysfs(host)[1:] == ["lo", "lo"]

    def test_loopback_is_up_in_it(self, host: Host) -> None:
        host.settled()
        assert sysfs(host, "cat /sys/class/net/lo/flags /sys/class/net/lo/ifindex") == ["0x9", "1"]

    def test_nobody_else_has_it(self, host: Host) -> None:
        host.settled()
        shared = device(host, host.run("sleep", "1000"))
        alone = ({"net": Net.HOST}, {"cap_add": ("NET_ADMIN",)}, {"cap_add": ("SYS_ADMIN",)}, {"seccomp": False})
        for spec in (*alone, {"rootfs": "/"}):
            assert sysfs(host, **spec)[0] != shared

    @pytest.mark.skipif(not FIRMWARE, reason="this machine has nothing in /sys/firmware")
    def test_what_no_job_may_see_of_it_is_covered(self, host: Host) -> None:
        host.settled()
        for spec in ({}, {"seccomp": False}, {"rootfs": "/"}, {"net": Net.HOST}):
            assert sysfs(host, "ls -A /sys/firmware; echo $?", **spec) == ["0"]

    @pytest.mark.skipif(not FIRMWARE, reason="this machine has nothing in /sys/firmware")
    def test_it_is_covered_again_where_that_was_lost(self, host: Host) -> None:
        """As it is with a CPU that is taken off, and put on again."""
        pid = host.settled()
        subprocess.run([sys.executable, "-c", UNCOVER, str(pid)], check=True)
        assert sysfs(host, "ls -A /sys/firmware; echo $?") == ["0"]

    def test_it_stays_when_the_first_stage_has_left(self, host: Host) -> None:
        pid = host.settled()
        seen = process(host, host.run("sleep", "1000")) / "root/sys/class/net"
        end(pid)
        assert host.settled() != pid
        time.sleep(0.5)  # in which the kernel takes down a network namespace that nobody has
        assert os.listdir(seen) == ["lo"]

    @pytest.mark.skipif(platform.machine() != "x86_64", reason="the number of a call is changed as on x86_64")
    def test_no_job_is_started_in_its_network_namespace(self, host: Host) -> None:
        """Where the first stage cannot leave that again, it does not go on."""
        pid = host.settled()
        (kept,) = {name for fd in Path(f"/proc/{pid}/fd").iterdir() if (name := os.readlink(fd)).startswith("net:")}
        with failing(pid, SETNS, 3):  # to the host's mounts, there, and back
            host.disk()
            with contextlib.suppress(WorkerError):
                assert namespace(host, host.run("sleep", "1000")) != kept
        until(lambda: zygotes(host) != [pid])
        assert namespace(host, host.run("sleep", "1000")) != kept


class Keyed(Daemon):
    """With a session keyring of a name of its own."""

    def command(self) -> list[str]:
        script = f"import ctypes, os, sys; ctypes.CDLL(None).syscall({KEYCTL}, {JOIN}, {self.name!r}); "
        return [sys.executable, "-c", script + "os.execv(sys.argv[1], sys.argv[1:])", *super().command()]

    @property
    def name(self) -> bytes:
        return f"worker-test-{self.base.name}".encode()

    def uses(self) -> int:
        """By how many that is used, as /proc/keys has it (proc_keys(5))."""
        (line,) = [line for line in Path("/proc/keys").read_text().splitlines() if self.name.decode() in line]
        return int(line.split()[2])


@pytest.fixture
def keyed() -> Iterator[Keyed]:
    if not Path("/proc/keys").exists():
        pytest.skip("this kernel has no keys")
    daemon = Keyed()
    try:
        daemon.start()
        yield daemon
    finally:
        daemon.close()


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the number of keyctl is x86_64's")
class TestKeyring:
    @pytest.mark.parametrize(("net", "of_its_own"), [(Net.NONE, 0), (Net.HOST, 1)])
    def test_no_job_has_the_daemons(self, keyed: Keyed, net: Net, of_its_own: int) -> None:
        """Nor its PID 1. Who was executed by a process that had it holds it once, by its program's open file:
        the first stage that stays, and that of a job on the host's network."""
        until(lambda: zygotes(keyed) != [])
        before = keyed.uses()
        for _ in range(8):
            keyed.run("sleep", "1000", net=net)
        until(lambda: keyed.uses() <= before + 8 * of_its_own)

    def test_without_the_filter_each_has_its_own(self, keyed: Keyed) -> None:
        ids = [int(keyed.output(keyed.wait(keyed.run(PYTHON, "-c", OWN, seccomp=False)).id)) for _ in range(3)]
        assert len(set(ids)) == 3
        assert min(ids) > 0
