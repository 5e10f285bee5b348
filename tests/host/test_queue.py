"""Jobs that wait: for room, for others, for a time; against a real daemon."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.host.daemon import ENV, Daemon, as_user, running
from workerd import protocol
from workerd.errors import InvalidParams, NoSuchJob, PolicyExceeded, WrongState
from workerd.job import After, Job, JobSpec, Limits, Outcome, Reason, State

NOBODY = 65534
SECOND = 1_000_000
ONE_AT_A_TIME = "[machine]\nmax_running = 1\n"


def submit(daemon: Daemon, *argv: str, spec: dict[str, Any] | None = None, **params: Any) -> protocol.RunResult:
    with daemon.client() as client:
        result = client.call("job.run", protocol.RunParams(JobSpec(argv=argv, **(spec or {})), ENV, **params))
    assert isinstance(result, protocol.RunResult)
    return result


def status(daemon: Daemon, job_id: str) -> Job:
    with daemon.client() as client:
        return client.status(job_id)


def stop(daemon: Daemon, job_id: str) -> Job:
    with daemon.client() as client:
        return client.stop(job_id, grace=0)


def wait_until(condition: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.05)


class TestRoom:
    def test_a_job_waits_for_room_and_starts_when_there_is(self) -> None:
        with running(config=ONE_AT_A_TIME) as daemon:
            first = daemon.run("sleep", "1000")
            second = submit(daemon, "echo", "second")
            assert second.state is State.QUEUED
            assert second.waits_for == "the machine's 1 running job is there already"
            assert status(daemon, second.id).waits_for == second.waits_for
            stop(daemon, first)
            assert daemon.wait(second.id).exit_code == 0
            assert daemon.output(second.id) == b"second\n"

    def test_it_can_be_followed_while_it_waits(self) -> None:
        with running(config=ONE_AT_A_TIME) as daemon:
            first = daemon.run("sleep", "1")
            ran = daemon.ctl("run", "-f", "sh", "-c", "echo out; exit 4")
            assert (ran.stdout, ran.returncode) == (b"out\n", 4)
            assert b"waits: " in ran.stderr
            assert daemon.wait(first).exit_code == 0

    def test_memory_and_cpus_that_were_asked_for_are_what_is_counted(self) -> None:
        # Refused before this host's lack of controllers matters; tests/unit/test_schedule.py
        # has the arithmetic of what fits.
        with running(config='[machine]\nmemory = "1G"\ncpus = 2.0\n') as daemon:
            with pytest.raises(PolicyExceeded, match="memory 2G is more than the machine's total of 1G"):
                daemon.run("true", limits=Limits(memory=2 << 30))
            with pytest.raises(PolicyExceeded, match=r"cpus 3 is more than .*: it could never start"):
                daemon.run("true", limits=Limits(cpus=3))

    def test_no_queue_refuses(self) -> None:
        with running(config=ONE_AT_A_TIME) as daemon:
            daemon.run("sleep", "1000")
            refused = daemon.ctl("run", "--no-queue", "true")
            assert refused.returncode == 125
            assert b"it would have to wait: the machine's 1 running job is there already" in refused.stderr
            assert len(daemon.ctl("ps", "-q").stdout.split()) == 1

    def test_standard_input_cannot_wait(self) -> None:
        with running(config=ONE_AT_A_TIME) as daemon:
            daemon.run("sleep", "1000")
            with daemon.client() as client, open("/dev/null") as null:
                with pytest.raises(InvalidParams, match="standard input cannot wait"):
                    client.run(JobSpec(argv=("true",)), env=ENV, stdin=null.fileno())

    def test_first_in_first_out_after_priority(self) -> None:
        with running(config=ONE_AT_A_TIME) as daemon:
            first = daemon.run("sleep", "1000")
            place = daemon.base / "order"
            place.mkdir()
            spec: dict[str, Any] = {"cwd": str(place)}
            names = ["b", "c", "d"]
            ids = [submit(daemon, "sh", "-c", f"echo {name} >> order", spec=spec).id for name in names]
            urgent = submit(daemon, "sh", "-c", "echo a >> order", spec={**spec, "priority": 5}).id
            stop(daemon, first)
            for job_id in (*ids, urgent):
                assert daemon.wait(job_id).exit_code == 0
            assert (place / "order").read_text().split() == ["a", "b", "c", "d"]

    def test_two_users_take_turns_whoever_came_first(self) -> None:
        with running(config=ONE_AT_A_TIME) as daemon:
            first = daemon.run("sleep", "1000")
            place = daemon.base / "order"
            place.mkdir(mode=0o777)
            place.chmod(0o777)
            argv = ("sh", "-c", "id -u >> order; chmod 666 order 2>/dev/null; sleep 0.05")
            mine = [submit(daemon, *argv, spec={"cwd": str(place)}).id for _ in range(4)]

            def others() -> list[str]:
                return [submit(daemon, *argv, spec={"cwd": str(place)}).id for _ in range(4)]

            theirs = as_user(NOBODY, others)
            stop(daemon, first)
            for job_id in (*mine, *theirs):
                daemon.wait(job_id)
            order = (place / "order").read_text().split()
            assert sorted(order[:2]) == sorted(order[2:4]) == sorted(order[4:6]) == ["0", str(NOBODY)]

    def test_a_users_own_total_holds_up_that_user_alone(self) -> None:
        with running(config="[user]\nmax_running = 1\n") as daemon:

            def two() -> list[State]:
                return [submit(daemon, "sleep", "1000").state for _ in range(2)]

            assert as_user(NOBODY, two) == [State.RUNNING, State.QUEUED]
            assert as_user(4999, two) == [State.RUNNING, State.QUEUED]
            assert submit(daemon, "true").state is State.RUNNING

    def test_a_total_of_jobs_is_refused_at_once(self) -> None:
        with running(config="[machine]\njobs = 2\nmax_running = 1\n") as daemon:
            daemon.run("sleep", "1000")
            assert submit(daemon, "true").state is State.QUEUED
            with pytest.raises(PolicyExceeded, match="total of 2 jobs is taken"):
                daemon.run("true")

    def test_a_new_policy_makes_room(self) -> None:
        import signal

        with running(config=ONE_AT_A_TIME) as daemon:
            daemon.run("sleep", "1000")
            second = submit(daemon, "true").id
            daemon.config.write_text("[machine]\nmax_running = 2\n")
            assert daemon.process is not None
            daemon.process.send_signal(signal.SIGHUP)
            assert daemon.wait(second).exit_code == 0

    def test_ps_says_why(self) -> None:
        with running(config=ONE_AT_A_TIME) as daemon:
            daemon.run("sleep", "1000")
            head, behind = (submit(daemon, "true").id for _ in range(2))
            shown = daemon.ctl("ps").stdout.decode()
            assert "WAITS" in shown
            assert "the machine's 1 running job is there already" in shown
            assert f"behind {head}, which waits: the machine's" in shown
            assert "queued, waits: behind" in daemon.ctl("status", behind).stdout.decode()

    def test_a_waiting_job_can_be_stopped_and_takes_no_signals(self) -> None:
        with running(config=ONE_AT_A_TIME) as daemon:
            daemon.run("sleep", "1000")
            waiting = submit(daemon, "true").id
            with pytest.raises(WrongState, match="is queued: it takes no signals"), daemon.client() as client:
                client.kill(waiting)
            job = stop(daemon, waiting)
            assert (job.reason, job.detail, job.started) == (Reason.STOPPED, "while it waited", None)

    def test_a_start_that_fails_is_the_outcome_and_the_next_starts(self) -> None:
        with running(config=ONE_AT_A_TIME) as daemon:
            first = daemon.run("sleep", "1000")
            bad, good = submit(daemon, "no-such-command").id, submit(daemon, "true").id
            stop(daemon, first)
            job = daemon.wait(bad)
            assert (job.reason, job.start_error is not None) == (Reason.START_FAILED, True)
            assert daemon.wait(good).exit_code == 0

    def test_what_waits_still_does_after_a_restart_and_keeps_its_environment(self) -> None:
        with running(config=ONE_AT_A_TIME) as daemon:
            first = daemon.run("sleep", "1000")
            with daemon.client() as client:
                spec = JobSpec(argv=("sh", "-c", "echo $SECRET"))
                waiting = client.run(spec, env={**ENV, "SECRET": "still here"}).id
            daemon.restart()
            assert status(daemon, waiting).state is State.QUEUED
            assert status(daemon, waiting).waits_for is not None
            stop(daemon, first)
            assert daemon.wait(waiting).exit_code == 0
            assert daemon.output(waiting) == b"still here\n"

    def test_what_waits_starts_when_room_came_while_no_daemon_was_there(self) -> None:
        with running(config=ONE_AT_A_TIME) as daemon:
            daemon.run("sleep", "0.5")
            waiting = submit(daemon, "true").id
            daemon.kill()
            time.sleep(0.7)
            daemon.start()
            assert daemon.wait(waiting).exit_code == 0

    def test_a_hundred_jobs_run_four_at_a_time_and_no_more(self) -> None:
        with running(config="[machine]\nmax_running = 4\n") as daemon:
            place = daemon.base / "room"
            place.mkdir()
            script = "mkdir in.$$; set -- in.*; echo $# >> count; sleep 0.1; rmdir in.$$"
            spec = {"cwd": str(place)}
            # Each PID namespace has the same pids: the name is the job's own.
            script = script.replace("$$", "$WORKER_JOB_ID")
            ids = [submit(daemon, "sh", "-c", script, spec=spec).id for _ in range(100)]
            for job_id in ids:
                assert daemon.wait(job_id, 100).exit_code == 0
            counts = [int(line) for line in (place / "count").read_text().split()]
            assert len(counts) == 100
            assert max(counts) <= 4


class TestAfter:
    @pytest.mark.parametrize(
        ("script", "outcome", "runs"),
        [
            ("exit 0", Outcome.OK, True),
            ("exit 0", Outcome.FAILED, False),
            ("exit 0", Outcome.ANY, True),
            ("exit 3", Outcome.OK, False),
            ("exit 3", Outcome.FAILED, True),
            ("exit 3", Outcome.ANY, True),
            ("kill -9 $$", Outcome.OK, False),
            ("kill -9 $$", Outcome.FAILED, True),
        ],
    )
    def test_each_way_to_end(self, daemon: Daemon, script: str, outcome: Outcome, runs: bool) -> None:
        first = daemon.run("sh", "-c", f"sleep 0.5; {script}")
        second = submit(daemon, "echo", "ran", after=(After(first, outcome),))
        assert second.state is State.QUEUED
        assert second.waits_for == f"for {first} to {After(first, outcome).words()}"
        job = daemon.wait(second.id)
        if runs:
            assert (job.reason, job.exit_code) == (Reason.EXITED, 0)
        else:
            assert (job.reason, job.started) == (Reason.SKIPPED, None)
            assert job.detail is not None and job.detail.startswith(f"{first} was to {After(first, outcome).words()}")

    def test_all_conditions_must_be_met(self, daemon: Daemon) -> None:
        one, two = (daemon.run("sleep", seconds) for seconds in ("0.3", "0.8"))
        ran = daemon.ctl("run", "--wait", "--after", f"{one}:ok", "--after", two, "true")
        assert ran.returncode == 0
        assert status(daemon, two).state is State.FINISHED

    def test_a_chain_falls_with_its_first(self, daemon: Daemon) -> None:
        first = daemon.run("sh", "-c", "sleep 0.5; exit 1")
        second = submit(daemon, "true", after=(After(first, Outcome.OK),)).id
        third = submit(daemon, "true", after=(After(second, Outcome.OK),)).id
        cleanup = submit(daemon, "true", after=(After(third, Outcome.FAILED),)).id
        assert daemon.wait(third).reason is Reason.SKIPPED
        assert daemon.wait(cleanup).exit_code == 0

    def test_a_condition_that_cannot_be_met_is_refused_at_once(self, daemon: Daemon) -> None:
        job, _ = daemon.shell("exit 3")
        with pytest.raises(InvalidParams, match=f"{job.id} was to succeed, but it exited with 3"):
            submit(daemon, "true", after=(After(job.id, Outcome.OK),))
        with pytest.raises(NoSuchJob):
            submit(daemon, "true", after=(After("0000000000"),))
        assert submit(daemon, "true", after=(After(job.id),)).state is State.RUNNING

    def test_anothers_job_does_not_exist(self, daemon: Daemon) -> None:
        job_id = daemon.run("sleep", "1")

        def attempt() -> str:
            try:
                return submit(daemon, "true", after=(After(job_id),)).id
            except NoSuchJob as error:
                return str(error)

        assert as_user(NOBODY, attempt) == f"no such job: {job_id}"

    def test_an_end_while_no_daemon_was_there_counts(self, own_daemon: Daemon) -> None:
        first = own_daemon.run("sh", "-c", "sleep 0.5; exit 1")
        well = submit(own_daemon, "true", after=(After(first, Outcome.OK),)).id
        badly = submit(own_daemon, "true", after=(After(first, Outcome.FAILED),)).id
        own_daemon.kill()
        time.sleep(0.7)
        own_daemon.start()
        assert own_daemon.wait(well).reason is Reason.SKIPPED
        assert own_daemon.wait(badly).exit_code == 0

    def test_the_command_line_says_why_it_never_started(self, daemon: Daemon) -> None:
        first = daemon.run("sh", "-c", "sleep 0.5; exit 3")
        ran = daemon.ctl("run", "--wait", "--after", f"{first}:ok", "true")
        assert ran.returncode == 125
        assert f"never started ({first} was to succeed, but it exited with 3)".encode() in ran.stderr


class TestTimes:
    def test_a_delay(self, daemon: Daemon) -> None:
        job_id = submit(daemon, "true", delay=SECOND).id
        job = status(daemon, job_id)
        assert job.state is State.QUEUED
        assert job.waits_for is not None and job.waits_for.startswith("for its time, in ")
        job = daemon.wait(job_id)
        assert job.started is not None
        assert job.started - job.created >= 0.95 * SECOND

    def test_a_time(self, daemon: Daemon) -> None:
        when = int((time.time() + 1) * SECOND)
        job = daemon.wait(submit(daemon, "true", at=when).id)
        assert job.started is not None
        assert job.started >= when

    def test_a_time_that_is_over_is_now(self, daemon: Daemon) -> None:
        assert submit(daemon, "true", at=1).state is State.RUNNING

    def test_a_delay_goes_on_through_a_restart(self, own_daemon: Daemon) -> None:
        ids = [submit(own_daemon, "true", delay=delay).id for delay in (SECOND, 3 * SECOND)]
        own_daemon.kill()
        time.sleep(1.2)
        own_daemon.start()
        jobs = [own_daemon.wait(job_id) for job_id in ids]
        assert [job.exit_code for job in jobs] == [0, 0]
        assert jobs[1].started is not None
        assert jobs[1].started - jobs[1].created >= 2.9 * SECOND

    def test_a_waiting_job_that_is_not_due_holds_up_nobody(self) -> None:
        with running(config=ONE_AT_A_TIME) as daemon:
            submit(daemon, "true", delay=3600 * SECOND)
            assert submit(daemon, "true").state is State.RUNNING


class TestRerun:
    def test_the_same_again_with_its_environment(self, daemon: Daemon) -> None:
        job_id = daemon.run("sh", "-c", "echo $A; exit 3", env={**ENV, "A": "a"}, name="again", labels={"x": "y"})
        daemon.wait(job_id)
        ran = daemon.ctl("rerun", "again")
        job = daemon.wait(ran.stdout.decode().strip())
        assert (job.exit_code, job.rerun_of) == (3, job_id)
        assert job.spec == status(daemon, job_id).spec
        assert daemon.output(job.id) == b"a\n"

    def test_roots_rerun_of_anothers_job_is_still_that_users(self, daemon: Daemon) -> None:
        def run() -> str:
            return submit(daemon, "id", "-u").id

        job_id = as_user(4321, run, gid=4322)
        daemon.wait(job_id)
        job = daemon.wait(daemon.ctl("rerun", job_id).stdout.decode().strip())
        assert (job.uid, job.gid) == (4321, 4322)
        assert daemon.output(job.id) == b"4321\n"
