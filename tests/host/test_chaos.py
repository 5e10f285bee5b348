"""The daemon is killed at random moments, and at every named step; nothing is lost,
nothing is invented, nothing runs twice. `make chaos` is the long run of the same."""

from __future__ import annotations

import os

import pytest

from tests.host import chaos, steps, stepwise

SECONDS = float(os.environ.get("WORKER_CHAOS_SECONDS", "60"))


@pytest.mark.timeout(SECONDS + 6 * chaos.PATIENCE)
class TestChaos:
    def test_random_kills_lose_no_outcome_and_no_byte_and_run_nothing_twice(self) -> None:
        run = chaos.Chaos(seed=int(os.environ.get("WORKER_CHAOS_SEED", "1")), jobs=3000, kills=200, seconds=SECONDS)
        found = run.run()
        print(run.summary())
        assert found.good(), run.summary()
        assert run.kills >= chaos.LEAST_KILLS and len(run.asked) >= chaos.LEAST_JOBS, run.summary()


@pytest.mark.timeout(600)  # 46 kills and starts, each within 60 s on the busiest machine
class TestSteps:
    def test_killed_at_every_named_step_of_start_stop_and_end(self) -> None:
        run = stepwise.Stepwise(times=2)
        wrong = run.run(steps.names())
        assert not wrong, "\n".join(wrong)
        assert run.reached == set(steps.names()), f"never reached: {sorted(set(steps.names()) - run.reached)}"
