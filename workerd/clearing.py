"""What is left of a dead job goes: its cgroup, and its run-time files.

Of a job that has ended as it should that is a matter of moments, and goes with the commit of its
end, in the store's thread (`Remains`). Else somebody may have to be killed, and waited for: that
is done in a thread of its own, once for all jobs that came meanwhile (`Clearing`). What cannot be
removed then is tried again when the next job has ended, and when workerd starts.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
from collections.abc import Sequence
from typing import NamedTuple

from workerd.jobcgroup import JobCgroup
from workerd.jobfiles import JobFiles

log = logging.getLogger("workerd")

_EMPTY_PATIENCE = 3.0
"""seconds in which a killed cgroup should be empty"""
_TRIES = 3


class _Asked(NamedTuple):
    cgroup: JobCgroup | None
    files: JobFiles
    gone: asyncio.Future[None] | None
    """None of what was tried before"""


class Remains:
    """Of one dead job. The cgroup stays its owner's to close."""

    def __init__(self, cgroup: JobCgroup | None, files: JobFiles) -> None:
        self.are_gone = False
        self._cgroup, self._files = cgroup, files

    def remove(self) -> None:
        """All of it, where nobody has to be killed or waited for, in any thread; what is left is for Clearing."""
        with contextlib.suppress(OSError):
            if self._cgroup is not None:
                self._cgroup.remove()
            self._files.remove_runtime()
            self.are_gone = True


class Clearing:
    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._asked: list[_Asked] = []
        self._leftovers: list[_Asked] = []
        self._working = False

    async def clear(self, cgroup: JobCgroup | None, files: JobFiles) -> None:
        """Returns once it was tried; what remains is in the log, and is tried again."""
        gone = self._loop.create_future()
        self._asked.append(_Asked(cgroup, files, gone))
        if not self._working:
            self._begin()
        await gone

    def retry(self) -> None:
        """Of what remained before: somebody may have ended by now."""
        if self._leftovers and not self._working:
            self._begin()

    def _begin(self) -> None:
        self._working = True
        remains = (*self._asked, *self._leftovers)
        self._asked, self._leftovers = [], []
        self._loop.run_in_executor(None, _clear_all, remains).add_done_callback(lambda done: self._done(remains, done))

    def _done(self, remains: Sequence[_Asked], done: asyncio.Future[list[bool]]) -> None:
        self._working = False
        if self._asked:
            self._begin()
        cleared = [False] * len(remains) if done.cancelled() else done.result()
        for each, is_gone in zip(remains, cleared, strict=True):
            if not is_gone:
                self._leftovers.append(each._replace(gone=None))
            if each.gone is not None and not each.gone.done():
                each.gone.set_result(None)


def _clear_all(remains: Sequence[_Asked]) -> list[bool]:
    return [_clear(each.cgroup, each.files) for each in remains]


def _clear(cgroup: JobCgroup | None, files: JobFiles) -> bool:
    """Remove a dead job's cgroup and run-time files, or say in the log why not; blocks.
    Can run twice."""
    if cgroup is not None:
        if not _remove_cgroup(cgroup):
            return False
        cgroup.close()
    try:
        files.remove_runtime()
    except OSError as error:
        log.error("%s remains: %s", files.runtime, error)
        return False
    return True


def _remove_cgroup(cgroup: JobCgroup) -> bool:
    """Kill what is in it until it can be removed: a first stage of worker-init that is
    only now about to clone gets in just before, or fails for want of its cgroup."""
    try:
        for _ in range(_TRIES):
            if _is_removed(cgroup):
                return True
            cgroup.kill()
            cgroup.wait_empty(_EMPTY_PATIENCE)
        if _is_removed(cgroup):
            return True
        log.error("%s remains: a process in it cannot be killed (state D, or out of reach)", cgroup.path)
    except OSError as error:
        log.error("%s remains: %s", cgroup.path, error)
    return False


def _is_removed(cgroup: JobCgroup) -> bool:
    """False where there are processes in it."""
    try:
        cgroup.remove()
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        return False
    return True
