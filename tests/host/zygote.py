"""Starts workerd in a fraction of a second, again and again: it is imported once, and
each daemon is a fork. What the daemon does from `main` on is what it always does.

`python -m tests.host.zygote LOG ARGUMENT…` reads one line for each start: `-`, or a step
(tests.host.steps) at which the daemon is to kill itself, or `faults` where its system
calls are to count (tests.host.faultlib); and writes the pid.
Orphans of a killed daemon are its children, and reaped: they do not pile up.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.host import faultlib, steps
from workerd import __main__ as program
from workerd.procfs import WALL

_PR_SET_CHILD_SUBREAPER = 36


def main() -> None:
    log, *arguments = sys.argv[1:]
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    for line in sys.stdin:
        _reap()
        pid = os.fork()
        if pid == 0:
            _be_workerd(line.strip(), log, arguments)
        print(pid, flush=True)
    _reap()


def _reap() -> None:
    try:
        while os.waitpid(-1, os.WNOHANG | WALL)[0]:
            pass
    except ChildProcessError:
        pass


def _be_workerd(step: str, log: str, arguments: list[str]) -> None:
    status = 1
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), 2)
        os.dup2(os.open(os.devnull, os.O_RDWR), 0)
        os.dup2(2, 1)
        if step == "faults":
            faultlib.count_from_now()
        elif step != "-":
            steps.arm(step)
        status = program.main(arguments)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        os._exit(status)


class Zygote:
    """The other side: starts daemons."""

    def __init__(self, log: Path, arguments: list[str], cwd: Path, env: dict[str, str] | None = None) -> None:
        """`env` is added to the environment."""
        command = [sys.executable, "-m", "tests.host.zygote", str(log), *arguments]
        self._process = subprocess.Popen(
            command,
            cwd=cwd,
            env={**os.environ, **(env or {})},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def start(self, step: str = "-") -> tuple[int, int]:
        """(pid, pidfd) of a fresh daemon; the caller closes the pidfd."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(f"{step}\n")
        self._process.stdin.flush()
        pid = int(self._process.stdout.readline())
        return pid, os.pidfd_open(pid)  # not reaped before the next start

    def close(self) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(30)
        self._process.stdout.close()


if __name__ == "__main__":
    main()
