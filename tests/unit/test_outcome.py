"""What PID 1 left behind, as it is told."""

from __future__ import annotations

import errno
from typing import Any

import pytest

from workerd.exitrecord import NeverRan, Started
from workerd.job import Job, JobSpec, Reason, State
from workerd.outcome import cut_short, interrupted, judge

NOW, THEN = 2_000, 1_000
CANCELED = NeverRan("go", errno.ECANCELED, "", THEN)
"""its word can no longer come"""


def judged(state: State, record: NeverRan | Started | None, **fields: Any) -> dict[str, Any]:
    job = Job(id="a1", uid=1, gid=1, groups=(), spec=JobSpec(argv=("true",)), state=state, created=1, **fields)
    return judge(job, record, oom_killed=False, now=NOW)


class TestThatItNeverHadTheWord:
    def test_of_a_job_that_was_to_start_is_a_start_cut_short(self) -> None:
        assert judged(State.STARTING, CANCELED) == interrupted(THEN)

    def test_of_a_job_that_was_being_stopped_is_its_stop(self) -> None:
        fields = judged(State.STOPPING, CANCELED, stop_requested=True)
        assert fields == {"reason": Reason.STOPPED, "detail": "before it started", "finished": THEN}

    @pytest.mark.parametrize("state", [State.STARTING, State.STOPPING])
    def test_has_the_time_of_now_where_none_was_recorded(self, state: State) -> None:
        assert judged(state, CANCELED._replace(finished=0))["finished"] == NOW


class TestThatAStepFailed:
    @pytest.mark.parametrize("state", [State.STARTING, State.STOPPING])
    @pytest.mark.parametrize("record", [NeverRan("go", errno.EMFILE, "", THEN), NeverRan("exec", 2, "/x", THEN)])
    def test_is_a_failed_start_whatever_was_asked_for(self, state: State, record: NeverRan) -> None:
        fields = judged(state, record)
        assert (fields["reason"], fields["finished"]) == (Reason.START_FAILED, THEN)
        assert (fields["start_error"].step, fields["start_error"].errno) == (record.step, record.errno)


class TestThatThereIsNoRecord:
    def test_of_a_job_that_was_to_start_is_a_start_cut_short(self) -> None:
        assert judged(State.STARTING, None) == interrupted(NOW)

    def test_of_a_job_that_was_being_stopped_is_its_stop(self) -> None:
        fields = judged(State.STOPPING, None, stop_requested=True)
        assert fields == {"reason": Reason.STOPPED, "detail": "before it started", "finished": NOW}

    def test_of_one_that_ran_when_it_was_stopped_is_that_it_was_killed(self) -> None:
        for record, started in ((None, THEN), (Started(THEN), None)):
            fields = judged(State.STOPPING, record, stop_requested=True, started=started)
            assert (fields["reason"], fields["signal"]) == (Reason.STOPPED, 9)

    def test_of_a_job_that_ran_is_that_nobody_knows(self) -> None:
        fields = judged(State.RUNNING, None)
        assert fields["reason"] is Reason.LOST and "exit_code" not in fields


class TestWhetherItsStartWasCutShort:
    """If so, a job that had waited is started again: it must not have run."""

    @pytest.mark.parametrize(
        ("state", "record", "oom_killed", "expected"),
        [
            (State.STARTING, None, False, True),
            (State.STARTING, CANCELED, False, True),
            (State.STARTING, None, True, False),
            (State.STARTING, Started(THEN), False, False),
            (State.STARTING, NeverRan("exec", 2, "/x", THEN), False, False),
            (State.RUNNING, None, False, False),
            (State.STOPPING, None, False, False),
            (State.STOPPING, CANCELED, False, False),
        ],
    )
    def test_each(self, state: State, record: Any, oom_killed: bool, expected: bool) -> None:
        job = Job(id="a1", uid=1, gid=1, groups=(), spec=JobSpec(argv=("true",)), state=state, created=1)
        assert cut_short(job, record, oom_killed=oom_killed) is expected
