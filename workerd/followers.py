"""Who waits for more output of which job, told by inotify: no polling, and nothing is
watched for a job that nobody follows."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from workerd.inotify import Inotify
from workerd.output import Extent


class Followers:
    """One watch per followed index file, however many follow it."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._inotify: Inotify | None = None
        self._waiting: dict[str, set[asyncio.Future[None]]] = {}
        self._watches: dict[str, int] = {}

    async def wait(self, path: str, offset: int, look: Callable[[], Extent]) -> Extent:
        """What `look` says of the index at `path`, as soon as that reaches past
        `offset` or is complete. Raises OSError where no watch can be had."""
        while True:
            woken = self._add(path)
            try:
                now = look()  # after the watch is set: nothing is missed between the two
                if now.end > offset or now.complete:
                    return now
                await woken
            finally:
                self._drop(path, woken)

    def wake(self, path: str) -> None:
        """Have them look again: the job is over, whatever the index says."""
        for future in self._waiting.get(path, ()):
            if not future.done():
                future.set_result(None)

    def close(self) -> None:
        if self._inotify is not None:
            self._inotify.close()

    def _add(self, path: str) -> asyncio.Future[None]:
        future: asyncio.Future[None] = self._loop.create_future()
        if path not in self._waiting:
            if self._inotify is None:
                self._inotify = Inotify(self._loop)
            self._watches[path] = self._inotify.add(path, lambda: self.wake(path))
            self._waiting[path] = set()
        self._waiting[path].add(future)
        return future

    def _drop(self, path: str, future: asyncio.Future[None]) -> None:
        waiting = self._waiting[path]
        waiting.discard(future)
        if not waiting:
            del self._waiting[path]
            watch = self._watches.pop(path)
            if self._inotify is not None:
                self._inotify.remove(watch)
