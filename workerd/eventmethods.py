"""The RPC's method to follow what happens to jobs."""

from __future__ import annotations

from workerd import protocol
from workerd.auth import is_admin
from workerd.eventboard import EventBoard
from workerd.eventstore import Query
from workerd.registry import Registry
from workerd.service import Answer, Call, Handler


class EventMethods:
    def __init__(self, registry: Registry, board: EventBoard) -> None:
        self._registry = registry
        self._board = board
        self.handlers: dict[str, Handler] = {"events.subscribe": self._subscribe}

    async def _subscribe(self, call: Call) -> Answer:
        params: protocol.SubscribeParams = call.params
        everybody = params.all and is_admin(call.peer, self._registry.config.policy)
        query = Query(None if everybody else call.peer.uid, params.cursor, params.jobs, params.limit)
        timeout = None if params.timeout is None else params.timeout / 1e6
        page = await self._board.page(call.peer.uid, query, timeout)
        return Answer(protocol.SubscribeResult(page.events, page.next, page.more))
