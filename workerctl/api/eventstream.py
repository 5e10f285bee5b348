"""What happens to jobs, event after event, from both clients.

Once begun, a stream misses nothing that happens from then on, however slowly it is read;
where events are gone all the same, a `gap` stands for them. `cursor` is behind the event
that was given last: to go on from, on a new connection and after a restart too.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator
from typing import Any

import msgspec

from workerctl.api.asks import Ask
from workerd.events import Event
from workerd.protocol import SubscribeParams, SubscribeResult


class _Events:
    """What was answered and not given yet, and what to ask for next. No I/O."""

    def __init__(self, params: SubscribeParams, *, follow: bool) -> None:
        self.cursor = params.cursor
        self._params = params
        self._follow = follow
        self._events: deque[Event] = deque()
        self._next, self._more = params.cursor, True

    def _given(self) -> Event:
        event = self._events.popleft()
        self.cursor = event.cursor
        return event

    def _at_end(self) -> bool:
        self.cursor = self._next
        return not self._follow and not self._more

    def _request(self, *, first: bool = False) -> Ask[SubscribeResult]:
        timeout = None if self._follow and not first else 0
        params = msgspec.structs.replace(self._params, cursor=self._next, timeout=timeout)
        return Ask("events.subscribe", params, SubscribeResult)

    def _take(self, answer: SubscribeResult) -> None:
        self._events.extend(answer.events)
        self._next, self._more = answer.next, answer.more
        if not answer.events:
            self.cursor = answer.next


class EventStream(_Events, Iterator[Event]):
    """Blocks for the next event; has begun when it is made."""

    def __init__(
        self, ask: Callable[[Ask[SubscribeResult]], SubscribeResult], params: SubscribeParams, *, follow: bool
    ) -> None:
        super().__init__(params, follow=follow)
        self._ask = ask
        self._take(ask(self._request(first=True)))

    def __next__(self) -> Event:
        while not self._events:
            if self._at_end():
                raise StopIteration
            self._take(self._ask(self._request()))
        return self._given()


class AsyncEventStream(_Events, AsyncIterator[Event]):
    """Begins with the first event that is asked for, or when it is awaited:
    `events = await client.events()`."""

    def __init__(
        self,
        ask: Callable[[Ask[SubscribeResult]], Awaitable[SubscribeResult]],
        params: SubscribeParams,
        *,
        follow: bool,
    ) -> None:
        super().__init__(params, follow=follow)
        self._ask = ask
        self._begun = False

    def __await__(self) -> Generator[Any, Any, AsyncEventStream]:
        return self._begin().__await__()

    async def _begin(self) -> AsyncEventStream:
        if not self._begun:
            self._take(await self._ask(self._request(first=True)))
            self._begun = True
        return self

    async def __anext__(self) -> Event:
        await self._begin()
        while not self._events:
            if self._at_end():
                raise StopAsyncIteration
            self._take(await self._ask(self._request()))
        return self._given()
