"""Which waiting jobs start next: the totals hold, first in first out, and fair."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from workerd.config import Totals
from workerd.schedule import Plan, Request, choose, never_fits

USERS = st.integers(1000, 1004)
TOTALS = st.builds(
    Totals,
    max_running=st.none() | st.integers(0, 6),
    memory=st.none() | st.integers(0, 40),
    cpus=st.none() | st.integers(0, 12).map(float),
    pids=st.none() | st.integers(0, 40),
)


@st.composite
def requests(draw: st.DrawFn, prefix: str, most: int) -> list[Request]:
    user_totals = {uid: draw(TOTALS) for uid in range(1000, 1005)}
    made = []
    for number in range(draw(st.integers(0, most))):
        uid = draw(USERS)
        made.append(
            Request(
                f"{prefix}{number}",
                uid,
                draw(st.integers(0, 20)),
                float(draw(st.integers(0, 6))),
                draw(st.integers(0, 20)),
                draw(st.integers(-2, 2)),
                user_totals[uid],
            )
        )
    return made


def within(jobs: Sequence[Request], totals: Totals) -> bool:
    sums = {
        "max_running": len(jobs),
        "memory": sum(job.memory for job in jobs),
        "cpus": sum(job.cpus for job in jobs),
        "pids": sum(job.pids for job in jobs),
    }
    return all(limit is None or sums[name] <= limit for name in sums if (limit := getattr(totals, name)) or limit == 0)


def of(uid: int, jobs: Sequence[Request]) -> list[Request]:
    return [job for job in jobs if job.uid == uid]


def ids(plan: Plan) -> list[str]:
    return plan.start


class TestTotals:
    @given(requests("w", 12), requests("r", 6), TOTALS)
    def test_they_are_never_exceeded_by_what_is_started(
        self, waiting: list[Request], running: list[Request], machine: Totals
    ) -> None:
        plan = choose(waiting, running, machine, {})
        by_id = {job.id: job for job in waiting}
        now = list(running)
        for job_id in plan.start:
            now.append(by_id[job_id])
            assert within(now, machine)
            mine = of(by_id[job_id].uid, now)
            assert within(mine, by_id[job_id].totals)

    @given(requests("w", 12), requests("r", 6), TOTALS)
    def test_each_job_starts_once_or_its_users_first_says_why(
        self, waiting: list[Request], running: list[Request], machine: Totals
    ) -> None:
        plan = choose(waiting, running, machine, {})
        assert len(set(plan.start)) == len(plan.start)
        left = [job for job in waiting if job.id not in plan.start]
        assert {job.uid for job in left} == {job.uid for job in waiting if job.id in plan.waits}
        assert all(plan.waits.values())
        assert not set(plan.waits) & set(plan.start)

    def test_a_job_that_asks_for_nothing_counts_as_a_job_alone(self) -> None:
        waiting = [Request(f"w{number}", 1000) for number in range(3)]
        plan = choose(waiting, [], Totals(max_running=2, memory=10), {})
        assert plan == Plan(["w0", "w1"], {"w2": "the machine's 2 running jobs are there already"})

    def test_what_can_never_fit_is_known(self) -> None:
        wish = Request("w", 1000, memory=2048, totals=Totals(memory=1024))
        assert never_fits(wish, Totals()) == "memory 2K is more than your total of 1K"
        assert never_fits(Request("w", 1000, cpus=3), Totals(cpus=2.5)) == (
            "cpus 3 is more than the machine's total of 2.5"
        )
        assert never_fits(Request("w", 1000, memory=1024), Totals(memory=1024)) is None

    @given(requests("w", 8), TOTALS)
    def test_on_an_idle_machine_the_first_of_all_that_can_fit_starts(
        self, waiting: list[Request], machine: Totals
    ) -> None:
        fitting = [job for job in waiting if never_fits(job, machine) is None]
        if fitting:
            assert choose(fitting, [], machine, {}).start


class TestOrder:
    @given(requests("w", 12), requests("r", 6), TOTALS)
    def test_a_users_jobs_start_first_in_first_out_after_priority(
        self, waiting: list[Request], running: list[Request], machine: Totals
    ) -> None:
        plan = choose(waiting, running, machine, {})
        for uid in {job.uid for job in waiting}:
            line = [job.id for job in sorted(of(uid, waiting), key=lambda job: -job.priority)]
            started = [job_id for job_id in plan.start if job_id in line]
            assert started == line[: len(started)]

    def test_a_priority_is_no_business_of_other_users(self) -> None:
        waiting = [Request("mine", 1000, priority=100), Request("yours", 1001, priority=-100)]
        plan = choose(waiting, [], Totals(max_running=1), {1000: 5, 1001: 4})
        assert plan.start == ["yours"]


class TestFairness:
    @given(st.integers(1, 4), st.integers(2, 5), st.lists(st.integers(0, 3), min_size=60, max_size=60))
    def test_users_with_work_get_alike_whoever_came_first(self, slots: int, users: int, ends: list[int]) -> None:
        """Everybody has a hundred jobs, one user's all came first; jobs end in any order."""
        line = [Request(f"{uid}.{number}", uid) for uid in range(users) for number in range(100)]
        machine = Totals(max_running=slots)
        running: list[Request] = []
        served: dict[int, int] = {}
        clock = itertools.count(1)
        started: Counter[int] = Counter()
        for end in ends:
            plan = choose(line, running, machine, served)
            for job_id in plan.start:
                job = next(job for job in line if job.id == job_id)
                line.remove(job)
                running.append(job)
                started[job.uid] += 1
                served[job.uid] = next(clock)
            assert len(running) == slots
            now = [len(of(uid, running)) for uid in range(users)]
            assert max(now) - min(now) <= 1
            running.pop(end % len(running))
        if slots == 1:
            assert max(started.values()) - min(started[uid] for uid in range(users)) <= 1

    def test_a_large_job_is_not_starved_by_small_ones_of_others(self) -> None:
        """What it lacks is kept for it as it is freed, up to its user's share."""
        machine = Totals(memory=8)
        running = [Request(f"r{number}", 1001, memory=1) for number in range(8)]
        waiting = [Request("large", 1000, memory=4), *(Request(f"w{n}", 1001, memory=1) for n in range(50))]
        for _ in range(5):
            plan = choose(waiting, running, machine, {})
            if plan.start:
                break
            running.pop()
        assert plan.start[0] == "large"
        assert len(running) == 4

    def test_a_wish_beyond_the_share_does_not_hold_up_everybody(self) -> None:
        machine = Totals(memory=8)
        running = [Request("service", 1001, memory=1)]
        waiting = [Request("all", 1000, memory=8), Request("small", 1001, memory=3), Request("next", 1001, memory=1)]
        plan = choose(waiting, running, machine, {})
        assert plan.start == ["small"]
        assert set(plan.waits) == {"all", "next"}
