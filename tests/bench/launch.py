"""A launch, from `job.run` to its exit seen, one at a time over one connection; and a
thousand of them, 32 under way. Who asks is a program in C, as the bare loop is one: a client
in Python takes a tenth of the time, and of both CPUs."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import NamedTuple

from tests.bench.figures import by_turns, compiled, goal, leave_out, ratio, show
from tests.bench.installed import installed
from tests.host.daemon import ENV, Daemon
from workerd import protocol
from workerd.job import JobSpec

ROUNDS, EACH = 25, 20
JOBS, IN_FLIGHT = 1000, 32
BARE, OURS, BWRAP = "bare C loop", "workerd, job.run to exit seen", "bwrap --unshare-all"
PEERS = {
    BWRAP: "bwrap --unshare-all --ro-bind / / --proc /proc --dev /dev --tmpfs /tmp --tmpfs /run /bin/true",
    "unshare, no mounts": "unshare --fork --pid --mount --net --ipc --uts --cgroup --mount-proc /bin/true",
}
TRUE = protocol.RunParams(JobSpec(argv=("/bin/true",)), ENV)


class Launched(NamedTuple):
    seconds: float
    """from the first request to the last end"""
    each: list[float]
    """milliseconds from a job's request until its end was read"""


def run() -> None:
    with installed() as daemon, compiled("bareloop.c") as bareloop, compiled("launchload.c") as load:
        cases = {
            BARE: lambda: run_bare(bareloop, daemon, EACH),
            OURS: lambda: launched(load, daemon, EACH).each,
        }
        for name, command in PEERS.items():
            words = command.split()
            if shutil.which(words[0]):
                cases[name] = functools.partial(_spawn_each, words)
            else:
                leave_out(f"{name}: not installed")
        table = show(f"launch of /bin/true, by turns of {EACH}", by_turns(cases, ROUNDS), BARE)
        goal("launch / bare C loop", ratio(table, OURS), 1.4)
        if BWRAP in cases:
            goal("launch / bwrap", ratio(table, OURS, BWRAP), 0.7)


def throughput() -> None:
    with installed() as daemon, compiled("bareloop.c") as bareloop, compiled("launchload.c") as load:
        cases = {
            f"bare C loop, {IN_FLIGHT} processes": lambda: [JOBS / _bare_at_once(bareloop, daemon)],
            f"workerd, {IN_FLIGHT} in flight": lambda: [JOBS / launched(load, daemon, JOBS, IN_FLIGHT).seconds],
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


def launched(load: Path, daemon: Daemon, count: int, in_flight: int = 1) -> Launched:
    """So many /bin/true over one connection, `in_flight` of them at once."""
    words: list[str | Path] = [load, daemon.socket, str(count), str(in_flight)]
    answer = subprocess.run(words, input=protocol.encode(TRUE), check=True, stdout=subprocess.PIPE)
    seconds, *each = map(float, answer.stdout.split())
    return Launched(seconds, [microseconds / 1000 for microseconds in each])


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
