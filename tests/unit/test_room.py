"""What a user could still be given, as daemon.info says it."""

from __future__ import annotations

from workerctl.words import room as in_words
from workerd.config import Totals
from workerd.job import Job, JobSpec, Limits, State
from workerd.protocol import Room
from workerd.room import rooms

G = 1 << 30


def job(uid: int, memory: int | None = None, cpus: float | None = None, state: State = State.RUNNING) -> Job:
    spec = JobSpec(argv=("true",), limits=Limits(memory=memory, cpus=cpus))
    return Job(id="a", uid=uid, gid=1, groups=(), spec=spec, state=state, created=0)


class TestRooms:
    def test_without_totals_the_host_is_the_bound(self) -> None:
        assert rooms(1, Totals(), Totals(), [], 8 * G, 4) == (Room(8 * G, 4), Room(8 * G, 4))

    def test_what_running_jobs_asked_for_is_not_free(self) -> None:
        _, free = rooms(1, Totals(), Totals(), [job(1, 2 * G, 1.5), job(2, G)], 8 * G, 4)
        assert free == Room(5 * G, 2.5)

    def test_of_the_users_total_only_the_users_own_jobs_take(self) -> None:
        jobs = [job(1, G), job(2, 4 * G)]
        assert rooms(1, Totals(memory=3 * G), Totals(), jobs, 64 * G, 4)[1].memory == 2 * G

    def test_the_least_of_all_bounds_holds(self) -> None:
        total, free = rooms(1, Totals(memory=6 * G, jobs=9), Totals(memory=4 * G), [job(2, 3 * G)], 8 * G, 4)
        assert total == Room(4 * G, 4, 9)
        assert free == Room(G, 4, 9)

    def test_a_waiting_job_takes_a_place_and_nothing_else(self) -> None:
        waiting = job(1, G, 1, State.QUEUED)
        assert rooms(1, Totals(jobs=3, max_running=2), Totals(), [waiting], 8 * G, 4)[1] == Room(8 * G, 4, 2)

    def test_more_taken_than_there_is_leaves_nothing(self) -> None:
        assert rooms(1, Totals(memory=G), Totals(), [job(1, 2 * G, 9)], 8 * G, 4)[1] == Room(0, 0)


class TestInWords:
    def test_what_has_no_bound_is_left_out(self) -> None:
        assert (
            in_words({"memory": G, "cpus": 1.5}, {"memory": 8 * G, "cpus": 2}) == "1 GiB of 8 GiB memory, 1.5 of 2 CPUs"
        )
