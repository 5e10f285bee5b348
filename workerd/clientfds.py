"""Descriptors that clients sent: looked at and closed in threads, never in the loop.

What must hold: no client can make the loop wait by what it sent. Closing a descriptor
lasts as long as whoever opened it likes: a TCP socket with SO_LINGER and unsent bytes
(socket(7)), a file whose FUSE server does not answer. So can a look at one. And closing
a Unix socket closes what its peer sent and nobody read (unix(7)).

Each user has a few threads, so the worst held up is the user's own. What waits for
SO_LINGER is interrupted by a signal after a while, soon where much is queued.
"""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable

from workerd import fdpass, passedfds
from workerd.errors import Exhausted

_THREADS = 4
"""of one user"""
_PATIENCE, _LITTLE_PATIENCE = 0.1, 0.005
"""seconds that closing one may take: as a rule, and where a user has more than _CROWDED"""
_CROWDED = 64
CHECK_SECONDS = 10.0
_NUDGE = signal.SIGURG
"""ignored unless it is handled; interrupts what waits in the kernel"""

_Work = Callable[[], None]


class ClientFds:
    """Made once, in the loop's thread; `stop` undoes its signal handler."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._users: dict[int, _User] = {}
        self._timer: asyncio.TimerHandle | None = None
        loop.add_signal_handler(_NUDGE, _nothing)

    def stop(self) -> None:
        """What is under way goes on, or ends with the process."""
        if self._timer is not None:
            self._timer.cancel()
        self._loop.remove_signal_handler(_NUDGE)

    def held(self, uid: int) -> int:
        """How many of a user's are not closed yet, though they were to be."""
        user = self._users.get(uid)
        return 0 if user is None else user.size()

    def close(self, uid: int, fds: Iterable[int]) -> None:
        """They are the caller's no more; returns at once."""
        for fd in fds:
            self._put(uid, lambda fd=fd: fdpass.close_all((fd,)))  # type: ignore[misc]

    async def check(self, uid: int, fds: tuple[int, ...]) -> None:
        """What passedfds.check raises, or Exhausted where a file does not answer."""
        # The thread's own: the caller's may be closed before it comes to look.
        copies = [os.dup(fd) for fd in fds]
        future: asyncio.Future[None] = self._loop.create_future()
        self._put(uid, lambda: self._look(copies, future))
        try:
            async with asyncio.timeout(CHECK_SECONDS):
                await future
        except TimeoutError as error:
            message = "a descriptor that was sent does not answer: its file system may be dead"
            raise Exhausted(message, field="fds") from error

    def _look(self, fds: list[int], future: asyncio.Future[None]) -> None:
        caught: BaseException | None = None
        try:
            passedfds.check(fds)
        except BaseException as error:
            caught = error
        self._call_in_loop(_settle, future, caught)
        fdpass.close_all(fds)

    def _call_in_loop(self, function: Callable[..., None], *arguments: object) -> None:
        try:
            self._loop.call_soon_threadsafe(function, *arguments)
        except RuntimeError:
            return  # the loop is closed: nobody wants to know

    def _put(self, uid: int, work: _Work) -> None:
        user = self._users.get(uid)
        if user is None:
            user = self._users[uid] = _User()
        user.put(work)
        if self._timer is None:
            self._timer = self._loop.call_later(_PATIENCE, self._hurry)

    def _hurry(self) -> None:
        """Runs again only while something is not done."""
        again = _PATIENCE
        for uid, user in tuple(self._users.items()):
            size = user.size()
            if size == 0:
                del self._users[uid]
                continue
            patience = _LITTLE_PATIENCE if size > _CROWDED else _PATIENCE
            again = min(again, patience)
            user.nudge(patience)
        self._timer = self._loop.call_later(again, self._hurry) if self._users else None


class _User:
    """One user's queue and the threads that work it off; these end when it is empty."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._queue: deque[_Work] = deque()
        self._busy: dict[int, float] = {}
        """since when, by thread"""
        self._threads = 0

    def size(self) -> int:
        with self._lock:
            return len(self._queue) + len(self._busy)

    def put(self, work: _Work) -> None:
        with self._lock:
            self._queue.append(work)
            start = self._threads < _THREADS
            self._threads += start
        if start:
            threading.Thread(target=self._run, daemon=True, name="client fds").start()

    def nudge(self, seconds: float) -> None:
        """Interrupt what takes longer. Under the lock: no thread of these can end meanwhile."""
        before = time.monotonic() - seconds
        with self._lock:
            for thread, since in self._busy.items():
                if since <= before:
                    signal.pthread_kill(thread, _NUDGE)

    def _run(self) -> None:
        me = threading.get_ident()
        while True:
            with self._lock:
                self._busy.pop(me, None)
                if not self._queue:
                    self._threads -= 1
                    return
                work = self._queue.popleft()
                self._busy[me] = time.monotonic()
            work()


def _nothing() -> None:
    return None


def _settle(future: asyncio.Future[None], error: BaseException | None) -> None:
    if future.done():
        return  # given up
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(error)
