"""The users' cgroups follow the policy's totals."""

from __future__ import annotations

import asyncio
import logging

from workerd import admission, totals
from workerd.auth import Peer
from workerd.cgroup import CgroupTree
from workerd.config import Totals
from workerd.errors import WorkerError
from workerd.job import Job
from workerd.registry import Registry

log = logging.getLogger("workerd")


class UserTotals:
    def __init__(self, registry: Registry, tree: CgroupTree) -> None:
        self._registry = registry
        self._tree = tree

    def hold(self, job: Job) -> None:
        """In the cgroup of the job's user, which may be just about to get the job. Costs
        nothing where nothing changes. Raises WorkerError, OSError."""
        owner = Peer(uid=job.uid, gid=job.gid, groups=job.groups, pid=0)
        wanted = admission.totals_of(owner, self._registry.config.policy)
        there = 0
        if wanted != Totals():
            there = sum(live.job.uid == job.uid and live.job.live for live in self._registry)
        self._tree.user_limits(job.uid, totals.cgroup_limits(wanted, there, self._tree.available))

    async def follow(self) -> None:
        """The policy as it is now, for every user who has jobs; the others' cgroups get
        theirs with the next job. Lowering a total may take the kernel a while."""
        self._warn()
        newest = {live.job.uid: live.job for live in self._registry if live.job.live}
        for job in newest.values():
            try:
                await asyncio.to_thread(self.hold, job)
            except (WorkerError, OSError) as error:
                log.error("the totals of uid %d are not as the policy says: %s", job.uid, error)

    def _warn(self) -> None:
        if names := totals.unheld(self._registry.config.policy.all_totals(), self._tree.available):
            message = "the totals of %s count what jobs ask for, and no more: this host has no controller to hold them"
            log.warning(message, ", ".join(names))
