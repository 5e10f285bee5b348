"""Pause, resume, rename, labels, rm and prune, against a real daemon."""

from __future__ import annotations

import time

import pytest

from tests.host.daemon import Daemon, as_user, running
from workerd import protocol
from workerd.errors import NameTaken, NoSuchJob, WrongState
from workerd.job import Job, JobSpec, Reason, State

NOBODY = 65534
TICK = "i=0; while :; do i=$((i+1)); echo $i; sleep 0.02; done"


def call(daemon: Daemon, method: str, params: protocol.Params) -> Job:
    with daemon.client() as client:
        job = client.call(method, params)
    assert isinstance(job, Job)
    return job


def status(daemon: Daemon, job_id: str) -> Job:
    return call(daemon, "job.status", protocol.JobParams(job_id))


def written(daemon: Daemon, job_id: str, past: int = 0) -> int:
    """Where its output ends, as soon as that is past this offset."""
    with daemon.client() as client:
        return client.wait_output(job_id, past, timeout=20).end


class TestPause:
    def test_a_paused_job_does_nothing_until_it_is_resumed(self, daemon: Daemon) -> None:
        job_id = daemon.run("sh", "-c", TICK)
        written(daemon, job_id)
        assert call(daemon, "job.pause", protocol.JobParams(job_id)).state is State.PAUSED
        (cgroup,) = daemon.cgroup.glob(f"jobs/uid-0/job-{job_id}")
        assert "frozen 1" in (cgroup / "cgroup.events").read_text()
        end = written(daemon, job_id)
        time.sleep(0.3)
        assert written(daemon, job_id) == end
        assert call(daemon, "job.resume", protocol.JobParams(job_id)).state is State.RUNNING
        assert written(daemon, job_id, end) > end
        daemon.ctl("stop", "-t0", job_id)

    def test_twice_is_once_and_resume_of_a_running_job_is_nothing(self, daemon: Daemon) -> None:
        job_id = daemon.run("sleep", "1000")
        assert call(daemon, "job.resume", protocol.JobParams(job_id)).state is State.RUNNING
        for _ in range(2):
            assert call(daemon, "job.pause", protocol.JobParams(job_id)).state is State.PAUSED
        daemon.ctl("stop", "-t0", job_id)

    def test_a_finished_job_cannot_be_paused(self, daemon: Daemon) -> None:
        job, _ = daemon.shell("true")
        with pytest.raises(WrongState, match="is finished: it cannot be paused"):
            call(daemon, "job.pause", protocol.JobParams(job.id))

    def test_stop_of_a_paused_job_lets_it_end_in_order(self, daemon: Daemon) -> None:
        job_id = daemon.run("sh", "-c", "trap 'echo bye; exit 5' TERM; echo ready; while :; do sleep 0.05; done")
        written(daemon, job_id)
        call(daemon, "job.pause", protocol.JobParams(job_id))
        job = call(daemon, "job.stop", protocol.StopParams(job_id))
        assert (job.reason, job.exit_code) == (Reason.STOPPED, 5)
        assert daemon.output(job_id) == b"ready\nbye\n"

    def test_a_paused_job_that_ignores_the_signal_is_killed(self, daemon: Daemon) -> None:
        job_id = daemon.run("sh", "-c", "trap '' TERM; echo ready; while :; do sleep 1; done")
        written(daemon, job_id)
        call(daemon, "job.pause", protocol.JobParams(job_id))
        job = call(daemon, "job.stop", protocol.StopParams(job_id, grace=200_000))
        assert (job.reason, job.signal) == (Reason.STOPPED, 9)

    def test_kill_9_ends_a_paused_job_and_another_signal_waits(self, daemon: Daemon) -> None:
        job_id = daemon.run("sh", "-c", "trap 'echo usr1' USR1; echo ready; while :; do sleep 0.02; done")
        end = written(daemon, job_id)
        call(daemon, "job.pause", protocol.JobParams(job_id))
        assert call(daemon, "job.kill", protocol.KillParams(job_id, signal=10)).state is State.PAUSED
        time.sleep(0.1)
        assert written(daemon, job_id) == end
        call(daemon, "job.resume", protocol.JobParams(job_id))
        written(daemon, job_id, end)
        call(daemon, "job.pause", protocol.JobParams(job_id))
        call(daemon, "job.kill", protocol.KillParams(job_id))
        assert daemon.wait(job_id).signal == 9

    def test_it_is_still_paused_after_a_restart(self, own_daemon: Daemon) -> None:
        job_id = own_daemon.run("sh", "-c", "echo ready; sleep 1000")
        written(own_daemon, job_id)
        call(own_daemon, "job.pause", protocol.JobParams(job_id))
        own_daemon.restart()
        assert status(own_daemon, job_id).state is State.PAUSED
        assert call(own_daemon, "job.resume", protocol.JobParams(job_id)).state is State.RUNNING

    @pytest.mark.parametrize("frozen", [True, False])
    def test_after_a_restart_the_kernel_says_whether_it_is_paused(self, own_daemon: Daemon, frozen: bool) -> None:
        job_id = own_daemon.run("sleep", "1000")
        if not frozen:
            call(own_daemon, "job.pause", protocol.JobParams(job_id))
        own_daemon.kill()
        (cgroup,) = own_daemon.cgroup.glob(f"jobs/uid-0/job-{job_id}")
        (cgroup / "cgroup.freeze").write_text("1" if frozen else "0")
        own_daemon.start()
        assert status(own_daemon, job_id).state is (State.PAUSED if frozen else State.RUNNING)


class TestNames:
    def test_a_live_jobs_name_cannot_be_taken_again(self, daemon: Daemon) -> None:
        job_id = daemon.run("sleep", "1000", name="web")
        with pytest.raises(NameTaken, match=f"taken by job {job_id}, which is running") as caught:
            daemon.run("true", name="web")
        assert caught.value.data == {"id": job_id, "name": "web"}
        daemon.ctl("stop", "-t0", "web")
        assert daemon.wait(daemon.run("true", name="web")).exit_code == 0

    def test_another_user_may_have_the_same_name(self, daemon: Daemon) -> None:
        job_id = daemon.run("sleep", "1000", name="same")

        def run() -> str:
            with daemon.client() as client:
                return client.run(JobSpec(argv=("true",), name="same")).id

        assert as_user(NOBODY, run) != job_id
        daemon.ctl("stop", "-t0", job_id)

    def test_rename(self, daemon: Daemon) -> None:
        job_id = daemon.run("sleep", "1000", name="before")
        taken = daemon.run("sleep", "1000", name="taken")
        assert daemon.ctl("rename", "before", "after").returncode == 0
        assert status(daemon, "after").id == job_id
        refused = daemon.ctl("rename", "after", "taken")
        assert refused.returncode == 125
        assert b"the name taken is taken by job " + taken.encode() in refused.stderr
        assert daemon.ctl("rename", "after").returncode == 125
        assert daemon.ctl("status", "--format", "{name}", "after").stdout == b"after\n"
        assert daemon.ctl("rename", "--remove", "after").returncode == 0
        assert status(daemon, job_id).spec.name is None
        daemon.ctl("stop", "-t0", job_id, taken)


class TestLabels:
    def test_ps_shows_the_jobs_that_have_them(self, daemon: Daemon) -> None:
        job_id = daemon.ctl("run", "--label", "team=a.b", "--label", "ci", "sleep", "1000").stdout.decode().strip()
        other = daemon.ctl("run", "--label", "team=x", "sleep", "1000").stdout.decode().strip()

        def shown(*filters: str) -> set[str]:
            words = [word for label in filters for word in ("--label", label)]
            return set(daemon.ctl("ps", "-q", *words).stdout.decode().split())

        assert shown("team=a.b") == shown("ci") == shown("ci", "team") == {job_id}
        assert shown("team") == {job_id, other}
        assert shown("team=no") == shown("team=x", "ci") == set()
        assert status(daemon, job_id).spec.labels == {"team": "a.b", "ci": ""}
        daemon.ctl("stop", "-t0", job_id, other)


class TestRemove:
    def test_a_finished_job_is_forgotten_with_its_output(self, daemon: Daemon) -> None:
        job, _ = daemon.shell("echo hello")
        assert list(daemon.state.glob(f"jobs/{job.id}/*"))
        assert daemon.ctl("rm", job.id).returncode == 0
        assert not list(daemon.state.glob(f"jobs/{job.id}"))
        with pytest.raises(NoSuchJob):
            status(daemon, job.id)

    def test_a_live_job_is_refused_unless_forced(self, daemon: Daemon) -> None:
        job_id = daemon.run("sleep", "1000")
        refused = daemon.ctl("rm", job_id)
        assert refused.returncode == 125
        assert b"is running: stop it first, or remove it with --force" in refused.stderr
        assert status(daemon, job_id).state is State.RUNNING
        assert daemon.ctl("rm", "--force", job_id).returncode == 0
        with pytest.raises(NoSuchJob):
            status(daemon, job_id)
        assert not list(daemon.cgroup.glob(f"jobs/uid-0/job-{job_id}"))

    def test_anothers_job_does_not_exist(self, daemon: Daemon) -> None:
        job, _ = daemon.shell("true")

        def attempts() -> list[str]:
            told = []
            with daemon.client() as client:
                for method, params in (
                    ("job.remove", protocol.RemoveParams(job.id, force=True)),
                    ("job.pause", protocol.JobParams(job.id)),
                    ("job.resume", protocol.JobParams(job.id)),
                    ("job.rename", protocol.RenameParams(job.id, "mine")),
                ):
                    try:
                        client.call(method, params)
                    except NoSuchJob as error:
                        told.append(str(error))
                assert client.call("job.prune", protocol.PruneParams()).jobs == ()
            return told

        assert as_user(4999, attempts) == [f"no such job: {job.id}"] * 4
        assert status(daemon, job.id).id == job.id


class TestPrune:
    def test_by_reason_count_and_age_and_dry(self, own_daemon: Daemon) -> None:
        good = [own_daemon.shell("echo good")[0].id for _ in range(3)]
        bad = own_daemon.shell("kill -9 $$")[0].id
        with own_daemon.client() as client:

            def prune(**params: object) -> set[str]:
                return set(client.call("job.prune", protocol.PruneParams(**params)).jobs)  # type: ignore[arg-type]

            assert prune(older_than=3_600_000_000) == set()
            assert prune(dry_run=True) == {*good, bad}
            assert prune(reasons=(Reason.SIGNALED,)) == {bad}
            assert prune(keep=1) == set(good[:2])
            assert {job.id for job in client.list(all=True)} == {good[2]}
        assert [path.name for path in own_daemon.state.glob("jobs/*")] == [good[2]]

    def test_the_command_says_what_it_did(self, own_daemon: Daemon) -> None:
        job, _ = own_daemon.shell("echo good")
        assert own_daemon.ctl("prune").returncode == 125
        dry = own_daemon.ctl("prune", "--all", "--dry-run")
        assert (dry.stdout.decode(), dry.returncode) == (f"{job.id}\n", 0)
        assert b"would remove 1 job" in dry.stderr
        assert own_daemon.ctl("prune", "--all").stdout.decode() == f"{job.id}\n"
        assert own_daemon.ctl("ps", "-aq").stdout == b""


class TestHistory:
    def test_the_newest_jobs_are_kept_and_older_ones_go_with_their_output(self) -> None:
        with running(config="[history]\ncount = 3\n") as daemon:
            ids = [daemon.shell("echo x")[0].id for _ in range(6)]
            wait_for(lambda: len(list(daemon.state.glob("jobs/*"))) == 3)
            assert set(daemon.ctl("ps", "-aq").stdout.decode().split()) == set(ids[3:])

    def test_jobs_go_when_they_are_too_old_without_any_other_event(self) -> None:
        with running(config='[history]\nage = "1s"\n') as daemon:
            daemon.shell("echo x")
            wait_for(lambda: not list(daemon.state.glob("jobs/*")))
            assert daemon.ctl("ps", "-aq").stdout == b""

    def test_a_running_job_is_never_pruned(self) -> None:
        with running(config="[history]\ncount = 0\n") as daemon:
            job_id = daemon.run("sleep", "1000")
            daemon.shell("true")
            wait_for(lambda: [path.name for path in daemon.state.glob("jobs/*")] == [job_id])
            assert status(daemon, job_id).state is State.RUNNING


class TestRm:
    def test_it_is_gone_moments_after_its_end_and_whoever_waits_has_its_code(self, own_daemon: Daemon) -> None:
        ran = own_daemon.ctl("run", "--rm", "-f", "sh", "-c", "echo out; exit 3")
        assert (ran.stdout, ran.returncode) == (b"out\n", 3)
        wait_for(lambda: not list(own_daemon.state.glob("jobs/*")), seconds=30)
        assert own_daemon.ctl("ps", "-aq").stdout == b""

    def test_a_restart_of_the_daemon_does_not_forget_to_remove_it(self, own_daemon: Daemon) -> None:
        own_daemon.wait(own_daemon.run("true", remove=True))
        own_daemon.restart()
        wait_for(lambda: not list(own_daemon.state.glob("jobs/*")), seconds=30)


def wait_for(condition: object, seconds: float = 20) -> None:
    assert callable(condition)
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.05)
