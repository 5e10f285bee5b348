"""A daemon that is killed while a thousand jobs run: from its start until it answers, and
until it has taken a first new job; beside one without jobs."""

from __future__ import annotations

import os
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor

from tests.bench.figures import goal, show
from tests.host.daemon import ENV, Daemon, running
from workerctl import Client
from workerd import errors, protocol
from workerd.job import JobSpec

JOBS, ROUNDS, CLIENTS = 1000, 5, 8


def run() -> None:
    with running() as none, running() as many, tempfile.TemporaryDirectory() as compiled:
        # As installed: with its modules compiled.
        env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        env["PYTHONPYCACHEPREFIX"] = compiled
        _restart(none, env)
        with ThreadPoolExecutor(CLIENTS) as pool:
            list(pool.map(lambda _: _start(many, JOBS // CLIENTS), range(CLIENTS)))
        taken: dict[str, list[float]] = {}
        for _ in range(ROUNDS):
            for name, daemon in (("no job runs", none), (f"{JOBS} jobs run", many)):
                for what, value in zip(("serves", "has run a job"), _restart(daemon, env), strict=True):
                    taken.setdefault(f"{name}: {what}", []).append(value)
        table = show(f"SIGKILL of workerd, {ROUNDS} times, until it", taken, "no job runs: serves")
        seconds = next(row.median for row in table.rows if row.name == f"{JOBS} jobs run: serves") / 1000
        goal(f"restart with {JOBS} running jobs", seconds, 1, relative=False, unit="s")
        with many.client() as client:
            count = sum(1 for _ in client.list())
        assert count == JOBS, f"{count} jobs run"


def _start(daemon: Daemon, count: int) -> None:
    with daemon.client() as client:
        for _ in range(count):
            client.call("job.run", protocol.RunParams(JobSpec(argv=("sleep", "100000")), ENV))


def _restart(daemon: Daemon, env: dict[str, str]) -> tuple[float, float]:
    """Milliseconds from the new daemon's execution, Python's own start included."""
    daemon.kill()
    begin = time.perf_counter()
    daemon.begin(env=env)
    while True:
        try:
            with Client(str(daemon.socket)) as client:
                client.info()
                served = time.perf_counter()
                job_id = client.call("job.run", protocol.RunParams(JobSpec(argv=("true",)), ENV)).id
                client.call("job.wait", protocol.WaitParams((job_id,)))
            return (served - begin) * 1000, (time.perf_counter() - begin) * 1000
        except (errors.ConnectionFailed, OSError):
            time.sleep(0.002)
