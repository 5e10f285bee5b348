"""A thread that carries out one call after another, in the order that they were given in.

concurrent.futures has the same with a result for each call; that is half of what the way
there and back costs, and the store, which each job takes that way twice, tells its results
otherwise."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue


class SerialThread:
    def __init__(self, name: str) -> None:
        self._calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._carry_out, name=name, daemon=True)
        self._thread.start()

    def submit(self, call: Callable[[], None]) -> None:
        """It must not raise."""
        self._calls.put(call)

    def close(self) -> None:
        """Returns once all that was submitted is done."""
        self._calls.put(None)
        self._thread.join()

    def _carry_out(self) -> None:
        while (call := self._calls.get()) is not None:
            call()
