"""How often a job's CPU time is looked at, and what a job's clock says."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from workerd.deadlines import IDLE_LOOK, SHORTEST_LOOK, cpu_wait
from workerd.job import RunClock


class TestLooks:
    @given(st.integers(1, 10**12), st.floats(0.01, 512))
    def test_a_job_on_all_its_cpus_is_never_over_by_more_than_the_shortest_look(self, left: int, cpus: float) -> None:
        wait = cpu_wait(left, cpus, 0)
        assert wait >= SHORTEST_LOOK
        assert wait * cpus * 1e6 <= max(left * 1.0001, SHORTEST_LOOK * cpus * 1e6)

    @given(st.integers(10_000, 10**12), st.floats(0.5, 512), st.floats(0.02, 1))
    def test_a_busy_job_is_looked_at_a_bounded_number_of_times(self, budget: int, cpus: float, busy: float) -> None:
        left, looks, spent = float(budget), 0, 0.0
        while left > 0:
            wait = cpu_wait(int(left) or 1, cpus, 0)
            left -= wait * 1e6 * cpus * busy
            spent += wait
            looks += 1
        assert looks <= 1 + spent / SHORTEST_LOOK + 1

    def test_an_idle_job_is_looked_at_once_a_second(self) -> None:
        wait, waits = 0.0, []
        for _ in range(10):
            wait = cpu_wait(1_000, 64, wait)
            waits.append(wait)
        assert waits[0] == SHORTEST_LOOK
        assert waits == sorted(waits)
        assert waits[-1] == IDLE_LOOK

    def test_a_large_budget_is_left_alone_for_long(self) -> None:
        assert cpu_wait(3_600_000_000, 2, 0) == 1800


class TestRunClock:
    def test_only_the_time_that_it_ran_counts(self) -> None:
        clock = RunClock(0, 1_000)
        assert clock.ran_until(4_000) == 3_000
        paused = clock.paused(4_000)
        assert paused.ran_until(900_000) == 3_000
        again = paused.running(1_000_000)
        assert again.ran_until(1_002_000) == 5_000

    def test_running_twice_and_pausing_twice_change_nothing(self) -> None:
        clock = RunClock(0, 1_000)
        assert clock.running(9_000) == clock
        paused = clock.paused(2_000)
        assert paused.paused(9_000) == paused
