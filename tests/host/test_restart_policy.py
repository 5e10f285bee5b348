"""--restart: the same job again, its tries and its output kept; against a real daemon."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from tests.host.daemon import Daemon, until
from workerd.job import Job, Reason, Restart, RestartPolicy, State

SECOND = 1_000_000
COUNT = 'n=$(cat n 2>/dev/null || echo 0); n=$((n+1)); echo $n > n; echo "try $n"; '


def policy(when: str, limit: int | None = None) -> RestartPolicy:
    return RestartPolicy(Restart(when), limit)


def place(daemon: Daemon, name: str) -> dict[str, Any]:
    path = daemon.base / name
    path.mkdir()
    return {"cwd": str(path)}


def status(daemon: Daemon, job_id: str) -> Job:
    with daemon.client() as client:
        return client.status(job_id)


def wait_restarts(daemon: Daemon, job_id: str, count: int) -> Job:
    deadline = time.monotonic() + 30
    while (job := status(daemon, job_id)).restarts < count:
        assert time.monotonic() < deadline, job
        time.sleep(0.02)
    return job


def wait_output(daemon: Daemon, job_id: str, expected: bytes) -> None:
    until(lambda: daemon.output(job_id) == expected)


class TestOnFailure:
    def test_until_it_succeeds_under_the_same_id(self, daemon: Daemon) -> None:
        script = COUNT + "[ $n -ge 3 ] || exit $n"
        job = daemon.wait(daemon.run("sh", "-c", script, restart=policy("on-failure"), **place(daemon, "succeed")))
        assert (job.reason, job.exit_code, job.restarts) == (Reason.EXITED, 0, 2)
        assert [(tried.reason, tried.exit_code) for tried in job.tries] == [(Reason.EXITED, 1), (Reason.EXITED, 2)]
        assert daemon.output(job.id) == b"try 1\ntry 2\ntry 3\n"
        assert [(tried.output_start, tried.output_end) for tried in job.tries] == [(0, 6), (6, 12)]
        assert job.output_end == 18

    def test_a_limit(self, daemon: Daemon) -> None:
        job = daemon.wait(daemon.run("sh", "-c", "exit 9", restart=policy("on-failure", 2)))
        assert (job.exit_code, job.restarts, len(job.tries)) == (9, 2, 2)

    def test_the_wait_between_tries_grows(self, daemon: Daemon) -> None:
        job = daemon.wait(daemon.run("sh", "-c", "exit 9", restart=policy("on-failure", 3)))
        began = [tried.started for tried in job.tries] + [job.started]
        ended = [tried.finished for tried in job.tries]
        waits = [after - before for before, after in zip(ended, began[1:], strict=True) if after is not None]
        assert all(wait >= least * SECOND for wait, least in zip(waits, (0.09, 0.19, 0.39), strict=True))

    def test_the_first_start_that_fails_is_told_and_not_tried_again(self, daemon: Daemon) -> None:
        ran = daemon.ctl("run", "--restart", "always", "no-such-command")
        assert ran.returncode == 127

    def test_a_time_limit_is_a_failure_and_each_try_has_the_whole_time(self, daemon: Daemon) -> None:
        job = daemon.wait(
            daemon.run("sleep", "1000", restart=policy("on-failure", 1), timeout=SECOND // 2),
        )
        assert (job.reason, job.restarts) == (Reason.TIMEOUT, 1)
        assert job.tries[0].reason is Reason.TIMEOUT


    def test_the_output_stays_where_the_next_try_cannot_even_be_prepared(self, own_daemon: Daemon) -> None:
        script = "echo try; [ -e second ] || { touch second; while [ ! -e go ]; do sleep 0.02; done; exit 1; }"
        where = place(own_daemon, "unprepared")
        job_id = own_daemon.run("sh", "-c", script, restart=policy("on-failure"), **where)
        most = own_daemon.cgroup / "jobs/cgroup.max.descendants"
        most.write_text("1")  # its user's, and none below that once the first try's is gone
        (Path(where["cwd"]) / "go").touch()
        job = wait_restarts(own_daemon, job_id, 2)
        most.write_text("max")
        assert [tried.reason for tried in job.tries] == [Reason.EXITED, Reason.START_FAILED]
        assert own_daemon.wait(job_id).exit_code == 0
        assert own_daemon.output(job_id) == b"try\ntry\n"


class TestAlways:
    def test_also_after_success_and_a_follower_sees_all_tries(self, daemon: Daemon) -> None:
        words = ["run", "-f", "--restart", "always:2", "-w", place(daemon, "follow")["cwd"], "sh", "-c", COUNT]
        ran = daemon.ctl(*words)
        assert (ran.stdout, ran.returncode) == (b"try 1\ntry 2\ntry 3\n", 0)

    def test_a_stop_ends_it_while_it_runs(self, daemon: Daemon) -> None:
        job_id = daemon.run("sleep", "1000", restart=policy("always"))
        with daemon.client() as client:
            job = client.stop(job_id)
        assert (job.state, job.reason, job.restarts) == (State.FINISHED, Reason.STOPPED, 0)

    def test_a_stop_ends_it_while_it_waits_for_its_next_try(self, daemon: Daemon) -> None:
        job_id = daemon.run("sh", "-c", "echo x; exit 1", restart=policy("always"))
        wait_restarts(daemon, job_id, 5)  # the next wait is 3.2 s
        deadline = time.monotonic() + 20
        while status(daemon, job_id).state is not State.QUEUED:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert (status(daemon, job_id).waits_for or "").startswith("for its next try, in ")
        with daemon.client() as client:
            job = client.stop(job_id)
        assert (job.reason, job.detail) == (Reason.STOPPED, "while it waited")
        assert len(job.tries) == job.restarts
        assert daemon.output(job_id) == b"x\n" * job.restarts

    def test_a_killed_init_is_one_lost_try(self, daemon: Daemon) -> None:
        import os

        job_id = daemon.run("sleep", "1000", restart=policy("always"))
        pid = status(daemon, job_id).pid
        assert pid is not None
        os.kill(pid, 9)
        job = wait_restarts(daemon, job_id, 1)
        assert job.tries[0].reason is Reason.LOST
        daemon.ctl("stop", "-t0", job_id)

    def test_nothing_is_left_of_its_tries(self, daemon: Daemon) -> None:
        job = daemon.wait(daemon.run("sh", "-c", "setsid sleep 1000 & exit 1", restart=policy("on-failure", 3)))
        deadline = time.monotonic() + 20
        while list(daemon.cgroup.glob(f"jobs/uid-0/job-{job.id}")) or list(daemon.runtime.glob(f"jobs/{job.id}")):
            assert time.monotonic() < deadline
            time.sleep(0.02)


class TestRestartOfTheDaemon:
    def test_a_try_goes_on_and_the_next_ones_come(self, own_daemon: Daemon) -> None:
        script = COUNT + "until [ -e $n ]; do sleep 0.02; done; [ $n -ge 3 ]"
        spec = place(own_daemon, "work")
        job_id = own_daemon.run("sh", "-c", script, restart=policy("on-failure"), **spec)
        said = b""
        for number in (1, 2, 3):
            said += b"try %d\n" % number
            wait_output(own_daemon, job_id, said)
            own_daemon.restart()
            Path(spec["cwd"], str(number)).touch()
        job = own_daemon.wait(job_id)
        assert (job.exit_code, job.restarts) == (0, 2)
        assert own_daemon.output(job_id) == b"try 1\ntry 2\ntry 3\n"

    def test_the_wait_goes_on(self, own_daemon: Daemon) -> None:
        job_id = own_daemon.run("sh", "-c", "exit 1", restart=policy("on-failure", 6))
        wait_restarts(own_daemon, job_id, 5)
        own_daemon.kill()
        own_daemon.start()
        job = own_daemon.wait(job_id)
        assert (job.exit_code, job.restarts, len(job.tries)) == (1, 6, 6)

    def test_an_end_while_no_daemon_was_there_is_tried_again(self, own_daemon: Daemon) -> None:
        spec = place(own_daemon, "work")
        script = COUNT + "sleep 0.5; [ $n -ge 2 ]"
        job_id = own_daemon.run("sh", "-c", script, restart=policy("on-failure"), **spec)
        own_daemon.kill()
        time.sleep(1)
        own_daemon.start()
        job = own_daemon.wait(job_id)
        assert (job.exit_code, job.restarts) == (0, 1)
        assert own_daemon.output(job_id) == b"try 1\ntry 2\n"


class TestWords:
    def test_status_tells_of_each_try(self, daemon: Daemon) -> None:
        job = daemon.wait(daemon.run("sh", "-c", "echo x; exit 2", restart=policy("on-failure", 1)))
        shown = daemon.ctl("status", job.id).stdout.decode()
        assert "earlier tries" in shown
        assert "1: exited with 2 after" in shown
        assert "2 B of output" in shown

    def test_standard_input_is_refused(self, daemon: Daemon) -> None:
        import pytest

        from workerd.errors import InvalidParams
        from workerd.job import JobSpec

        with daemon.client() as client, open("/dev/null") as null, pytest.raises(InvalidParams, match="there once"):
            client.run(JobSpec(argv=("true",), restart=policy("always")), stdin=null.fileno())
