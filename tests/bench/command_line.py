"""`workerctl run --wait true`, beside what Python's own start costs."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from tests.bench.figures import by_turns, goal, ratio, show
from tests.bench.installed import installed

ROUNDS, EACH = 10, 5
PYTHON, WAIT = "python3 -I -c pass", "workerctl run --wait true"


def run() -> None:
    workerctl = str(Path(sys.executable).with_name("workerctl"))
    with installed() as daemon:
        env = {**os.environ, "WORKERD_SOCKET": str(daemon.socket)}
        cases = {
            PYTHON: lambda: _each([sys.executable, "-I", "-c", "pass"], env),
            WAIT: lambda: _each([workerctl, "run", "--wait", "true"], env),
            "workerctl run true": lambda: _each([workerctl, "run", "true"], env),
            "workerctl ps": lambda: _each([workerctl, "ps"], env),
        }
        table = show("command line", by_turns(cases, ROUNDS), PYTHON)
        goal("workerctl run --wait / Python's start", ratio(table, WAIT), 2.5)


def _each(command: list[str], env: dict[str, str]) -> list[float]:
    taken = []
    for _ in range(EACH):
        begin = time.perf_counter()
        subprocess.run(command, env=env, stdout=subprocess.DEVNULL, check=True)
        taken.append((time.perf_counter() - begin) * 1000)
    return taken
