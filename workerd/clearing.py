"""What is left of a dead job goes: its cgroup, and its run-time files.

The kernel may take its time for a cgroup, so it is done in a thread; and once for all
jobs that end meanwhile, so that a thousand short jobs are not a thousand ways there and
back. What cannot be removed now is tried again with the next one, and when workerd starts.
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


class _Remains(NamedTuple):
    cgroup: JobCgroup | None
    files: JobFiles
    gone: asyncio.Future[None] | None
    """None of what was tried before"""


class Remains:
    """Of one dead job: what goes without anybody being waited for goes by `remove`, in any thread."""

    def __init__(self, cgroup: JobCgroup | None, files: JobFiles) -> None:
        self.are_gone = False
        self._cgroup, self._files = cgroup, files

    def remove(self) -> None:
        with contextlib.suppress(OSError):
            if self._cgroup is not None:
                self._cgroup.remove()
            self._files.remove_runtime()
            self.are_gone = True


class Clearing:
    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._asked: list[_Remains] = []
        self._leftovers: list[_Remains] = []
        self._working = False

    async def clear(self, cgroup: JobCgroup | None, files: JobFiles) -> None:
        """Returns once it was tried; what remains is in the log, and is tried again."""
        gone = self._loop.create_future()
        self._asked.append(_Remains(cgroup, files, gone))
        if not self._working:
            self._begin()
        await gone

    def _begin(self) -> None:
        self._working = True
        remains = (*self._asked, *self._leftovers)
        self._asked, self._leftovers = [], []
        self._loop.run_in_executor(None, _clear_all, remains).add_done_callback(lambda done: self._done(remains, done))

    def _done(self, remains: Sequence[_Remains], done: asyncio.Future[list[bool]]) -> None:
        self._working = False
        if self._asked:
            self._begin()
        cleared = [False] * len(remains) if done.cancelled() else done.result()
        for each, is_gone in zip(remains, cleared, strict=True):
            if not is_gone:
                self._leftovers.append(each._replace(gone=None))
            if each.gone is not None and not each.gone.done():
                each.gone.set_result(None)


def _clear_all(remains: Sequence[_Remains]) -> list[bool]:
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
