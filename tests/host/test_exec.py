"""Input for jobs and further commands in them: descriptors, confinement, ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import Any

import pytest

from tests.host.daemon import ENV, ROOT, Daemon, as_user
from workerd import protocol
from workerd.errors import InvalidParams, NoSuchJob
from workerd.job import JobSpec

NOBODY = 65534
STATUS = "grep -E '^(Uid|Gid|Groups|Cap...|NoNewPrivs|Seccomp):' /proc/self/status; ulimit -a; umask"


def popen(daemon: Daemon, *words: str, **more: Any) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "workerctl", "--socket", str(daemon.socket), *words]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **more)


def sleeper(daemon: Daemon, **spec: Any) -> str:
    return daemon.run("sleep", "1000", **spec)


class TestInput:
    def test_every_byte_of_a_pipe_arrives_then_its_end(self, daemon: Daemon) -> None:
        data = os.urandom(5_000_000)
        done = daemon.ctl("run", "-i", "-f", "cat", input=data)
        assert (done.returncode, done.stdout) == (0, data)

    def test_wait_shows_what_the_job_makes_of_it(self, daemon: Daemon) -> None:
        assert daemon.ctl("run", "-i", "--wait", "wc", "-c", input=b"x" * 1000).stdout == b"1000\n"

    def test_the_job_goes_on_reading_when_the_client_has_gone(self, daemon: Daemon) -> None:
        read_end, write_end = os.pipe()
        job = daemon.ctl("run", "-i", "wc", "-c", stdin=read_end).stdout.decode().strip()
        os.close(read_end)
        os.write(write_end, b"y" * 30_000)
        os.close(write_end)
        daemon.wait(job)
        assert daemon.output(job) == b"30000\n"

    def test_a_closed_input_is_an_empty_one(self, daemon: Daemon) -> None:
        command = f"{sys.executable} -m workerctl --socket {daemon.socket} run -i --wait wc -c <&-"
        done = subprocess.run(["sh", "-c", command], cwd=ROOT, capture_output=True, check=False)
        assert (done.returncode, done.stdout) == (0, b"0\n")

    @pytest.mark.parametrize("what", ["directory", "terminal", "path"])
    def test_what_would_lead_out_of_the_job_is_refused(self, daemon: Daemon, what: str) -> None:
        master, slave = os.openpty()
        fd = {"directory": lambda: os.open("/", os.O_RDONLY), "terminal": lambda: os.dup(slave)}.get(
            what, lambda: os.open("/etc/passwd", os.O_PATH)
        )()
        try:
            with daemon.client() as client, pytest.raises(InvalidParams):
                client.run(JobSpec(argv=("cat",)), env=ENV, stdin=fd)
        finally:
            for one in (fd, master, slave):
                os.close(one)


class TestTerminalOutput:
    def test_every_byte_before_the_end_is_in_the_log(self, daemon: Daemon) -> None:
        for _ in range(5):
            job = daemon.run("sh", "-c", "stty -opost; exec seq 20000", tty=True)
            daemon.wait(job)
            assert daemon.output(job) == b"".join(b"%d\n" % number for number in range(1, 20001))

    def test_attach_is_for_the_owner(self, daemon: Daemon) -> None:
        job = daemon.run("cat", tty=True)

        def attach() -> None:
            from workerctl import Client

            with Client(str(daemon.socket)) as client:
                client.call("tty.attach", protocol.JobParams(job))

        with pytest.raises(NoSuchJob):
            as_user(NOBODY, attach)

    def test_a_client_can_type_but_not_read(self, daemon: Daemon) -> None:
        job = daemon.run("sh", "-c", "read line; echo got $line", tty=True)
        with daemon.client() as client:
            _, (fd,) = client.call_with_fds("tty.attach", protocol.JobParams(job))
            with pytest.raises(OSError):
                os.read(fd, 1)
            os.write(fd, b"typed\n")
            os.close(fd)
        daemon.wait(job)
        assert daemon.output(job).endswith(b"got typed\r\n")


class TestExec:
    def test_is_confined_as_the_jobs_own_command(self, daemon: Daemon) -> None:
        own = daemon.run("sh", "-c", f"{STATUS}; exec sleep 1000")
        deadline = time.monotonic() + 30
        while b"\n00" not in daemon.output(own):
            assert time.monotonic() < deadline
        done = daemon.ctl("exec", own, "sh", "-c", STATUS)
        assert done.stdout == daemon.output(own)

    def test_is_in_the_same_namespaces_and_cgroup(self, daemon: Daemon) -> None:
        script = "for n in cgroup ipc mnt net pid uts; do readlink /proc/$1/ns/$n; done; cat /proc/$1/cgroup"
        job = sleeper(daemon)
        done = daemon.ctl("exec", job, "sh", "-c", f"f() {{ {script}; }}; f self; f 2")
        lines = done.stdout.split()
        assert len(lines) >= 14
        assert lines[: len(lines) // 2] == lines[len(lines) // 2 :]

    def test_has_no_descriptor_but_its_three(self, daemon: Daemon) -> None:
        done = daemon.ctl("exec", sleeper(daemon), "sh", "-c", "echo /proc/self/fd/*; pwd -P")
        assert [int(name.rpartition("/")[2]) for name in done.stdout.decode().split("\n")[0].split()][:3] == [0, 1, 2]
        listed = daemon.ctl("exec", sleeper(daemon), "ls", "/proc/self/fd").stdout.split()
        assert listed == [b"0", b"1", b"2", b"3"]  # 3 is ls's own

    @pytest.mark.parametrize("cwd", ["/proc/self/fd/3", "/proc/1/cwd", "/proc/self/root", "/dev/fd/3", "/proc/1/root"])
    def test_no_directory_leads_out(self, daemon: Daemon, cwd: str) -> None:
        """CVE-2024-21626 by way of exec"""
        done = daemon.ctl("exec", "-w", cwd, sleeper(daemon), "pwd")
        assert (done.returncode, done.stdout) == (125, b"")

    def test_streams_and_exit_code_are_its_own(self, daemon: Daemon) -> None:
        job = sleeper(daemon)
        done = daemon.ctl(
            "exec", "-i", "-e", "A=b", "-w", "/etc", job, "sh", "-c", "cat; pwd; echo $A >&2; exit 9", input=b"in\n"
        )
        assert (done.returncode, done.stdout, done.stderr) == (9, b"in\n/etc\n", b"b\n")
        assert daemon.output(job) == b""
        assert daemon.ctl("exec", job, "sh", "-c", "kill -15 $$").returncode == 143
        assert daemon.ctl("exec", job, "no-such-command").returncode == 127
        assert daemon.ctl("exec", job, "/etc/passwd").returncode == 126
        assert daemon.ctl("exec", "-w", "/nowhere", job, "true").returncode == 125

    def test_dies_with_the_job(self, daemon: Daemon) -> None:
        job = sleeper(daemon)
        with popen(daemon, "exec", job, "sh", "-c", "echo up; exec sleep 1000") as entered:
            assert entered.stdout is not None and entered.stdout.readline() == b"up\n"
            assert daemon.ctl("kill", job).returncode == 0
            assert entered.wait(60) == 137
            daemon.wait(job)

    @pytest.mark.parametrize("tty", [False, True], ids=["pipe", "terminal"])
    def test_dies_with_a_job_that_ends_by_itself_while_it_writes_to_its_output(self, daemon: Daemon, tty: bool) -> None:
        """It is no child of the job's PID 1, which is left without any, and has output to drain."""
        job = daemon.run("sh", "-c", "until test -e /tmp/go; do sleep 0.02; done", tty=tty)
        there = "/dev/pts/0" if tty else "/proc/2/fd/1"
        with popen(daemon, "exec", job, "sh", "-c", f"exec > {there}; echo up; touch /tmp/go; exec yes") as entered:
            assert daemon.wait(job).exit_code == 0
            assert entered.wait(60) in (128 + signal.SIGKILL, 128 + signal.SIGPIPE)
        output = daemon.output(job)
        assert output.startswith(b"up\r\n" if tty else b"up\n") or len(output) > 32 << 20  # all that is kept

    def test_dies_with_its_client(self, daemon: Daemon) -> None:
        job = sleeper(daemon)
        with popen(daemon, "exec", job, "sh", "-c", "echo up; exec sleep 4321") as entered:
            assert entered.stdout is not None and entered.stdout.readline() == b"up\n"
            entered.kill()
            entered.wait(60)
            deadline = time.monotonic() + 30
            while b"4321" in daemon.ctl(
                "exec", job, "sh", "-c", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '; :"
            ).stdout.replace(b"sh -c", b""):
                assert time.monotonic() < deadline

    def test_a_restart_of_the_daemon_changes_nothing(self, own_daemon: Daemon) -> None:
        job = sleeper(own_daemon)
        with popen(
            own_daemon, "exec", "-i", job, "sh", "-c", "echo up; read line; exit $line", stdin=subprocess.PIPE
        ) as entered:
            assert entered.stdout is not None and entered.stdout.readline() == b"up\n"
            # The command writes past the daemon, whose answer may still be on its way.
            time.sleep(0.5)
            own_daemon.restart()
            assert entered.stdin is not None
            entered.stdin.write(b"23\n")
            entered.stdin.close()
            assert entered.wait(60) == 23
            assert own_daemon.ctl("exec", job, "echo", "again").stdout == b"again\n"

    def test_paused_and_finished_jobs_refuse_with_a_reason(self, daemon: Daemon) -> None:
        job = sleeper(daemon)
        daemon.ctl("pause", job)
        done = daemon.ctl("exec", job, "true")
        assert done.returncode == 125 and b"workerctl resume" in done.stderr
        daemon.ctl("resume", job)
        daemon.ctl("stop", job)
        done = daemon.ctl("exec", job, "true")
        assert done.returncode == 125 and b"finished" in done.stderr

    def test_is_for_the_owner(self, daemon: Daemon) -> None:
        job = sleeper(daemon)

        def enter() -> None:
            from workerctl import Client

            with Client(str(daemon.socket)) as client:
                fds = [os.open("/dev/null", os.O_RDWR) for _ in range(2)]
                client.call_with_fds("job.exec", protocol.ExecParams(job, ("true",), fds=2), fds)

        with pytest.raises(NoSuchJob):
            as_user(NOBODY, enter)
