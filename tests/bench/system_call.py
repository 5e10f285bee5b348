"""What the filter costs a system call: a job of root's without it and one with it.

getppid is a call whose answer the kernel remembers for a filter; an ioctl the filter
looks at each time, for its arguments (tests/host/probe.c has the loops).
"""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path

from tests.bench.figures import by_turns, show
from tests.host.attackers import compile_probe
from tests.host.daemon import Daemon, running

ROUNDS, CALLS = 9, 1_000_000
LOOPS = {"getppid": "loop", "ioctl": "ioctls"}
BARE, FILTERED = "without the filter", "with it"


def run() -> None:
    with tempfile.TemporaryDirectory(prefix="worker-bench-", dir="/srv") as folder, running() as daemon:
        Path(folder).chmod(0o755)
        compile_probe(Path(folder))
        for name, loop in LOOPS.items():
            each = functools.partial(_each, daemon, f"{folder}/probe", loop)
            cases = {BARE: functools.partial(each, seccomp=False), FILTERED: functools.partial(each, seccomp=True)}
            show(f"{name} in a job, {CALLS} times a round", by_turns(cases, ROUNDS), BARE, unit="ns")


def _each(daemon: Daemon, probe: str, loop: str, *, seccomp: bool) -> list[float]:
    """Nanoseconds of one call."""
    job = daemon.wait(daemon.run(probe, loop, str(CALLS), seccomp=seccomp))
    assert job.exit_code == 0
    return [int(daemon.output(job.id)) / CALLS]
