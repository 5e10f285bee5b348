"""A line at a person's terminal while something lasts: what is waited for, and how long.

Only on a terminal, on stderr, after a moment, and wiped away at the end. An alarm draws it, so
that the call that waits need not know of it: it is resumed afterwards (PEP 475).
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # not signal: its enums cost 5 ms
import os
import time

from workerctl import stdio, wakeup

FIRST, EVERY = 2.0, 1.0
"""seconds"""
SIGALRM, ITIMER_REAL = 14, 0
WIPE = b"\r\x1b[K"


class Progress:
    """Shown while it is entered: `text` and the time that has passed."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._since = time.monotonic()

    def __enter__(self) -> Progress:
        wakeup.begin()
        self._there = stdio.is_terminal(stdio.STDERR) and os.environ.get("TERM") != "dumb"
        if self._there:
            _signal.signal(SIGALRM, self._draw)
            _signal.setitimer(ITIMER_REAL, FIRST, EVERY)
        return self

    def __exit__(self, *_: object) -> None:
        if self._there:
            _signal.setitimer(ITIMER_REAL, 0)
            stdio.write_all(stdio.STDERR, stdio.transient)
            stdio.transient = b""

    def _draw(self, *_: object) -> None:
        from workerctl.cells import fitted
        from workerctl.escape import visible
        from workerctl.words import brief

        passed = brief(int((time.monotonic() - self._since) * 1e6), least=1_000_000)
        width = os.get_terminal_size(stdio.STDERR).columns or 80
        line = fitted(f"{visible(self._text)}: {passed}", width - 1, dots="...").rstrip()
        stdio.transient = WIPE
        stdio.write_all(stdio.STDERR, WIPE + line.encode(stdio.encoding(), "backslashreplace"))


def waiting_for(names: list[str]) -> Progress:
    return Progress(f"waiting for {_jobs(names)}")


def stopping(names: list[str]) -> Progress:
    return Progress(f"stopping {_jobs(names)}")


def _jobs(names: list[str]) -> str:
    return f"job {names[0]}" if len(names) == 1 else f"{len(names)} jobs"
