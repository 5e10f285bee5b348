"""A launch, from `job.run` to its exit seen, one at a time over one connection."""

from __future__ import annotations

import os
import shutil
import subprocess
import time

from tests.bench.figures import by_turns, compiled, show
from tests.host.daemon import ENV, Daemon, running
from workerctl import Client
from workerd import protocol
from workerd.job import JobSpec

ROUNDS, EACH = 10, 20
BWRAP = "bwrap --unshare-all --ro-bind / / --proc /proc --dev /dev --tmpfs /tmp --tmpfs /run /bin/true".split()


def run() -> None:
    with running() as daemon, compiled("bareloop.c") as bareloop, daemon.client() as client:
        cases = {
            "bare C loop": lambda: _bare(str(bareloop), daemon),
            "workerd, job.run to exit seen": lambda: [_launch(client) for _ in range(EACH)],
        }
        if shutil.which("bwrap"):
            cases["bwrap --unshare-all"] = lambda: [_spawn(BWRAP) for _ in range(EACH)]
        else:
            print("bwrap is not installed: left out")
        show(f"launch of /bin/true, {ROUNDS * EACH} in a row each", by_turns(cases, ROUNDS), "bare C loop")


def _bare(program: str, daemon: Daemon) -> list[float]:
    place = daemon.cgroup / "bare"
    place.mkdir(exist_ok=True)
    text = subprocess.run([program, str(place), str(EACH), "/bin/true"], capture_output=True, check=True).stdout
    return [int(line) / 1000 for line in text.split()]


def _launch(client: Client) -> float:
    begin = time.perf_counter()
    started = client.call("job.run", protocol.RunParams(JobSpec(argv=("/bin/true",)), ENV))
    ended = client.call("job.wait", protocol.WaitParams((started.id,)))
    taken = (time.perf_counter() - begin) * 1000
    assert ended.finished[0].exit_code == 0
    return taken


def _spawn(command: list[str]) -> float:
    begin = time.perf_counter()
    program = shutil.which(command[0])
    assert program is not None
    _, status = os.waitpid(os.posix_spawn(program, command, ENV), 0)
    taken = (time.perf_counter() - begin) * 1000
    assert status == 0
    return taken
