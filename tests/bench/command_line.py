"""`workerctl run --wait /bin/true`, beside what Python's own start costs."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from tests.bench.figures import by_turns, show
from tests.host.daemon import ENV, running

ROUNDS, EACH = 10, 5


def run() -> None:
    workerctl = str(Path(sys.executable).with_name("workerctl"))
    with running() as daemon:
        env = {**ENV, "WORKERD_SOCKET": str(daemon.socket)}
        cases = {
            "python3 -I -c pass": lambda: _each([sys.executable, "-I", "-c", "pass"], env),
            "workerctl run --wait /bin/true": lambda: _each([workerctl, "run", "--wait", "/bin/true"], env),
            "workerctl run /bin/true": lambda: _each([workerctl, "run", "/bin/true"], env),
        }
        show("command line", by_turns(cases, ROUNDS), "python3 -I -c pass")


def _each(command: list[str], env: dict[str, str]) -> list[float]:
    taken = []
    for _ in range(EACH):
        begin = time.perf_counter()
        subprocess.run(command, env={**os.environ, **env}, stdout=subprocess.DEVNULL, check=True)
        taken.append((time.perf_counter() - begin) * 1000)
    return taken
