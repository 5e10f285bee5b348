"""The files that say what running jobs have used and written, for those who ask again.

To open and close one of the kernel's costs more than twice what reading it does. So the
files of a job that somebody asks about stay open until nobody has asked for a second, as
long as there are descriptors enough for jobs still to come.
"""

from __future__ import annotations

import asyncio
import resource

from workerd import output
from workerd.cgroupfiles import HeldAccounts
from workerd.errors import WorkerError
from workerd.job import Usage
from workerd.jobcgroup import JobCgroup
from workerd.jobfiles import JobFiles

_MOST = 1024
"""jobs whose files are held: the kernel keeps a page of text with each file"""
_FOR_JOBS, _OF_A_JOB = 0.5, 2
"""the part of all descriptors that is the jobs', and how many a job takes (workerd.gate)"""
_SHARE = 0.8
"""of those that no job has taken"""
_IDLE_SECONDS = 1.0
_CLOSED_AT_ONCE, _SOON = 32, 0.005
"""jobs whose files are closed in one turn of the loop, and seconds to the next ones'"""


class HeldFiles:
    """Owns the descriptors. For the loop alone."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._jobs: dict[str, _Held] = {}
        self._descriptors = 0
        self._timer: asyncio.TimerHandle | None = None
        self._limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)

    def read(self, job_id: str, cgroup: JobCgroup, files: JobFiles, jobs: int) -> tuple[Usage, output.Extent | None]:
        """What a job has used by now, and its output; one of so many. Raises OSError."""
        held = self._jobs.get(job_id)
        most = self._most(jobs)
        if held is not None and (held.cgroup is not cgroup or self._descriptors > most):
            self.forget(job_id)  # it was another try's, or more jobs have come
            held = None
        if held is None:
            if len(self._jobs) >= _MOST or self._descriptors >= most:
                return cgroup.usage(), output.extent_of(files.log, files.index)
            return self._hold(job_id, cgroup, files)
        held.lately = True
        try:
            return held.read()
        finally:
            self._count(held)

    def forget(self, job_id: str) -> None:
        """Nothing where nothing is held of it."""
        held = self._jobs.pop(job_id, None)
        if held is not None:
            self._descriptors -= held.descriptors
            held.close()

    def close(self) -> None:
        for job_id in tuple(self._jobs):
            self.forget(job_id)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _hold(self, job_id: str, cgroup: JobCgroup, files: JobFiles) -> tuple[Usage, output.Extent | None]:
        """Raises OSError, and then nothing is held."""
        held = _Held(cgroup, files)
        try:
            read = held.read()
        except BaseException:
            held.close()
            raise
        self._jobs[job_id] = held
        self._count(held)
        if self._timer is None:
            self._timer = self._loop.call_later(_IDLE_SECONDS, self._close_idle)
        return read

    def _count(self, held: _Held) -> None:
        """After each reading: a file that could not be had at first is opened by a later one."""
        self._descriptors -= held.descriptors
        self._descriptors += held.count()

    def _most(self, jobs: int) -> float:
        """Descriptors that may be held now."""
        if self._limit == resource.RLIM_INFINITY:
            return float("inf")
        return (self._limit * _FOR_JOBS - _OF_A_JOB * jobs) * _SHARE

    def _close_idle(self) -> None:
        """The files of those about whom nobody has asked since the last time."""
        idle = [job_id for job_id, held in self._jobs.items() if not held.lately]
        for job_id in idle[:_CLOSED_AT_ONCE]:
            self.forget(job_id)
        again = _SOON
        if len(idle) <= _CLOSED_AT_ONCE:
            again = _IDLE_SECONDS
            for held in self._jobs.values():
                held.lately = False
        self._timer = self._loop.call_later(again, self._close_idle) if self._jobs else None


class _Held:
    """One job's files, opened when they are read first."""

    __slots__ = ("_accounts", "_files", "_log", "cgroup", "descriptors", "lately")

    def __init__(self, cgroup: JobCgroup, files: JobFiles) -> None:
        self.cgroup = cgroup
        self.lately = True
        """whether somebody asked since idle files were closed last"""
        self.descriptors = 0
        """as counted last"""
        self._files = files
        self._accounts: HeldAccounts = cgroup.hold_accounts()
        self._log: output.Log | None = None

    def read(self) -> tuple[Usage, output.Extent | None]:
        """Raises OSError."""
        return self.cgroup.usage(self._accounts.read), self._extent()

    def count(self) -> int:
        """Its descriptors, now that its files have been read."""
        self.descriptors = len(self._accounts) + (0 if self._log is None else 2)
        return self.descriptors

    def close(self) -> None:
        self._accounts.close()
        if self._log is not None:
            self._log.close()
            self._log = None

    def _extent(self) -> output.Extent | None:
        """As output.extent_of."""
        try:
            if self._log is None:
                self._log = output.open_log(self._files.log, self._files.index)
            return self._log.extent()
        except (OSError, WorkerError):
            return None
