"""The policy, through a live daemon, as several users."""

from __future__ import annotations

import signal
from typing import Any

import pytest

from tests.host.daemon import ENV, Daemon, as_user, running
from workerctl import Client
from workerd import protocol
from workerd.errors import NotPermitted, PolicyExceeded
from workerd.job import IoLimit, Job, JobSpec, Limits, State

ALICE, BOB, STAFF = 65533, 65534, 4242


def run(path: str, spec: dict[str, Any], wait: bool = True) -> Job:
    """A job as the calling user: as it ended, or as it runs."""
    with Client(path) as client:
        started = client.call("job.run", protocol.RunParams(spec=JobSpec(**spec), env=ENV, queue=False))
        job: Job
        if wait:
            (job,) = client.call("job.wait", protocol.WaitParams(ids=(started.id,))).finished
        else:
            job = client.call("job.status", protocol.JobParams(id=started.id))
    return job


def sleeper(**spec: Any) -> dict[str, Any]:
    return {"argv": ("sleep", "600"), **spec}


def info(path: str) -> protocol.InfoResult:
    with Client(path) as client:
        return client.info()


def reload(daemon: Daemon, config: str, said: str) -> None:
    daemon.config.write_text(config)
    at = len(daemon.log.read_text())
    assert daemon.process is not None
    daemon.process.send_signal(signal.SIGHUP)
    daemon.wait_log(said, after=at)


class TestTotals:
    def test_of_jobs_are_each_users_own(self) -> None:
        with running(config="[user]\njobs = 2\n") as daemon:
            path = str(daemon.socket)
            for _ in range(2):
                as_user(ALICE, run, path, sleeper(), False)
            with pytest.raises(PolicyExceeded, match="your total of 2 jobs is taken"):
                as_user(ALICE, run, path, sleeper(), False)
            assert as_user(BOB, run, path, {"argv": ("true",)}).exit_code == 0
            assert run(path, {"argv": ("true",)}).exit_code == 0

    def test_the_users_table_wins_then_the_most_generous_group(self) -> None:
        config = f"[user]\njobs = 1\n[users.{ALICE}]\njobs = 2\n[groups.{STAFF}]\njobs = 3\n"
        with running(config=config) as daemon:
            path = str(daemon.socket)
            for _ in range(2):
                as_user(ALICE, run, path, sleeper(), False, groups=(STAFF,))
            with pytest.raises(PolicyExceeded, match="your total of 2 jobs"):
                as_user(ALICE, run, path, sleeper(), False, groups=(STAFF,))
            for _ in range(3):
                as_user(BOB, run, path, sleeper(), False, groups=(STAFF,))
            with pytest.raises(PolicyExceeded, match="your total of 3 jobs"):
                as_user(BOB, run, path, sleeper(), False, groups=(STAFF,))

    def test_of_stored_output_count_what_is_really_on_the_disk(self) -> None:
        """A log of 3 MiB of which 1 MiB is kept takes a little over 1 MiB."""
        with running(config='[user]\noutput = "4M"\n[defaults]\nmax_output = "1M"\n') as daemon:
            path = str(daemon.socket)
            write = {"argv": ("head", "-c", "3145728", "/dev/zero"), "max_output": 1 << 20}
            assert as_user(ALICE, run, path, write).exit_code == 0
            assert as_user(ALICE, run, path, write).exit_code == 0
            with pytest.raises(PolicyExceeded, match=r"left of your total of 4M: remove finished jobs"):
                as_user(ALICE, run, path, {"argv": ("true",), "max_output": 3 << 20})
            assert as_user(ALICE, run, path, {"argv": ("true",), "max_output": 1 << 20}).exit_code == 0
            assert as_user(BOB, run, path, {"argv": ("true",), "max_output": 4 << 20}).exit_code == 0

    def test_of_stored_output_bound_what_is_kept_of_a_job_that_does_not_say(self) -> None:
        config = f'[defaults]\nmax_output = "3M"\n[user]\noutput = "4M"\n[users.{ALICE}]\noutput = "2M"\n'
        with running(config=config) as daemon:
            path = str(daemon.socket)
            for uid, kept in ((ALICE, 2 << 20), (BOB, 3 << 20)):
                assert as_user(uid, info, path).default_output == kept
                assert as_user(uid, run, path, {"argv": ("true",)}).spec.max_output == kept

    def test_of_stored_output_count_all_that_a_live_job_may_still_keep(self) -> None:
        with running(config='[user]\noutput = "4M"\n') as daemon:
            path = str(daemon.socket)
            as_user(ALICE, run, path, sleeper(max_output=3 << 20), False)
            with pytest.raises(PolicyExceeded, match="max-output 2M is more than the 1M left of your total of 4M"):
                as_user(ALICE, run, path, {"argv": ("true",), "max_output": 2 << 20})
            with pytest.raises(PolicyExceeded, match="max-output 5M is more than your total of 4M"):
                as_user(ALICE, run, path, {"argv": ("true",), "max_output": 5 << 20})

    def test_of_the_machine_count_everybody(self) -> None:
        with running(config='[machine]\njobs = 2\noutput = "1G"\n') as daemon:
            path = str(daemon.socket)
            as_user(ALICE, run, path, sleeper(), False)
            as_user(BOB, run, path, sleeper(), False)
            with pytest.raises(PolicyExceeded, match="the machine's total of 2 jobs is taken"):
                run(path, sleeper(), False)

    def test_a_job_that_has_ended_does_not_count(self) -> None:
        """Not from the moment on at which whoever waits for it is told."""
        with running(config="[machine]\njobs = 1\n") as daemon, daemon.client() as client:
            for _ in range(30):
                client.wait([client.run(["true"], env=ENV).id])

    def test_that_no_controller_holds_are_told_in_the_log(self) -> None:
        with running(config='[user]\nmemory = "1G"\n') as daemon:
            if "cannot limit" in daemon.log.read_text():
                assert "the totals of memory count what jobs ask for, and no more" in daemon.log.read_text()


class TestMaxima:
    @pytest.mark.parametrize(
        ("maxima", "limits", "complaint"),
        [
            ('memory = "1G"', Limits(memory=2 << 30), "memory 2G is over the policy's maximum of 1G"),
            ('memory = "1G"', Limits(), "the policy wants a limit on memory: at most 1G"),
            ("pids = 100", Limits(pids=101), "pids 101 is over the policy's maximum of 100"),
            ("cpu_weight = 50", Limits(), "cpu_weight 100 is over the policy's maximum of 50"),
            ('io_write_bps = "10M"', Limits(io=(IoLimit(write_bps=20 << 20),)), "io write_bps 20M is over"),
            ("io_read_iops = 100", Limits(io=(IoLimit("8:0", read_iops=101),)), "io read_iops 101 is over"),
        ],
    )
    def test_a_job_beyond_one_is_refused(self, maxima: str, limits: Limits, complaint: str) -> None:
        with (
            running(config=f"[maxima]\n{maxima}\n") as daemon,
            pytest.raises(PolicyExceeded, match=complaint.replace("'", ".")),
        ):
            as_user(ALICE, run, str(daemon.socket), {"argv": ("true",), "limits": limits})

    def test_a_weight_that_is_not_asked_for_is_the_kernels_own(self) -> None:
        with running(config="[maxima]\ncpu_weight = 200\n") as daemon:
            assert as_user(ALICE, run, str(daemon.socket), {"argv": ("true",)}).exit_code == 0


class TestReload:
    def test_a_new_policy_holds_for_those_who_are_connected(self) -> None:
        with running(config="[user]\njobs = 1\n") as daemon:
            path = str(daemon.socket)
            as_user(ALICE, run, path, sleeper(), False)
            reload(daemon, "[user]\njobs = 2\n", "the policy was read again")
            as_user(ALICE, run, path, sleeper(), False)
            with pytest.raises(PolicyExceeded, match="your total of 2 jobs"):
                as_user(ALICE, run, path, sleeper(), False)

    def test_a_wrong_one_is_refused_with_its_line_and_the_old_one_holds(self) -> None:
        with running(config="[user]\njobs = 1\n") as daemon:
            path = str(daemon.socket)
            reload(daemon, "[user]\njobs = 9\n\nmemory = 'lots'\n", "the policy is unchanged")
            assert f"{daemon.config}:4: user.memory: not a size: 'lots'" in daemon.log.read_text()
            as_user(ALICE, run, path, sleeper(), False)
            with pytest.raises(PolicyExceeded, match="your total of 1 jobs"):
                as_user(ALICE, run, path, sleeper(), False)
            with daemon.client() as client:
                assert client.call("daemon.info", protocol.InfoParams()).jobs_live == 1

    def test_many_at_once_end_with_the_last(self) -> None:
        with running(config="[user]\njobs = 1\n") as daemon:
            assert daemon.process is not None
            for number in range(50):
                daemon.config.write_text(f"[user]\njobs = {number}\n")
                daemon.process.send_signal(signal.SIGHUP)
            reload(daemon, "[user]\njobs = 0\n", "the policy was read again")
            with pytest.raises(PolicyExceeded, match="your total of 0 jobs"):
                as_user(ALICE, run, str(daemon.socket), sleeper(), False)


class TestAdmins:
    def test_are_bound_by_no_total_of_users_and_see_all(self) -> None:
        with running(config=f"admins = [{ALICE}]\n[user]\njobs = 1\n") as daemon:
            path = str(daemon.socket)
            jobs = [as_user(ALICE, run, path, sleeper(), False) for _ in range(3)]
            assert {job.state for job in jobs} == {State.RUNNING}
            other = as_user(BOB, run, path, sleeper(), False)
            with Client(path) as client:
                assert client.call("job.status", protocol.JobParams(id=other.id)).uid == BOB
            with pytest.raises(NotPermitted):
                as_user(BOB, run, path, {"argv": ("true",), "net": "host"})
            assert as_user(ALICE, run, path, {"argv": ("true",), "net": "host"}).exit_code == 0
