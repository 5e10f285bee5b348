"""Progress and notices, on stderr only: stdout belongs to the guest's command."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

REMIND_SECONDS = 15.0


def say(text: str) -> None:
    """One line on stderr."""
    print(f"vm: {text}", file=sys.stderr, flush=True)


@contextmanager
def step(text: str) -> Iterator[None]:
    """Say what begins, that it goes on (every REMIND_SECONDS), and how long it took."""
    started = time.monotonic()
    over = threading.Event()

    def remind() -> None:
        while not over.wait(REMIND_SECONDS):
            say(f"{text} … {time.monotonic() - started:.0f} s")

    say(f"{text} …")
    reminder = threading.Thread(target=remind, daemon=True)
    reminder.start()
    try:
        yield
    finally:
        over.set()
        reminder.join()
    say(f"{text}: {time.monotonic() - started:.1f} s")
