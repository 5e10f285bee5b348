"""How much of the disk finished jobs' output takes: the blocks that are really there
(inode(7), st_blocks), which a log whose oldest bytes were released has fewer of."""

from __future__ import annotations

import asyncio
import os

from workerd.registry import Registry
from workerd.store import Store
from workerd.totals import Stored

_BLOCK = 512
"""bytes of a unit of st_blocks, whatever the file system's own"""


class StoredOutput:
    """What a finished job has does not change any more, so it is measured once."""

    def __init__(self, registry: Registry, state_dir: str) -> None:
        self._registry = registry
        self._state_dir = state_dir
        self._known: dict[str, int] = {}

    async def measure(self, uid: int) -> Stored:
        """This user's and everybody's."""
        owners = await self._registry.call(Store.finished_owners)
        return await asyncio.to_thread(self._sum, owners, uid)

    def _sum(self, owners: list[tuple[str, int]], uid: int) -> Stored:
        known, self._known = self._known, {}
        for job_id, _ in owners:
            self._known[job_id] = known[job_id] if job_id in known else self._bytes(job_id)
        mine = sum(self._known[job_id] for job_id, owner in owners if owner == uid)
        return Stored(mine, sum(self._known.values()))

    def _bytes(self, job_id: str) -> int:
        try:
            with os.scandir(f"{self._state_dir}/jobs/{job_id}") as files:
                return sum(file.stat(follow_symlinks=False).st_blocks * _BLOCK for file in files)
        except FileNotFoundError:
            return 0  # it never ran, or is just being removed
