"""job.update against a real daemon. That new limits bite is shown in tests/system, where
there are controllers; here: what is refused changes nothing, and time limits."""

from __future__ import annotations

import pytest

from tests.host.daemon import Daemon, running
from workerd import protocol
from workerd.errors import InvalidParams, MissingController, PolicyExceeded, WrongState
from workerd.job import Job, Limits, Reason, State

SECOND = 1_000_000


def update(daemon: Daemon, job_id: str, **params: object) -> Job:
    with daemon.client() as client:
        job = client.call("job.update", protocol.UpdateParams(job_id, **params))  # type: ignore[arg-type]
    assert isinstance(job, Job)
    return job


def status(daemon: Daemon, job_id: str) -> Job:
    with daemon.client() as client:
        return client.status(job_id)


class TestRefusals:
    def test_a_limit_that_this_host_cannot_hold_changes_nothing(self, daemon: Daemon) -> None:
        with daemon.client() as client:
            missing = client.info().missing_controllers
        if "memory" not in missing:
            pytest.skip("this host has the memory controller")
        job_id = daemon.run("sleep", "1000")
        with pytest.raises(MissingController):
            update(daemon, job_id, limits=Limits(memory=1 << 30), timeout=SECOND)
        job = status(daemon, job_id)
        assert (job.spec.limits, job.spec.timeout, job.state) == (Limits(), None, State.RUNNING)
        daemon.ctl("stop", "-t0", job_id)

    def test_nothing_named_a_wrong_name_and_both_at_once(self, daemon: Daemon) -> None:
        job_id = daemon.run("sleep", "1000")
        with pytest.raises(InvalidParams, match="nothing to change"):
            update(daemon, job_id)
        with pytest.raises(InvalidParams, match="no such limit: 'memroy'"):
            update(daemon, job_id, lift=("memroy",))
        with pytest.raises(InvalidParams, match="both set and lifted"):
            update(daemon, job_id, limits=Limits(cpus=1), lift=("cpus",))
        assert daemon.ctl("update", job_id).returncode == 125
        daemon.ctl("stop", "-t0", job_id)

    def test_a_finished_job(self, daemon: Daemon) -> None:
        job, _ = daemon.shell("true")
        with pytest.raises(WrongState, match="is finished: its limits cannot be changed"):
            update(daemon, job.id, timeout=SECOND)

    def test_more_than_is_left_of_the_total(self) -> None:
        with running(config="[machine]\npids = 100\n") as daemon:
            job_id = daemon.run("sleep", "1000")
            with pytest.raises(PolicyExceeded, match="pids 200 is more than the 100 left of the machine's total"):
                update(daemon, job_id, limits=Limits(pids=200))
            assert status(daemon, job_id).spec.limits == Limits()


class TestTimeout:
    def test_a_running_job_gets_one(self, daemon: Daemon) -> None:
        job_id = daemon.run("sleep", "1000")
        assert daemon.ctl("update", "--timeout", "500ms", job_id).returncode == 0
        assert daemon.wait(job_id).reason is Reason.TIMEOUT

    def test_a_longer_one_and_none(self, daemon: Daemon) -> None:
        jobs = [daemon.run("sh", "-c", "sleep 1.5; exit 5", timeout=SECOND) for _ in range(2)]
        assert daemon.ctl("update", "--timeout", "none", jobs[0]).returncode == 0
        assert update(daemon, jobs[1], timeout=3600 * SECOND).spec.timeout == 3600 * SECOND
        assert [daemon.wait(job_id).exit_code for job_id in jobs] == [5, 5]
