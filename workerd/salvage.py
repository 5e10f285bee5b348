"""The database made again from the job directories (workerd.jobrecord).

At every start, so that it does not matter how a database lost jobs: it was damaged or
of a newer version and set aside, a power cut took its last commits, somebody removed
it, or a daemon died in the middle of this. A directory is removed before its job's row
is (workerd.removal), so one that the database does not know was never forgotten.
"""

from __future__ import annotations

import asyncio
import logging
import os
from pathlib import Path

from workerd import jobrecord
from workerd.events import changes, entries
from workerd.job import State
from workerd.jobrecord import Admission
from workerd.registry import Registry, now

log = logging.getLogger("workerd")


async def salvage(registry: Registry, state_dir: str, set_aside: Path | None) -> None:
    """Take in what the database lacks. Raises WorkerError where the store fails."""
    if set_aside is not None:
        log.critical(
            "THE DATABASE COULD NOT BE USED and is now %s: it is made again from the job directories", set_aside
        )
    known = await registry.call(lambda store: store.ids())
    found, unreadable = await asyncio.to_thread(read_unknown, f"{state_dir}/jobs", known)
    if found:
        events = entries(event for each in found for event in changes(None, each.job, now()))
        await registry.call(lambda store: store.insert_many([(each.job, each.env) for each in found], events))
        ended = sum(each.job.state is State.FINISHED for each in found)
        log.critical(
            "%d jobs were taken into the database from their directories, %d of them finished", len(found), ended
        )
    elif set_aside is not None:
        log.critical("no job directory has a record: earlier jobs are forgotten")
    for path in unreadable:
        log.error("%s is left alone: it is in no database and has no record that can be read", path)


def read_unknown(directory: str, known: frozenset[str]) -> tuple[list[Admission], list[str]]:
    """(the records of the jobs that are not known, in the order of their admission;
    the directories that have none); blocks."""
    found, unreadable = [], []
    for name in os.listdir(directory):
        if name in known:
            continue
        path = os.path.join(directory, name)
        try:
            record = jobrecord.load(path)
        except OSError as error:
            log.error("%s: %s", path, error.strerror)
            record = None
        if record is not None and record.job.id == name:
            found.append(record)
        else:
            unreadable.append(path)
    found.sort(key=lambda record: record.job.created)
    return found, unreadable
