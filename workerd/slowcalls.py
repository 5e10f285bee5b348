"""Calls that may never return: looking up a path on a dead network file system, say.

Each runs in a thread of its own that nothing waits for, neither the loop nor the end
of the process; and no more than a few at once, so that they cannot take it over.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from workerd.errors import Exhausted

T = TypeVar("T")

MAX_THREADS = 16


class SlowCalls:
    def __init__(self) -> None:
        self._running = 0
        self._loop = asyncio.get_running_loop()

    async def call(self, function: Callable[[], T], what: str, seconds: float) -> T:
        """What it gives. Raises what it raises, or Exhausted where it takes too long."""
        if self._running >= MAX_THREADS:
            raise Exhausted(f"{what}: too many of these do not answer; try again later")
        self._running += 1
        future: asyncio.Future[Any] = self._loop.create_future()
        threading.Thread(target=self._run, args=(function, future), daemon=True, name="slow call").start()
        try:
            async with asyncio.timeout(seconds):
                result: T = await future
                return result
        except TimeoutError as error:
            raise Exhausted(f"{what}: no answer in {seconds:g} seconds") from error

    def _run(self, function: Callable[[], T], future: asyncio.Future[T]) -> None:
        try:
            result, error = function(), None
        except BaseException as caught:
            result, error = None, caught
        try:
            self._loop.call_soon_threadsafe(self._done, future, result, error)
        except RuntimeError:
            return  # the loop is closed: nobody wants to know

    def _done(self, future: asyncio.Future[Any], result: object, error: BaseException | None) -> None:
        self._running -= 1
        if future.done():
            return  # given up
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)
