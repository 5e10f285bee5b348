"""Whether an ended job is tried again, and after how long."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from workerd.job import Job, JobSpec, Reason, Restart, RestartPolicy, State, Try
from workerd.restarting import (
    FIRST_WAIT,
    LONGEST_WAIT,
    TRIES_KEPT,
    again,
    anew,
    attempt,
    put_back,
    starts_anew,
    wait_before_next,
)

SECOND = 1_000_000


def ended(when: Restart = Restart.ON_FAILURE, limit: int | None = None, **fields: Any) -> Job:
    spec = JobSpec(argv=("x",), restart=RestartPolicy(when, limit))
    fields = {"reason": Reason.EXITED, "exit_code": 1, "started": 0, "finished": SECOND, **fields}
    return Job(id="a1", uid=1, gid=1, groups=(), spec=spec, state=State.FINISHED, created=0, **fields)


class TestWhether:
    @pytest.mark.parametrize(
        ("fields", "on_failure", "always"),
        [
            ({"exit_code": 0}, False, True),
            ({"exit_code": 1}, True, True),
            ({"reason": Reason.SIGNALED, "exit_code": None, "signal": 11}, True, True),
            ({"reason": Reason.OOM, "exit_code": None, "signal": 9}, True, True),
            ({"reason": Reason.TIMEOUT, "exit_code": 0}, True, True),
            ({"reason": Reason.LOST, "exit_code": None}, False, True),
            ({"reason": Reason.START_FAILED, "exit_code": None}, False, False),
            ({"reason": Reason.START_FAILED, "exit_code": None, "restarts": 1}, True, True),
            ({"exit_code": 1, "stop_requested": True}, False, False),
            ({"reason": Reason.STOPPED, "exit_code": None, "signal": 15, "stop_requested": True}, False, False),
        ],
    )
    def test_each_end(self, fields: dict[str, Any], on_failure: bool, always: bool) -> None:
        assert (wait_before_next(ended(Restart.ON_FAILURE, **fields)) is not None) is on_failure
        assert (wait_before_next(ended(Restart.ALWAYS, **fields)) is not None) is always
        assert wait_before_next(ended(Restart.NEVER, **fields)) is None

    def test_a_limit_is_the_number_of_further_tries(self) -> None:
        assert wait_before_next(ended(limit=2, restarts=1)) is not None
        assert wait_before_next(ended(limit=2, restarts=2)) is None


class TestWait:
    def test_it_doubles_to_a_minute(self) -> None:
        short = Try(Reason.EXITED, finished=SECOND, started=0)
        waits = [wait_before_next(ended(restarts=count, tries=(short,) * count)) for count in range(14)]
        assert waits[:4] == [FIRST_WAIT, 2 * FIRST_WAIT, 4 * FIRST_WAIT, 8 * FIRST_WAIT]
        assert waits[-1] == LONGEST_WAIT

    def test_it_stays_a_minute_however_many_tries_are_remembered(self) -> None:
        short = Try(Reason.EXITED, finished=SECOND, started=0)
        assert wait_before_next(ended(restarts=10**6, tries=(short,) * TRIES_KEPT)) == LONGEST_WAIT

    def test_a_long_run_begins_the_series_anew(self) -> None:
        short = Try(Reason.EXITED, finished=SECOND, started=0)
        long = Try(Reason.EXITED, finished=60 * SECOND, started=0)
        assert wait_before_next(ended(finished=60 * SECOND, restarts=5, tries=(short,) * 5)) == FIRST_WAIT
        assert wait_before_next(ended(restarts=6, tries=(*(short,) * 5, long))) == 2 * FIRST_WAIT


class TestAgain:
    def test_it_is_queued_as_new_and_the_try_is_kept(self) -> None:
        done = ended(exit_code=7, tries=(Try(Reason.EXITED, finished=1, output_end=10),), restarts=1)
        live = Job(
            id="a1",
            uid=1,
            gid=1,
            groups=(),
            spec=done.spec,
            state=State.RUNNING,
            created=0,
            started=0,
            pid=7,
            restarts=1,
            tries=done.tries,
        )
        job = again(live, done, 500, 1_000, 2_000, output_end=30)
        assert (job.state, job.restarts, job.start_at, job.start_mono) == (State.QUEUED, 2, 1_500, 2_500)
        assert (job.pid, job.started, job.exit_code, job.reason, job.finished) == (None,) * 5
        assert job.tries[-1] == Try(Reason.EXITED, SECOND, 0, 7, None, None, 10, 30)

    def test_only_the_newest_tries_are_kept(self) -> None:
        done = ended(tries=tuple(Try(Reason.EXITED, finished=n) for n in range(TRIES_KEPT)))
        live = Job(id="a1", uid=1, gid=1, groups=(), spec=done.spec, state=State.RUNNING, created=0, tries=done.tries)
        job = again(live, done, 500, 1_000, 2_000, output_end=30)
        assert len(job.tries) == TRIES_KEPT
        assert job.tries[0].finished == 1


class TestAStartThatWasCutShort:
    def starting(self, attempts: int) -> Job:
        job = msgspec.structs.replace(ended(start_attempts=attempts - 1, address="10.0.0.2"), state=State.QUEUED)
        return attempt(job, "boot")

    def test_of_a_job_that_had_waited_is_begun_again_after_a_wait_that_grows(self) -> None:
        waits = []
        for attempts in (1, 2, 3, 20):
            job = self.starting(attempts)
            assert starts_anew(job)
            waiting = anew(job, now=10**9, monotonic=10**6)
            assert (waiting.state, waiting.address, waiting.start_attempts) == (State.QUEUED, None, attempts)
            assert waiting.start_at is not None and waiting.start_mono is not None
            assert waiting.start_at - 10**9 == waiting.start_mono - 10**6
            waits.append(waiting.start_mono - 10**6)
        assert waits == [FIRST_WAIT, 2 * FIRST_WAIT, 4 * FIRST_WAIT, LONGEST_WAIT]

    def test_is_the_end_of_one_whose_caller_was_told(self) -> None:
        assert not starts_anew(ended(start_attempts=0))

    def test_counts_anew_with_each_try(self) -> None:
        live = msgspec.structs.replace(self.starting(3), state=State.RUNNING)
        assert again(live, ended(), 1, now=1, monotonic=1, output_end=0).start_attempts == 0

    def test_that_could_not_be_recorded_is_no_attempt(self) -> None:
        waiting = put_back(self.starting(3), 5, now=100, monotonic=10)
        assert (waiting.state, waiting.start_at, waiting.start_mono) == (State.QUEUED, 105, 15)
        assert waiting.start_attempts == 2
