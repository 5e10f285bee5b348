"""What a daemon finds again after its own death, its database's, or its files'."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.host.daemon import ENV, Daemon, until
from tests.host.firststage import zygote
from workerd import exitrecord, jobfiles
from workerd.__main__ import default_init
from workerd.errors import ConnectionFailed
from workerd.job import After, Job, JobSpec, Outcome, Reason, State
from workerd.jobfiles import JobFiles
from workerd.procfs import WALL
from workerd.sandbox import Descriptors, plan
from workerd.startgate import Gate

CLOCK = "i=0; while :; do echo $i; i=$((i+1)); sleep 0.05; done"


def status(daemon: Daemon, job_id: str) -> Job:
    with daemon.client() as client:
        return client.status(job_id)


def put_into_one_file(path: Path) -> None:
    """What is in the log would mend what is damaged beside it."""
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA journal_mode = DELETE")
    db.close()


def cut(path: Path) -> None:
    put_into_one_file(path)
    path.write_bytes(path.read_bytes()[:5000])


def forget_the_last(path: Path) -> None:
    """As a power cut may do."""
    Path(f"{path}-wal").unlink()


def scribble(path: Path) -> None:
    put_into_one_file(path)
    path.write_bytes(b"x" * 20_000)


def newer(path: Path) -> None:
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 999")
    db.close()


def gone(path: Path) -> None:
    path.unlink()
    for companion in ("-wal", "-shm"):
        Path(f"{path}{companion}").unlink(missing_ok=True)


class TestDatabaseLost:
    @pytest.mark.parametrize("harm", [cut, scribble, newer, gone, forget_the_last])
    def test_all_jobs_are_there_again(self, own_daemon: Daemon, harm: Callable[[Path], None]) -> None:
        daemon = own_daemon
        running = daemon.run("sh", "-c", CLOCK, name="clock", labels={"a": "b"})
        ended, _ = daemon.shell("echo out; exit 3", name="ended")
        until(lambda: len(daemon.output(running)) > 10)
        slow = daemon.run("sh", "-c", "sleep 0.5; exit 7")
        daemon.kill()
        harm(daemon.state / "state.db")
        time.sleep(1)  # `slow` ends without a daemon
        daemon.start()
        found = status(daemon, running)
        assert (found.state, found.spec.name, found.spec.labels) == (State.RUNNING, "clock", {"a": "b"})
        assert status(daemon, ended.id) == ended
        assert daemon.output(ended.id) == b"out\n"
        assert daemon.wait(slow).exit_code == 7
        size = len(daemon.output(running))
        until(lambda: len(daemon.output(running)) > size)
        with daemon.client() as client:
            assert client.stop(running).reason is Reason.STOPPED
        text = daemon.log.read_text()
        assert "jobs were taken into the database from their directories" in text
        if harm not in (gone, forget_the_last):
            assert "THE DATABASE COULD NOT BE USED" in text
            assert list(daemon.state.glob("state.db.damaged-*"))

    def test_a_running_job_without_any_record_is_taken_up_not_killed(self, own_daemon: Daemon) -> None:
        daemon = own_daemon
        job_id = daemon.run("sh", "-c", f"{CLOCK} # marker")
        daemon.kill()
        gone(daemon.state / "state.db")
        (daemon.state / "jobs" / job_id / "job").unlink()
        daemon.start()
        found = status(daemon, job_id)
        assert found.state is State.RUNNING
        assert found.spec.argv[0] == "sh" and found.spec.argv[2].endswith("# marker")
        assert found.uid == 0 and found.warnings
        with daemon.client() as client:
            assert client.stop(job_id).reason is Reason.STOPPED


class TestPidReuse:
    def test_a_recorded_pid_that_is_another_process_now_is_left_alone(self, own_daemon: Daemon) -> None:
        daemon = own_daemon
        job_id = daemon.run("sleep", "1000")
        init = status(daemon, job_id).pid
        assert init is not None
        daemon.kill()
        bystander = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"])
        try:
            os.kill(init, signal.SIGKILL)
            with sqlite3.connect(daemon.state / "state.db") as db:
                db.execute(
                    "UPDATE jobs SET record = CAST(json_set(CAST(record AS TEXT), '$.pid', ?) AS BLOB)",
                    (bystander.pid,),
                )
            db.close()
            daemon.start()
            job = daemon.wait(job_id)
            assert (job.reason, job.detail) == (Reason.LOST, "its PID 1 was killed from outside")
            assert bystander.poll() is None
        finally:
            bystander.kill()
            bystander.wait()


class TestOutcome:
    def test_a_duration_is_by_a_clock_that_nobody_sets(self, own_daemon: Daemon) -> None:
        daemon = own_daemon
        job = daemon.wait(daemon.run("sh", "-c", "exit 5"))
        assert job.exit_code == 5
        assert job.duration is not None and 0 < job.duration < 60_000_000

    def test_pid_1_killed_from_outside_is_lost_with_its_time_of_start(self, own_daemon: Daemon) -> None:
        daemon = own_daemon
        job_id = daemon.run("sleep", "1000")
        pid = status(daemon, job_id).pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        job = daemon.wait(job_id)
        assert (job.reason, job.exit_code, job.started is not None) == (Reason.LOST, None, True)


class TestCutShort:
    """PID 1 is frozen, so that the next daemon finds it before it can leave."""

    def test_a_job_that_waited_for_its_word_never_ran(self, own_daemon: Daemon) -> None:
        daemon = own_daemon
        job, states = ended_with_the_next(daemon, waits_for_its_word(daemon))
        assert (job.reason, job.start_error and job.start_error.step, job.started) == (
            Reason.START_FAILED,
            "init",
            None,
        )
        assert states == [State.STARTING, State.FINISHED]

    def test_one_that_had_waited_for_its_start_is_started_again(self, own_daemon: Daemon) -> None:
        daemon = own_daemon
        job, states = ended_with_the_next(daemon, waits_for_its_word_out_of_the_queue(daemon))
        assert (job.exit_code, job.restarts, job.tries, job.start_attempts) == (0, 0, (), 2)
        assert daemon.output(job.id) == b"ran\n"
        once = [State.QUEUED, State.STARTING]
        assert states == [*once, *once, State.RUNNING, State.FINISHED]

    @pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
    def test_of_many_that_begin_at_once_each_runs_once(self, own_daemon: Daemon, number: signal.Signals) -> None:
        daemon = own_daemon
        assert daemon.process is not None
        first = daemon.run("sleep", "1000")
        with daemon.client() as client:
            ids = [client.run(["echo", "ran"], env=ENV, after=[first]).id for _ in range(60)]
            last = client.run(["true"], env=ENV, after=[After(job_id, Outcome.OK) for job_id in ids]).id
            client.stop(first)
            until(lambda: len(list(daemon.cgroup.glob("jobs/uid-0/job-*"))) > 5)
        daemon.process.send_signal(number)
        daemon.process.wait(60)
        daemon.start()
        assert daemon.wait(last).exit_code == 0
        assert {daemon.output(job_id) for job_id in ids} == {b"ran\n"}

    def test_one_whose_files_were_not_made_yet_never_ran(self, own_daemon: Daemon) -> None:
        daemon = own_daemon
        cgroup = dies_before_the_files(daemon)
        daemon.start()
        until(lambda: not cgroup.exists())
        with daemon.client() as client:
            assert job_of(cgroup) not in {job.id for job in client.list(all=True)}

    def test_one_out_of_the_queue_whose_files_were_not_made_yet_is_started_again(self, own_daemon: Daemon) -> None:
        daemon = own_daemon
        job, states = ended_with_the_next(daemon, dies_before_the_files(daemon, delay=0.2))
        assert (job.exit_code, job.start_attempts) == (0, 2)
        assert daemon.output(job.id) == b"ran\n"
        assert State.RUNNING not in states[:-2]

    def test_one_that_was_to_be_stopped_by_then_was_stopped(self, own_daemon: Daemon) -> None:
        daemon = own_daemon
        with daemon.client() as asking, ThreadPoolExecutor() as pool:

            def stop(job_id: str) -> None:
                pool.submit(asking.stop, job_id)  # there is no answer before its end
                until(lambda: status(daemon, job_id).state is State.STOPPING)
                with daemon.client() as client:
                    list(client.list(all=True))  # is answered behind the commit

            cgroup = waits_for_its_word(daemon, stop)
        daemon.start()  # which goes on with the stop, and thaws it for that
        job = daemon.wait(job_of(cgroup))
        assert (job.reason, job.detail, job.started) == (Reason.STOPPED, "before it started", None)
        assert (job.start_error, job.signal) == (None, None)


def waits_for_its_word(daemon: Daemon, before: Callable[[str], None] = lambda job_id: None) -> Path:
    """The frozen cgroup of a job whose PID 1 waits for a daemon that was killed, once
    `before` had been called with its id."""
    with ThreadPoolExecutor() as pool, first_stage_stopped(daemon):
        asked = pool.submit(daemon.run, "true")
        until(lambda: len(list(daemon.state.glob("jobs/*/output.idx"))) == 2)
        (cgroup,) = daemon.cgroup.glob("jobs/uid-0/job-*")
        before(job_of(cgroup))
        die_before_its_word(daemon, cgroup)
        with pytest.raises(ConnectionFailed):
            asked.result(30)
    until(lambda: (cgroup / "cgroup.procs").read_text() != "")
    return cgroup


def waits_for_its_word_out_of_the_queue(daemon: Daemon) -> Path:
    """The same of a job that was recorded, and told to be waiting, before."""
    with first_stage_stopped(daemon):
        with daemon.client() as client:
            client.run(["echo", "ran"], env=ENV, delay=0.2)
        until(lambda: any(daemon.cgroup.glob("jobs/uid-0/job-*")))
        (cgroup,) = daemon.cgroup.glob("jobs/uid-0/job-*")
        die_before_its_word(daemon, cgroup)
    until(lambda: (cgroup / "cgroup.procs").read_text() != "")
    return cgroup


def dies_before_the_files(daemon: Daemon, **how: Any) -> Path:
    """The frozen cgroup of a job whose plan was handed on by a daemon that went no further."""
    daemon.kill()
    daemon.prelude = "from tests.host import steps; steps.arm('before:exitrecord.allocate:2')"
    daemon.start()
    daemon.prelude = ""
    assert daemon.process is not None
    with first_stage_stopped(daemon):
        with contextlib.suppress(ConnectionFailed), daemon.client() as client:
            client.run(["echo", "ran"], env=ENV, **how)
        daemon.process.wait(30)
        (cgroup,) = daemon.cgroup.glob("jobs/uid-0/job-*")
        (cgroup / "cgroup.freeze").write_text("1")
    until(lambda: (cgroup / "cgroup.procs").read_text() != "")
    return cgroup


@contextlib.contextmanager
def first_stage_stopped(daemon: Daemon) -> Iterator[None]:
    daemon.wait(daemon.run("true"))
    until(lambda: not daemon.leftovers())
    stage = zygote(daemon)
    os.kill(stage, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(stage, signal.SIGCONT)


def die_before_its_word(daemon: Daemon, cgroup: Path) -> None:
    """Once the first stage has been sent the job: in the turn in which its files are made."""
    until((daemon.runtime / "jobs" / job_of(cgroup) / "exit").exists)
    status(daemon, job_of(cgroup))
    (cgroup / "cgroup.freeze").write_text("1")
    daemon.kill()


def ended_with_the_next(daemon: Daemon, cgroup: Path) -> tuple[Job, list[State]]:
    """The job with that frozen cgroup, which the next daemon finds starting, as it ends once
    it is thawed; the states that it had."""
    daemon.start()
    job_id = job_of(cgroup)
    assert status(daemon, job_id).state is State.STARTING
    (cgroup / "cgroup.freeze").write_text("0")
    job = daemon.wait(job_id)
    with daemon.client() as client:
        return job, [event.state for event in client.events("first", jobs=[job_id], follow=False) if event.state]


def job_of(cgroup: Path) -> str:
    return cgroup.name.removeprefix("job-")


class TestFirstStage:
    """worker-init's first stage says its PID 1's pid to the daemon that started it."""

    def test_that_daemon_died_and_the_job_runs_on(self, own_daemon: Daemon, tmp_path: Path) -> None:
        """The next daemon may have taken PID 1 up before the first stage has its turn."""
        for name in ("state", "run"):
            (tmp_path / name / "jobs").mkdir(parents=True)
        spec = JobSpec(argv=("sh", "-c", "exit 3"))
        job = Job(id="early", uid=0, gid=0, groups=(), spec=spec, state=State.STARTING, created=0)
        files = JobFiles(str(tmp_path / "state"), str(tmp_path / "run"), job.id)
        cgroup = own_daemon.cgroup / "early"  # it removes what is below its own
        cgroup.mkdir()
        listens, status_fd = os.pipe()
        os.close(listens)
        files.make_runtime()
        opened, gate = jobfiles.create_runtime(files, tty=False), Gate()
        fds = Descriptors(cgroup=os.open(cgroup, os.O_PATH), status=status_fd, go=os.dup(gate.far_end))
        numbers = [fd for _, fd in fds.named()]
        words = plan(job, fds, max_output=1 << 20, hidden=())
        subprocess.run([default_init(), *words], pass_fds=numbers, check=True)
        with contextlib.closing(gate), contextlib.closing(jobfiles.open_output(files)) as output:
            gate.open(output, opened)
        for fd in numbers:
            os.close(fd)
        os.waitpid(-1, WALL)  # cloned as a child of ours
        record = exitrecord.read(files.exit)
        assert isinstance(record, exitrecord.Ended), record
        assert record.exit_code == 3
