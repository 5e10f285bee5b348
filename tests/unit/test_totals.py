"""The totals that a user's cgroup and the disk hold, and the bounds of the socket."""

from __future__ import annotations

import pytest

from workerd import gate
from workerd.config import Totals
from workerd.errors import Exhausted, PolicyExceeded
from workerd.job import Job, JobSpec, Limits, State
from workerd.totals import cgroup_limits, check_output, default_output, unheld

ALL = frozenset({"cpu", "memory", "pids"})


def job(max_output: int) -> Job:
    spec = JobSpec(argv=("true",), max_output=max_output)
    return Job(id="a", uid=1, gid=1, groups=(), spec=spec, state=State.RUNNING, created=0)


class TestCgroupLimits:
    def test_pids_have_room_for_each_jobs_own_init(self) -> None:
        totals = Totals(memory=1 << 30, cpus=2, pids=100)
        assert cgroup_limits(totals, 3, ALL) == Limits(memory=1 << 30, cpus=2, pids=103)

    def test_without_totals_there_are_no_limits(self) -> None:
        assert cgroup_limits(Totals(jobs=5, output=9), 3, ALL) == Limits()

    def test_what_no_controller_holds_is_left_out_and_named(self) -> None:
        totals = Totals(memory=1 << 30, cpus=2, pids=100)
        assert cgroup_limits(totals, 1, frozenset({"pids"})) == Limits(pids=101)
        assert unheld([totals, Totals()], frozenset({"pids"})) == ["cpus", "memory"]
        assert unheld([totals], ALL) == []


class TestOutput:
    def test_finished_jobs_count_as_stored_and_others_as_what_they_may_keep(self) -> None:
        check_output(10, 100, [job(50)], 40, "your")
        with pytest.raises(PolicyExceeded, match="is more than the 10 left of your total of 100"):
            check_output(11, 100, [job(50)], 40, "your")

    def test_more_than_the_total_can_never_be(self) -> None:
        with pytest.raises(PolicyExceeded, match="more than the machine's total of 100"):
            check_output(101, 100, [], 0, "the machine's")

    def test_without_a_total_anything_goes(self) -> None:
        check_output(2**62, None, [job(2**62)], 2**62, "your")

    def test_the_default_is_within_the_totals(self) -> None:
        assert default_output(64, [Totals(output=32), Totals()]) == 32
        assert default_output(None, [Totals()]) is None


class TestGate:
    def test_a_users_connections_are_bounded_and_roots_are_not(self) -> None:
        made = gate.Gate()
        accounts = [made.enter(1000) for _ in range(gate.MAX_CONNECTIONS)]
        with pytest.raises(Exhausted, match="close some"):
            made.enter(1000)
        made.leave(accounts[0])
        made.enter(1000)
        made.enter(1001)
        for _ in range(gate.MAX_CONNECTIONS + 1):
            made.enter(0)

    def test_some_of_all_connections_are_roots_alone(self) -> None:
        made = gate.Gate()
        made.limit = gate.ROOTS_SHARE + 2
        made.enter(1000)
        made.enter(1001)
        with pytest.raises(Exhausted, match="as many connections as it can hold"):
            made.enter(1002)
        made.enter(0)
