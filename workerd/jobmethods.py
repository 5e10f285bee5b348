"""The RPC's methods that change a job after it was started: freeze, limits, name, oblivion."""

from __future__ import annotations

from workerd import protocol
from workerd.pausing import Pauser
from workerd.registry import Registry
from workerd.removal import Remover
from workerd.service import Answer, Call, Handler
from workerd.updating import Updater


class JobMethods:
    def __init__(self, registry: Registry, pauser: Pauser, remover: Remover, updater: Updater) -> None:
        self._registry = registry
        self._pauser = pauser
        self._remover = remover
        self._updater = updater
        self.handlers: dict[str, Handler] = {
            "job.pause": self._pause,
            "job.resume": self._resume,
            "job.update": self._update,
            "job.rename": self._rename,
            "job.remove": self._remove,
            "job.prune": self._prune,
        }

    async def _pause(self, call: Call) -> Answer:
        return Answer(await self._pauser.pause(call.peer, call.params.id))

    async def _resume(self, call: Call) -> Answer:
        return Answer(await self._pauser.resume(call.peer, call.params.id))

    async def _update(self, call: Call) -> Answer:
        return Answer(await self._updater.update(call.peer, call.params))

    async def _rename(self, call: Call) -> Answer:
        return Answer(await self._registry.rename(call.peer, call.params.id, call.params.name))

    async def _remove(self, call: Call) -> Answer:
        return Answer(await self._remover.remove(call.peer, call.params.id, force=call.params.force))

    async def _prune(self, call: Call) -> Answer:
        params: protocol.PruneParams = call.params
        jobs, size = await self._remover.prune(call.peer, params)
        return Answer(protocol.PruneResult(tuple(job.id for job in jobs), size))
