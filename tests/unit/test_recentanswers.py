"""What is said of a job again, without asking the kernel, is less than a millisecond old."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec

from workerd.job import Job, JobSpec, State
from workerd.recentanswers import LASTS_NS, RecentAnswers

JOB = Job(id="a", uid=0, gid=0, groups=(), spec=JobSpec(argv=("true",)), state=State.RUNNING, created=1)
ANSWER = msgspec.Raw(b"{}")


class Clock:
    now = 5_000_000_000

    def __call__(self) -> int:
        return self.now


def with_answers(use: Callable[[RecentAnswers, Clock], None]) -> None:
    async def run() -> None:
        clock = Clock()
        use(RecentAnswers(asyncio.get_running_loop(), clock), clock)

    asyncio.run(run())


def test_an_answer_holds_for_a_millisecond_from_when_it_was_asked_for() -> None:
    def use(answers: RecentAnswers, clock: Clock) -> None:
        assert answers.get(JOB) is None
        clock.now += LASTS_NS // 2  # that it took to read
        answers.keep(JOB, ANSWER)
        clock.now += LASTS_NS // 2 - 1
        assert answers.get(JOB) is ANSWER
        clock.now += 1
        assert answers.get(JOB) is None

    with_answers(use)


def test_a_job_that_changed_is_told_anew() -> None:
    def use(answers: RecentAnswers, clock: Clock) -> None:
        assert answers.get(JOB) is None
        answers.keep(JOB, ANSWER)
        assert answers.get(msgspec.structs.replace(JOB, state=State.STOPPING)) is None

    with_answers(use)


def test_each_job_has_its_own() -> None:
    def use(answers: RecentAnswers, clock: Clock) -> None:
        assert answers.get(JOB) is None
        answers.keep(JOB, ANSWER)
        assert answers.get(msgspec.structs.replace(JOB, id="b")) is None

    with_answers(use)


def test_nothing_is_kept_in_memory_once_it_is_old() -> None:
    async def run() -> None:
        answers = RecentAnswers(asyncio.get_running_loop())
        answers.get(JOB)
        answers.keep(JOB, ANSWER)
        await asyncio.sleep(2 * LASTS_NS / 1e9)
        assert not answers._answers

    asyncio.run(run())
