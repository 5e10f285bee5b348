"""--timeout, --cpu-time and --on-timeout, against a real daemon."""

from __future__ import annotations

import time

from tests.host.daemon import Daemon
from workerd import protocol
from workerd.job import Job, OnTimeout, Reason, State

SECOND = 1_000_000
BUSY = "while :; do :; done"


def call(daemon: Daemon, method: str, job_id: str) -> Job:
    with daemon.client() as client:
        job = client.call(method, protocol.JobParams(job_id))
    assert isinstance(job, Job)
    return job


def wait_state(daemon: Daemon, job_id: str, state: State, seconds: float = 30) -> Job:
    deadline = time.monotonic() + seconds
    while (job := call(daemon, "job.status", job_id)).state is not state:
        assert time.monotonic() < deadline, f"{job.state}, not {state}"
        time.sleep(0.05)
    return job


class TestTimeout:
    def test_a_job_is_stopped_when_its_time_is_over(self, daemon: Daemon) -> None:
        job = daemon.wait(daemon.run("sleep", "1000", timeout=SECOND))
        assert (job.reason, job.signal, job.detail) == (Reason.TIMEOUT, 15, "1s")
        assert job.started is not None and job.finished is not None
        assert job.finished - job.started >= 0.95 * SECOND

    def test_the_command_may_end_in_order_and_it_is_a_timeout_all_the_same(self, daemon: Daemon) -> None:
        script = "trap 'echo bye; exit 0' TERM; while :; do sleep 0.05; done"
        job = daemon.wait(daemon.run("sh", "-c", script, timeout=SECOND))
        assert (job.reason, job.exit_code) == (Reason.TIMEOUT, 0)
        assert daemon.output(job.id) == b"bye\n"

    def test_a_job_that_ends_before_it_is_not_a_timeout(self, daemon: Daemon) -> None:
        job = daemon.wait(daemon.run("sh", "-c", "sleep 0.2; exit 3", timeout=3600 * SECOND))
        assert (job.reason, job.exit_code, job.timed_out) == (Reason.EXITED, 3, None)

    def test_the_command_line_ends_with_124(self, daemon: Daemon) -> None:
        ran = daemon.ctl("run", "--wait", "--timeout", "500ms", "sleep", "1000")
        assert ran.returncode == 124
        assert b"its time was over (500ms)" in ran.stderr

    def test_paused_time_does_not_count(self, daemon: Daemon) -> None:
        job_id = daemon.run("sh", "-c", "sleep 1; exit 7", timeout=3 * SECOND)
        call(daemon, "job.pause", job_id)
        time.sleep(3.2)
        call(daemon, "job.resume", job_id)
        assert daemon.wait(job_id).exit_code == 7

    def test_a_restart_of_the_daemon_does_not_begin_the_time_anew(self, own_daemon: Daemon) -> None:
        job_id = own_daemon.run("sleep", "1000", timeout=3 * SECOND)
        began = call(own_daemon, "job.status", job_id).clock
        time.sleep(1)
        own_daemon.restart()
        assert call(own_daemon, "job.status", job_id).clock == began
        job = own_daemon.wait(job_id)
        assert job.reason is Reason.TIMEOUT
        assert job.finished is not None and job.started is not None

    def test_what_ran_out_while_no_daemon_was_there_is_acted_on_at_once(self, own_daemon: Daemon) -> None:
        job_id = own_daemon.run("sleep", "1000", timeout=SECOND)
        own_daemon.kill()
        time.sleep(1.2)
        own_daemon.start()
        assert own_daemon.wait(job_id, 20).reason is Reason.TIMEOUT

    def test_a_stop_of_somebody_is_a_stop(self, daemon: Daemon) -> None:
        job_id = daemon.run("sleep", "1000", timeout=3600 * SECOND)
        daemon.ctl("stop", job_id)
        assert daemon.wait(job_id).reason is Reason.STOPPED


class TestOnTimeoutPause:
    def test_it_is_paused_and_runs_on_without_limit_once_resumed(self, daemon: Daemon) -> None:
        job_id = daemon.run("sh", "-c", "sleep 1.5; exit 4", timeout=SECOND // 2, on_timeout=OnTimeout.PAUSE)
        job = wait_state(daemon, job_id, State.PAUSED)
        assert job.timed_out == "timeout"
        assert b"its time was over" in daemon.ctl("status", job_id).stdout
        call(daemon, "job.resume", job_id)
        job = daemon.wait(job_id)
        assert (job.reason, job.exit_code) == (Reason.EXITED, 4)


class TestCpuTime:
    def test_a_busy_job_is_stopped(self, daemon: Daemon) -> None:
        job = daemon.wait(daemon.run("sh", "-c", BUSY, cpu_time=SECOND // 2), 100)
        assert (job.reason, job.detail) == (Reason.TIMEOUT, "500ms of CPU time")
        assert job.usage is not None and job.usage.cpu_usec is not None
        assert job.usage.cpu_usec >= SECOND // 2

    def test_all_processes_count_also_those_that_ended(self, daemon: Daemon) -> None:
        script = "while :; do sh -c 'i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done'; done"
        job = daemon.wait(daemon.run("sh", "-c", script, cpu_time=SECOND), 100)
        assert job.reason is Reason.TIMEOUT

    def test_an_idle_job_is_left_alone(self, daemon: Daemon) -> None:
        job = daemon.wait(daemon.run("sh", "-c", "sleep 2; exit 6", cpu_time=SECOND))
        assert job.exit_code == 6

    def test_a_restart_of_the_daemon_goes_on_counting(self, own_daemon: Daemon) -> None:
        job_id = own_daemon.run("sh", "-c", BUSY, cpu_time=SECOND)
        time.sleep(0.3)
        own_daemon.restart()
        assert own_daemon.wait(job_id, 100).reason is Reason.TIMEOUT
