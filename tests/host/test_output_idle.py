"""No polling: who has nothing to do makes no system call."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.host.daemon import ROOT, Daemon

SECONDS = 10


def calls(pid: int, seconds: float = SECONDS) -> str:
    """strace's table of what a process and its threads called; empty where nothing."""
    with tempfile.TemporaryDirectory(prefix="worker-test-") as folder:
        table = Path(folder) / "table"
        command = ["strace", "-f", "-o", str(table), "-p", str(pid)]
        tracer = subprocess.Popen(command, stderr=subprocess.PIPE)
        assert tracer.stderr is not None
        if b"attached" not in (told := tracer.stderr.readline()):
            tracer.wait(10)
            pytest.skip(f"strace cannot attach here: {told.decode().strip()}")
        time.sleep(seconds)
        tracer.terminate()
        tracer.communicate(timeout=30)
        # The call that it slept in when strace came and went is no new one.
        kept = [line for line in table.read_text().splitlines() if "resuming interrupted" not in line]
        return "\n".join(line for line in kept if "detached" not in line and "<unfinished" not in line)


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
class TestIdle:
    def test_a_follower_a_subscriber_the_daemon_and_pid_1_make_no_calls(self, own_daemon: Daemon) -> None:
        job_id = own_daemon.run("sh", "-c", "echo begin; sleep 1000")
        command = [sys.executable, "-m", "workerctl", "--socket", str(own_daemon.socket)]
        follower = subprocess.Popen([*command, "out", "-f", job_id], cwd=ROOT, stdout=subprocess.PIPE, bufsize=0)
        subscriber = subprocess.Popen([*command, "events", "--json"], cwd=ROOT, stdout=subprocess.PIPE, bufsize=0)
        assert subscriber.stdout is not None
        assert follower.stdout is not None and own_daemon.process is not None
        try:
            assert follower.stdout.read(6) == b"begin\n"
            time.sleep(1)  # it asks for more, and the launch's last traces settle
            with own_daemon.client() as client:
                init = client.status(job_id).pid
            assert init is not None
            time.sleep(6)  # the thread that looked at the cgroup is idle again
            idle = {"follower": follower.pid, "subscriber": subscriber.pid}
            idle |= {"PID 1": init, "daemon": own_daemon.process.pid}
            with ThreadPoolExecutor(len(idle)) as threads:
                found = dict(zip(idle, threads.map(calls, idle.values()), strict=True))
            own_daemon.ctl("pause", job_id)
            # One that came before the job ran is told of that first.
            while b'"state":"paused"' not in (told := subscriber.stdout.readline()):
                assert b'"state":"running"' in told, told
        finally:
            for process in (follower, subscriber):
                process.kill()
                process.communicate(timeout=30)
        assert found == dict.fromkeys(idle, "")

    def test_a_poller_would_be_found(self) -> None:
        poller = subprocess.Popen([sys.executable, "-c", "import time\nwhile True: time.sleep(0.5)"])
        try:
            time.sleep(1)
            assert "nanosleep" in calls(poller.pid, 3)
        finally:
            poller.kill()
            poller.wait(30)
