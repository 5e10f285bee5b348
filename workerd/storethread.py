"""The store's own thread: the loop never waits for the disk."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from workerd.store import Store

T = TypeVar("T")


class StoreThread:
    """Calls are carried out one by one, in the order they were made in."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="store")

    async def call(self, function: Callable[[Store], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, self.store)

    def close(self) -> None:
        """After the last call is done."""
        self._thread.shutdown()
        self.store.close()
