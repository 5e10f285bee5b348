"""Stopping: nothing that a job started survives, whoever asks, and whoever dies meanwhile."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import threading
import time
from pathlib import Path

import msgspec
import pytest

from tests.host.daemon import ENV, Daemon, until
from workerd.job import Job, JobSpec, Reason, State

STUBBORN = "trap '' TERM; echo ready; while :; do sleep 0.2; done"
TELLS = "trap 'echo told' TERM; echo ready; while :; do sleep 0.2; done"
SURVIVORS = {
    "double fork and setsid": "(setsid sh -c 'trap \"\" TERM HUP INT; sleep 1000' &) ; exec sleep 1000",
    "ignores all it can": "trap '' HUP INT QUIT TERM USR1 USR2; (trap '' TERM; sleep 1000)& while :; do sleep 1; done",
    "forks without end": "f() { while :; do sh -c 'trap \"\" TERM; sleep 0.3' & sleep 0.02; done; }; trap '' TERM; f",
    "a stopped process": "sh -c 'kill -STOP $$' & sleep 1000",
}


def status(daemon: Daemon, job_id: str) -> Job:
    with daemon.client() as client:
        return client.status(job_id)


def stop(daemon: Daemon, job_id: str, grace: float | None = None) -> Job:
    with daemon.client() as client:
        return client.stop(job_id, grace=grace)


def ready(daemon: Daemon, job_id: str) -> None:
    with daemon.client() as client:
        client.wait_output(job_id, 0, timeout=20)


def processes(daemon: Daemon, job_id: str) -> list[int]:
    path = daemon.cgroup / "jobs" / "uid-0" / f"job-{job_id}" / "cgroup.procs"
    with contextlib.suppress(OSError):
        return [int(line) for line in path.read_text().split()]
    return []


class TestNothingSurvives:
    @pytest.mark.parametrize("script", SURVIVORS.values(), ids=SURVIVORS.keys())
    def test_whatever_it_started(self, daemon: Daemon, script: str) -> None:
        job_id = daemon.run("sh", "-c", script)
        time.sleep(0.5)
        until(lambda: len(processes(daemon, job_id)) >= 2)
        pids = processes(daemon, job_id)
        job = stop(daemon, job_id, grace=0.3)
        assert job.reason is Reason.STOPPED
        assert processes(daemon, job_id) == []
        for pid in pids:
            with contextlib.suppress(FileNotFoundError):
                assert f"job-{job_id}" not in Path(f"/proc/{pid}/cgroup").read_text()


class TestWhoAsks:
    def test_a_client_that_goes_away_changes_nothing(self, daemon: Daemon) -> None:
        job_id = daemon.run("sh", "-c", STUBBORN)
        ready(daemon, job_id)
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(daemon.socket))
            params = {"id": job_id, "grace": 500_000}
            sock.sendall(
                msgspec.json.encode({"jsonrpc": "2.0", "id": 1, "method": "job.stop", "params": params}) + b"\n"
            )
        job = daemon.wait(job_id)
        assert (job.reason, job.signal) == (Reason.STOPPED, 9)

    def test_several_at_once_all_have_the_same_answer(self, daemon: Daemon) -> None:
        job_id = daemon.run("sh", "-c", STUBBORN)
        ready(daemon, job_id)
        answers: list[Job] = []
        threads = [threading.Thread(target=lambda: answers.append(stop(daemon, job_id, grace=0.5))) for _ in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert len(answers) == 5
        assert {(job.id, job.reason, job.signal, job.finished) for job in answers} == {
            (job_id, Reason.STOPPED, 9, answers[0].finished)
        }

    def test_a_shorter_grace_while_it_is_stopping_holds(self, daemon: Daemon) -> None:
        job_id = daemon.run("sh", "-c", STUBBORN)
        ready(daemon, job_id)
        waiter = threading.Thread(target=lambda: stop(daemon, job_id, grace=3600))
        waiter.start()
        deadline = time.monotonic() + 20
        while status(daemon, job_id).state is not State.STOPPING:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert stop(daemon, job_id, grace=0).reason is Reason.STOPPED
        waiter.join(60)
        assert not waiter.is_alive()

    def test_a_longer_grace_does_not_put_it_off(self, daemon: Daemon) -> None:
        job_id = daemon.run("sh", "-c", STUBBORN)
        ready(daemon, job_id)
        waiter = threading.Thread(target=lambda: stop(daemon, job_id, grace=1))
        waiter.start()
        deadline = time.monotonic() + 20
        while status(daemon, job_id).state is not State.STOPPING:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert stop(daemon, job_id, grace=3600).reason is Reason.STOPPED
        waiter.join(60)

    def test_stop_of_a_finished_job_is_its_end(self, daemon: Daemon) -> None:
        job, _ = daemon.shell("exit 4")
        assert stop(daemon, job.id).exit_code == 4

    def test_stop_all(self, own_daemon: Daemon) -> None:
        ids = [own_daemon.run("sleep", "1000") for _ in range(3)]
        own_daemon.ctl("pause", ids[0])
        assert own_daemon.ctl("stop", "--all", "-t", "5s").returncode == 0
        assert [status(own_daemon, job_id).reason for job_id in ids] == [Reason.STOPPED] * 3


class TestStarting:
    def test_a_stop_at_any_moment_of_a_start_is_a_stop(self, daemon: Daemon) -> None:
        """Batches of run and stop glued together: the stop meets every step of the start."""
        seen = set()
        for number in range(30):
            name = f"start-{number}"
            with socket.socket(socket.AF_UNIX) as sock:
                sock.connect(str(daemon.socket))
                spec = msgspec.to_builtins(JobSpec(argv=("sleep", "1000"), name=name))
                run = {"jsonrpc": "2.0", "id": 1, "method": "job.run", "params": {"spec": spec, "env": ENV}}
                sock.sendall(msgspec.json.encode(run) + b"\n")
                time.sleep(number * 0.0005)
                deadline = time.monotonic() + 30
                while True:
                    try:
                        with daemon.client() as client:
                            job = client.stop(name, grace=5)
                        break
                    except Exception as error:
                        assert "no such job" in str(error)
                        assert time.monotonic() < deadline
            seen.add((job.reason, job.state))
        assert seen == {(Reason.STOPPED, State.FINISHED)}


class TestRestartAmidTheGrace:
    def test_the_grace_goes_on_and_ends_as_it_was_asked_for(self, own_daemon: Daemon) -> None:
        job_id = own_daemon.run("sh", "-c", TELLS, grace=3600_000_000)
        ready(own_daemon, job_id)

        def ask() -> None:
            with contextlib.suppress(Exception):
                stop(own_daemon, job_id, grace=3)

        asker = threading.Thread(target=ask)
        asker.start()
        # The signal comes once the stop is committed, and so survives the daemon.
        with own_daemon.client() as client:
            client.wait_output(job_id, len("ready\n"), timeout=20)
        before = status(own_daemon, job_id).stop
        own_daemon.restart()
        asker.join(20)
        assert status(own_daemon, job_id).stop == before
        job = own_daemon.wait(job_id, 30)
        assert (job.reason, job.signal) == (Reason.STOPPED, 9)

    def test_a_grace_that_ran_out_meanwhile_is_over(self, own_daemon: Daemon) -> None:
        job_id = own_daemon.run("sh", "-c", TELLS)
        ready(own_daemon, job_id)

        def ask() -> None:
            with contextlib.suppress(Exception):
                stop(own_daemon, job_id, grace=0.6)

        asker = threading.Thread(target=ask)
        asker.start()
        # The signal comes once the stop is committed, and so survives the daemon.
        with own_daemon.client() as client:
            client.wait_output(job_id, len("ready\n"), timeout=20)
        own_daemon.kill()
        asker.join(20)
        time.sleep(0.7)
        own_daemon.start()
        assert own_daemon.wait(job_id, 30).reason is Reason.STOPPED


class TestWhoSentTheSignal:
    def test_explain_tells_workerctl_kill_from_the_job_s_own(self, daemon: Daemon) -> None:
        asked = daemon.run("sh", "-c", "echo ready; exec sleep 1000")
        ready(daemon, asked)
        assert daemon.ctl("kill", "-s", "USR1", asked).returncode == 0
        own = daemon.run("sh", "-c", "kill -USR1 $$; sleep 1000")
        for job_id, sender in ((asked, "workerctl kill, by root"), (own, "a process of the job")):
            assert daemon.wait(job_id).signal == signal.SIGUSR1
            said = json.loads(daemon.ctl("explain", "--json", job_id).stdout)
            assert said["kind"] == "signaled" and f"SIGUSR1 ended it, sent by {sender}" in said["what"]
