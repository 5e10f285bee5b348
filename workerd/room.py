"""How much a user could still be given, as `daemon.info` says. Pure.

Three bounds hold at once: the user's totals, the machine's totals, and what the machine
has. What counts is what the jobs that run asked for (as in workerd.schedule), not what
they happen to use: so what is said to be free stays free until it is asked for.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from workerd.config import Totals
from workerd.job import Job, State
from workerd.protocol import Room

Figure = TypeVar("Figure", int, float)


def rooms(uid: int, mine: Totals, machine: Totals, jobs: Iterable[Job], memory: int, cpus: float) -> tuple[Room, Room]:
    """(what the user could have at most, what is free of it now). `jobs` are all that are
    not finished; `memory` (bytes) and `cpus` are the host's own."""
    every = list(jobs)
    own = [job for job in every if job.uid == uid]
    host = Totals(memory=memory, cpus=cpus)
    bounds = ((mine, own), (machine, every), (host, every))
    whole = _narrowest([_room(totals, []) for totals, _ in bounds])
    return whole, _narrowest([_room(totals, counted) for totals, counted in bounds])


def _room(totals: Totals, jobs: list[Job]) -> Room:
    running = [job for job in jobs if job.state is not State.QUEUED]
    return Room(
        memory=_left(totals.memory, sum(job.spec.limits.memory or 0 for job in running)),
        cpus=_left(totals.cpus, sum(job.spec.limits.cpus or 0 for job in running)),
        jobs=_least(_left(totals.jobs, len(jobs)), _left(totals.max_running, len(running))),
    )


def _narrowest(found: list[Room]) -> Room:
    return Room(
        memory=_least(*(room.memory for room in found)),
        cpus=_least(*(room.cpus for room in found)),
        jobs=_least(*(room.jobs for room in found)),
    )


def _left(total: Figure | None, taken: Figure) -> Figure | None:
    return None if total is None else max(total - taken, type(total)(0))


def _least(*values: Figure | None) -> Figure | None:
    return min((value for value in values if value is not None), default=None)
