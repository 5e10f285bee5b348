"""What is said of a job again, without asking the kernel, is less than a millisecond old."""

from __future__ import annotations

import msgspec
import pytest

from workerd.job import Job, JobSpec, State
from workerd.recentanswers import LASTS_NS, RecentAnswers

JOB = Job(id="a", uid=0, gid=0, groups=(), spec=JobSpec(argv=("true",)), state=State.RUNNING, created=1)
ANSWER = b"{}"


class Clock:
    now = 5_000_000_000

    def __call__(self) -> int:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def answers(clock: Clock) -> RecentAnswers:
    return RecentAnswers(clock)


def test_an_answer_holds_for_a_millisecond_from_when_it_was_asked_for(answers: RecentAnswers, clock: Clock) -> None:
    assert answers.get(JOB) is None
    clock.now += LASTS_NS // 2  # that it took to read
    answers.keep(JOB, ANSWER)
    clock.now += LASTS_NS // 2 - 1
    assert answers.get(JOB) is ANSWER
    clock.now += 1
    assert answers.get(JOB) is None


def test_a_job_that_changed_is_told_anew(answers: RecentAnswers) -> None:
    assert answers.get(JOB) is None
    answers.keep(JOB, ANSWER)
    assert answers.get(msgspec.structs.replace(JOB, state=State.STOPPING)) is None


def test_each_job_has_its_own(answers: RecentAnswers) -> None:
    assert answers.get(JOB) is None
    answers.keep(JOB, ANSWER)
    assert answers.get(msgspec.structs.replace(JOB, id="b")) is None


def test_few_are_kept_and_no_large_ones(answers: RecentAnswers) -> None:
    answers.get(JOB)
    answers.keep(JOB, b"x" * 16_385)
    assert answers.get(JOB) is None
    for number in range(1000):
        answers.keep(msgspec.structs.replace(JOB, id=str(number)), ANSWER)
    assert len(answers._answers) == 256
