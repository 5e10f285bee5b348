"""Who waits for events: woken when one of theirs was committed, and read from the record.

What must hold: nothing is kept for a subscriber but that he waits, so a slow one costs
nothing; he goes on from his cursor. While nothing happens, nothing runs.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Collection

from workerd.errors import Exhausted
from workerd.eventstore import Page, Query
from workerd.store import Store
from workerd.storethread import StoreThread

MAX_WAITING = 128
"""requests for events of one user under way at once"""

_Woken = asyncio.Future[None]


class EventBoard:
    def __init__(self, store: StoreThread) -> None:
        self._store = store
        self._loop = asyncio.get_running_loop()
        self._waiting: dict[int | None, set[_Woken]] = {}
        self._callers: dict[int, int] = {}
        store.store.on_events = self._committed

    async def page(self, caller: int, query: Query, within: float | None) -> Page:
        """The events behind the query's cursor, once there are some, or `within` so many
        seconds. Raises InvalidParams, Exhausted."""
        count = self._callers.get(caller, 0)
        if count >= MAX_WAITING:
            raise Exhausted(f"you have {count} requests for events under way already: end some")
        self._callers[caller] = count + 1
        try:
            return await self._page(query, None if within is None else self._loop.time() + within)
        finally:
            self._callers[caller] -= 1
            if not self._callers[caller]:
                del self._callers[caller]

    async def _page(self, query: Query, deadline: float | None) -> Page:
        while True:
            woken = self._add(query.uid)
            try:
                # After it is known that we wait: nothing is missed between the two.
                page: Page = await self._store.call(functools.partial(_read, query))
                if page.events or (deadline is not None and deadline <= self._loop.time()):
                    return page
                query = query._replace(since=page.next)
                async with asyncio.timeout_at(deadline):
                    await woken
            except TimeoutError:
                return page
            finally:
                self._drop(query.uid, woken)

    def _add(self, uid: int | None) -> _Woken:
        woken: _Woken = self._loop.create_future()
        self._waiting.setdefault(uid, set()).add(woken)
        return woken

    def _drop(self, uid: int | None, woken: _Woken) -> None:
        waiting = self._waiting[uid]
        waiting.discard(woken)
        if not waiting:
            del self._waiting[uid]

    def _committed(self, uids: Collection[int]) -> None:
        """In the store's thread, after the commit: whoever came later reads it."""
        if self._waiting:
            self._loop.call_soon_threadsafe(self._wake, (*uids, None))

    def _wake(self, uids: Collection[int | None]) -> None:
        for uid in uids:
            for woken in self._waiting.get(uid, ()):
                if not woken.done():
                    woken.set_result(None)


def _read(query: Query, store: Store) -> Page:
    return store.read_events(query)
