"""What becomes of commands when parts of the cluster die, and who may not be part of it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from distributed import Client

from tests.host.attackers import USER
from tests.host.cluster import Cluster, certificates, cluster, read_line, wait_until
from tests.host.daemon import ROOT
from workerctl import dask as commands

MACHINES = {"alpha": "", "beta": ""}
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def made() -> Iterator[Cluster]:
    """Where a machine may be away for long."""
    with cluster(MACHINES, env={"DASK_WORKERCTL__GRACE": "60s"}) as running:
        yield running


@pytest.fixture
def hasty() -> Iterator[Cluster]:
    """Where a machine that is away is soon given up."""
    with cluster(MACHINES, env={"DASK_WORKERCTL__GRACE": "1s"}) as running:
        yield running


def runs(made: Cluster, tag: str) -> list[tuple[str, str]]:
    """(machine, id) of each job whose last word is `tag`, asked of the machines themselves."""
    found = []
    for name, daemon in made.daemons.items():
        with daemon.client() as client:
            found += [(name, job.id) for job in client.list(all=True) if job.spec.argv[-1] == tag]
    return found


def begun(made: Cluster, tag: str) -> tuple[str, str]:
    wait_until(lambda: runs(made, tag))
    return runs(made, tag)[0]


class TestADaskWorkerDies:
    def test_its_jobs_run_on_and_a_restarted_worker_finds_them(self, made: Cluster) -> None:
        with Client(made.address, set_as_default=False) as client:
            script = "echo begun; trap 'echo found again; exit 5' USR1; while :; do sleep 0.1; done"
            future = commands.submit(client, ["sh", "-c", script, "kept"])
            machine, job = begun(made, "kept")
            made.workers[machine].kill()
            wait_until(lambda: len(client.scheduler_info()["workers"]) == 1)
            made.start_worker(machine).wait_log("Registered to")
            made.ctl("kill", "-s", "USR1", f"{machine}/{job}")
            ended = future.result(timeout=30)
            assert (ended.id, ended.exit_code) == (f"{machine}/{job}", 5)
            assert b"".join(commands.output(client, future)) == b"begun\nfound again\n"
        assert runs(made, "kept") == [(machine, job)]

    def test_a_result_that_died_with_it_is_known_and_nothing_is_run_again(self, made: Cluster) -> None:
        with Client(made.address, set_as_default=False) as client:
            future = commands.submit(client, ["sh", "-c", "exit 6", "once"])
            wait_until(lambda: future.status == "finished")
            machine, _ = begun(made, "once")
            made.workers[machine].kill()
            assert future.result(timeout=30).exit_code == 6
        assert len(runs(made, "once")) == 1


class TestAMachineDies:
    def test_its_jobs_are_lost_and_run_nowhere_else(self, hasty: Cluster) -> None:
        staying = hasty.begin("run", "-f", "--", "sh", "-c", "echo begun; sleep 600", "lost")
        assert read_line(staying) == b"begun\n"
        machine, job = begun(hasty, "lost")
        hasty.workers[machine].kill()
        hasty.daemons[machine].kill()
        _, said = staying.communicate(timeout=60)
        assert staying.returncode == 125
        assert f"machine {machine} has left the cluster, and its jobs are lost".encode() in said
        shown = hasty.ctl("status", "--format", "{state} {reason} {detail}", f"{machine}/{job}")
        assert shown.stdout.decode() == f"finished lost machine {machine}\n"
        assert hasty.ctl("ps", "-q").stdout == b""

    def test_where_a_retry_was_asked_for_they_run_elsewhere_once(self, hasty: Cluster) -> None:
        with Client(hasty.address, set_as_default=False) as client:
            script = "test -e /proc/1/none || sleep 3; exit 8"
            future = commands.submit(client, ["sh", "-c", script, "again"], retries=1)
            machine, _ = begun(hasty, "again")
            hasty.workers[machine].kill()
            hasty.daemons[machine].kill()
            ended = future.result(timeout=60)
            assert ended.exit_code == 8
            assert not ended.id.startswith(f"{machine}/")


class TestTheSchedulerDies:
    def test_running_jobs_go_on_and_are_found_on_their_machines(self, made: Cluster) -> None:
        staying = made.begin("run", "-f", "--", "sh", "-c", "echo begun; sleep 3; echo through; exit 2", "on")
        assert read_line(staying) == b"begun\n"
        machine, job = begun(made, "on")
        assert made.scheduler is not None
        made.scheduler.kill()
        for worker in made.workers.values():
            worker.process.wait(30)  # Dask's own way; a service starts them again
        made.start_scheduler()
        for name in MACHINES:
            made.start_worker(name)
        out, err = staying.communicate(timeout=60)
        assert (out, staying.returncode) == (b"through\n", 2), err
        assert made.ctl("out", f"{machine}/{job}").stdout == b"begun\nthrough\n"


class TestWorkerdRestarts:
    def test_the_task_waits_for_its_job_all_the_same(self, made: Cluster) -> None:
        with Client(made.address, set_as_default=False) as client:
            future = commands.submit(client, ["sh", "-c", "sleep 1; exit 4", "restarted"])
            machine, _ = begun(made, "restarted")
            made.daemons[machine].restart()
            assert future.result(timeout=30).exit_code == 4
            assert commands.submit(client, ["true"]).result(timeout=30).exit_code == 0


READING = ["--inh-caps", "+dac_read_search", "--ambient-caps", "+dac_read_search"]
"""the interpreter's own files may lie where the user cannot read; this opens no socket"""
AS_USER = ["setpriv", "--reuid", str(USER), "--regid", str(USER), "--clear-groups", *READING]


class TestAccess:
    def test_a_user_without_access_to_workerd_cannot_join(self, made: Cluster) -> None:
        daemon = made.daemons["alpha"]
        daemon.socket.chmod(0o600)
        directory = made.base / "theirs"
        directory.mkdir()
        os.chown(directory, USER, USER)
        own = ["--name", "gamma", "--no-nanny", "--no-dashboard", "--local-directory", str(directory)]
        words = [made.address, *own, "--preload", "workerctl.dask", "--workerd-socket", str(daemon.socket)]
        command = [*AS_USER, sys.executable, "-m", "dask", "worker", *words]
        ran = subprocess.run(command, cwd=ROOT, env=made.env, capture_output=True, timeout=60, check=False)
        assert b"this machine cannot run commands: no permission to use" in ran.stderr
        assert ran.returncode == 1
        daemon.socket.chmod(0o666)
        assert b"gamma" not in made.ctl("status", "gamma/x").stderr.partition(b"there is")[2]

    def test_plain_tcp_beyond_this_machine_is_refused_unless_it_is_said(self, made: Cluster) -> None:
        ran = made.ctl("--cluster", "tcp://192.0.2.1:8786", "ps")
        assert ran.returncode == 125
        assert b"use tls://, or say --insecure" in ran.stderr

    def test_a_scheduler_that_is_not_there_is_said_to_be_so(self, made: Cluster) -> None:
        ran = made.ctl("--cluster", "tcp://127.0.0.1:1", "ps")
        assert ran.returncode == 125
        assert b"scheduler" in ran.stderr
        assert b"tcp://127.0.0.1:1" in ran.stderr


class TestTls:
    def test_whoever_has_a_certificate_runs_commands_and_nobody_else(self, tmp_path: Path) -> None:
        tls = certificates(tmp_path / "ours")
        with cluster({"alpha": ""}, env=tls, scheme="tls") as made:
            assert made.address.startswith("tls://")
            ran = made.ctl("run", "-f", "--", "echo", "over tls")
            assert (ran.returncode, ran.stdout) == (0, b"over tls\n")
            stranger = certificates(tmp_path / "theirs")
            refused = made.ctl("ps", env={**made.env, **stranger})
            assert refused.returncode == 125
            assert b"cannot reach the scheduler" in refused.stderr or b"no scheduler answers" in refused.stderr
