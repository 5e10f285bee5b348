"""A start that the last daemon did not see through: PID 1 has had the word to go, or never
gets it and leaves. Which, its exit record says, before anything of the command runs."""

from __future__ import annotations

import asyncio
import logging

from workerd import exitrecord
from workerd.inotify import Inotify
from workerd.job import RunClock, State, change
from workerd.registry import Live, monotonic, now
from workerd.supervisor import Supervisor

log = logging.getLogger("workerd")


def takes_up(live: Live) -> bool:
    """Make a job that is recorded as starting a running one, where its command may run.
    False where that is not known yet."""
    try:
        record = exitrecord.read(live.files.exit)
    except OSError as error:
        log.warning("job %s: its exit record cannot be read yet: %s", live.job.id, error)
        return False
    if not isinstance(record, exitrecord.Ran):
        return False
    _runs(live, record.started)
    return True


def _runs(live: Live, started: int) -> None:
    live.job = change(live.job, State.RUNNING, started=started, clock=RunClock(0, monotonic()))


def follow(supervisor: Supervisor, live: Live) -> None:
    """Take it up as soon as its record says so; its end is watched for by others."""

    def look() -> None:
        if live.job.state is State.STARTING and takes_up(live):
            supervisor.registry.record_soon(live.job)
        if live.job.state is not State.STARTING and live.unwatch is not None:
            live.unwatch()
            live.unwatch = None
            supervisor.limit_watch.begin(live)

    if live.files.never_had_the_word():
        return  # and leaves
    try:
        inotify = Inotify(asyncio.get_running_loop())
        live.unwatch = inotify.close
        inotify.add(live.files.exit, look)
    except OSError as error:  # its record was removed, or cannot be watched: the command may run
        log.warning("job %s: taken up as running: %s", live.job.id, error)
        _runs(live, now())
        supervisor.registry.record_soon(live.job)
    look()  # after the watch is set: nothing is missed between the two
