"""The store's own threads: the loop never waits for the disk."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from workerd.errors import WorkerError
from workerd.store import Store

T = TypeVar("T")

log = logging.getLogger("workerd")

SYNC_AFTER = 0.1
"""seconds in which commits are gathered, so that a thousand of them are one wait for the disk"""


class StoreThread:
    """Calls are carried out one by one, in the order they were made in."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="store")
        self._syncs = ThreadPoolExecutor(max_workers=1, thread_name_prefix="store-sync")
        self._timer: asyncio.TimerHandle | None = None
        self._syncing = False
        self._sync_again = False
        self._closed = False

    async def call(self, function: Callable[[Store], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, self.store)

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
        if self._timer is not None:
            self._timer.cancel()
        self._thread.shutdown()
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
