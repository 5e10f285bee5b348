"""The store's own threads: the loop never waits for the disk.

What is asked for while the thread is at work is done together at its next turn: one
wake-up each way, and one transaction for all changes of jobs among it.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar

from workerd.errors import WorkerError
from workerd.serialthread import SerialThread
from workerd.store import Store

T = TypeVar("T")

log = logging.getLogger("workerd")

SYNC_AFTER = 0.1
"""seconds in which commits are gathered, so that a thousand of them are one wait for the disk"""
LINGER = 0.003
"""seconds that a change for which nobody waits leaves the thread, and the interpreter's lock, to
those for which somebody does: they take it along"""


class _Asked(NamedTuple):
    future: asyncio.Future[Any]
    write: Callable[[Store], None] | None
    """in a transaction with others"""
    function: Callable[[Store], Any]
    """after it, by itself"""


_Answer = tuple[_Asked, Any, BaseException | None]


class StoreThread:
    """Calls are carried out one by one, in the order they were made in."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._loop = asyncio.get_running_loop()
        self._asked: list[_Asked] = []
        self._working = False
        self._lingering: asyncio.TimerHandle | None = None
        self._thread = SerialThread("store")
        self._syncs = ThreadPoolExecutor(max_workers=1, thread_name_prefix="store-sync")
        self._timer: asyncio.TimerHandle | None = None
        self._syncing = False
        self._sync_again = False
        self._closed = False

    async def call(self, function: Callable[[Store], T]) -> T:
        result: T = await self._ask(None, function)
        return result

    def change(
        self, write: Callable[[Store], None], then: Callable[[Store], T], *, lingers: bool = False
    ) -> asyncio.Future[T]:
        """Begun at once, or where it `lingers`, moments from now: `write` within a transaction,
        which it may share with other calls' and which is tried again without those where it
        fails; and, once that is committed, `then`, whose result it is. Raises what they raise."""
        return self._ask(write, then, lingers=lingers)

    def _ask(
        self, write: Callable[[Store], None] | None, function: Callable[[Store], Any], *, lingers: bool = False
    ) -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = self._loop.create_future()
        self._asked.append(_Asked(future, write, function))
        if self._working:
            return future  # done at its next turn
        if not lingers:
            self._begin()
        elif self._lingering is None:
            self._lingering = self._loop.call_later(LINGER, self._begin)
        return future

    def _begin(self) -> None:
        if self._lingering is not None:
            self._lingering.cancel()
            self._lingering = None
        asked, self._asked = self._asked, []
        self._working = True
        self._thread.submit(lambda: self._work(asked))

    def _work(self, asked: Sequence[_Asked]) -> None:
        """In the thread."""
        answers = self._carry_out_all(asked)
        self._loop.call_soon_threadsafe(self._answer, answers)

    def _carry_out_all(self, asked: Sequence[_Asked]) -> list[_Answer]:
        answers: list[_Answer] = []
        wanted = (each for each in asked if not each.future.cancelled())
        for changes, same in itertools.groupby(wanted, lambda each: each.write is not None):
            group = list(same)
            answers += self._change(group) if changes else map(self._carry_out, group)
        return answers

    def _change(self, asked: Sequence[_Asked]) -> Iterator[_Answer]:
        refused = self.store.together([each.write for each in asked if each.write is not None])
        for each, error in zip(asked, refused, strict=True):
            yield self._carry_out(each) if error is None else (each, None, error)

    def _carry_out(self, asked: _Asked) -> _Answer:
        try:
            return asked, asked.function(self.store), None
        except BaseException as error:
            return asked, None, error

    def _answer(self, answers: Sequence[_Answer]) -> None:
        if self._asked:
            self._begin()
        else:
            self._working = False
        for asked, result, error in answers:
            if asked.future.done():
                continue  # nobody waits any more
            if error is None:
                asked.future.set_result(result)
            else:
                asked.future.set_exception(error)

    def sync_soon(self) -> None:
        """Have what is committed so far on the disk moments from now, so that a power
        cut does not undo it; nobody waits for it."""
        if self._syncing:
            self._sync_again = True
        elif self._timer is None and not self._closed:
            self._timer = asyncio.get_running_loop().call_later(SYNC_AFTER, self._sync)

    def close(self) -> None:
        """After the last call is done."""
        self._closed = True
        for timer in (self._timer, self._lingering):
            if timer is not None:
                timer.cancel()
        self._thread.close()
        self._carry_out_all(self._asked)
        self._syncs.shutdown()
        self.store.close()

    def _sync(self) -> None:
        self._timer = None
        self._syncing, self._sync_again = True, False
        done = asyncio.get_running_loop().run_in_executor(self._syncs, self.store.sync)
        done.add_done_callback(self._synced)

    def _synced(self, done: asyncio.Future[None]) -> None:
        self._syncing = False
        error = None if done.cancelled() else done.exception()
        if isinstance(error, (WorkerError, OSError)):
            log.error("a power cut now would lose the newest records: %s", error)
        elif error is not None:
            raise error
        if self._sync_again:
            self.sync_soon()
