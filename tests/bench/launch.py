"""A launch, from `job.run` to its exit seen, one at a time over one connection; and a
thousand of them, 32 under way."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import time
from pathlib import Path

import msgspec

from tests.bench.figures import by_turns, compiled, goal, leave_out, ratio, show
from tests.bench.installed import installed
from tests.bench.pipelined import Pipeline
from tests.host.daemon import ENV, Daemon
from workerctl import Client
from workerd import protocol
from workerd.job import JobSpec

ROUNDS, EACH = 10, 20
JOBS, IN_FLIGHT = 1000, 32
BARE, OURS, BWRAP = "bare C loop", "workerd, job.run to exit seen", "bwrap --unshare-all"
PEERS = {
    BWRAP: "bwrap --unshare-all --ro-bind / / --proc /proc --dev /dev --tmpfs /tmp --tmpfs /run /bin/true",
    "unshare, no mounts": "unshare --fork --pid --mount --net --ipc --uts --cgroup --mount-proc /bin/true",
}
TRUE = protocol.RunParams(JobSpec(argv=("/bin/true",)), ENV)


def run() -> None:
    with installed() as daemon, compiled("bareloop.c") as bareloop, daemon.client() as client:
        cases = {
            BARE: lambda: run_bare(bareloop, daemon, EACH),
            OURS: lambda: [_launch(client) for _ in range(EACH)],
        }
        for name, command in PEERS.items():
            words = command.split()
            if shutil.which(words[0]):
                cases[name] = functools.partial(_spawn_each, words)
            else:
                leave_out(f"{name}: not installed")
        table = show(f"launch of /bin/true, {ROUNDS * EACH} in a row each", by_turns(cases, ROUNDS), BARE)
        goal("launch / bare C loop", ratio(table, OURS), 1.4)
        if BWRAP in cases:
            goal("launch / bwrap", ratio(table, OURS, BWRAP), 0.7)


def throughput() -> None:
    with installed() as daemon, compiled("bareloop.c") as bareloop:
        cases = {
            f"bare C loop, {IN_FLIGHT} processes": lambda: [JOBS / _bare_at_once(bareloop, daemon)],
            f"workerd, {IN_FLIGHT} in flight": lambda: [JOBS / _many(daemon)],
        }
        base, ours = cases
        table = show(f"throughput, {JOBS} jobs of /bin/true", by_turns(cases, 3), base, unit="/s")
        goal("throughput / bare C loop", ratio(table, ours), 0.7, at_least=True)


def run_bare(program: Path, daemon: Daemon, count: int, name: str = "bare") -> list[float]:
    """Milliseconds of each of so many launches in a row."""
    text = _bare_process(program, daemon, count, name).communicate()[0]
    return [int(line) / 1000 for line in text.split()]


def _bare_process(program: Path, daemon: Daemon, count: int, name: str) -> subprocess.Popen[bytes]:
    place = daemon.cgroup / name
    place.mkdir(exist_ok=True)
    return subprocess.Popen([program, str(place), str(count), "/bin/true"], stdout=subprocess.PIPE)


def _bare_at_once(program: Path, daemon: Daemon) -> float:
    """Seconds that all of them take."""
    begin = time.perf_counter()
    started = [_bare_process(program, daemon, JOBS // IN_FLIGHT, f"bare-{number}") for number in range(IN_FLIGHT)]
    for process in started:
        process.communicate()
        assert process.returncode == 0
    return (time.perf_counter() - begin) * JOBS / (JOBS // IN_FLIGHT * IN_FLIGHT)


def _many(daemon: Daemon) -> float:
    """Seconds until the last of them has been seen to end."""
    pipeline = Pipeline(daemon.socket)
    begin = time.perf_counter()
    asked: set[int] = set(pipeline.send(*[("job.run", TRUE)] * IN_FLIGHT))
    started, ended = IN_FLIGHT, 0
    while ended < JOBS:
        more: list[tuple[str, protocol.Params]] = []
        for number, result in pipeline.answers():
            if number in asked:
                asked.discard(number)
                job = msgspec.json.decode(result, type=protocol.RunResult)
                pipeline.send(("job.wait", protocol.WaitParams((job.id,))))
                continue
            ended += 1
            if started < JOBS:
                started += 1
                more.append(("job.run", TRUE))
        if more:
            asked.update(pipeline.send(*more))
    taken = time.perf_counter() - begin
    pipeline.close()
    return taken


def _launch(client: Client) -> float:
    begin = time.perf_counter()
    started = client.call("job.run", TRUE)
    ended = client.call("job.wait", protocol.WaitParams((started.id,)))
    taken = (time.perf_counter() - begin) * 1000
    assert ended.finished[0].exit_code == 0
    return taken


def _spawn_each(command: list[str]) -> list[float]:
    return [_spawn(command) for _ in range(EACH)]


def _spawn(command: list[str]) -> float:
    program = shutil.which(command[0])
    assert program is not None
    begin = time.perf_counter()
    _, status = os.waitpid(os.posix_spawn(program, command, ENV), 0)
    taken = (time.perf_counter() - begin) * 1000
    assert status == 0
    return taken
