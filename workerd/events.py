"""What happens to jobs, as subscribers are told it. Pure; no clock.

An event is made where two states of a job that are recorded one after the other differ,
and is committed with the second one: neither is ever there without the other.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable

import msgspec
from msgspec import Struct

from workerd.job import Job, Reason, State, Usage

_LONGEST_DETAIL = 400


class EventKind(enum.StrEnum):
    STATE = "state"
    """the job came into `state`, for the first time or from another one"""
    RETRY = "retry"
    """a try ended, as the other fields say, and the job is queued for the next one"""
    OOM = "oom"
    """the kernel killed processes of the job for want of memory; the job may go on"""
    LIMIT = "limit"
    """the job ran against its limit of memory or of processes"""
    RENAMED = "renamed"
    UPDATED = "updated"
    """its limits were changed; `detail` names them"""
    REMOVED = "removed"
    """its record and output are gone"""
    GAP = "gap"
    """events before the next one are not kept any more; `detail` says why. Of no job"""


class Event(Struct, frozen=True, omit_defaults=True):
    """`name`, `state` and the fields after it are the job's, once the event has happened."""

    kind: EventKind
    time: int
    """when it was recorded: microseconds since the epoch"""
    cursor: str = ""
    """to go on from behind this event"""
    id: str | None = None
    uid: int | None = None
    name: str | None = None
    state: State | None = None
    reason: Reason | None = None
    exit_code: int | None = None
    signal: int | None = None
    """that ended it; of a job that is stopping, the one it was sent"""
    detail: str | None = None
    limit: str | None = None
    """`memory` or `pids`"""
    count: int | None = None
    """of oom and limit: how often by now, in this try"""
    restarts: int = 0
    """how often it was tried again by now"""


class Entry:
    """An event on its way into the record, where it is to be written once, however often
    that is tried. Changed by the store's thread alone."""

    __slots__ = ("event", "written")

    def __init__(self, event: Event) -> None:
        self.event = event
        self.written = False


def entries(events: Iterable[Event]) -> tuple[Entry, ...]:
    return tuple(map(Entry, events))


def changes(before: Job | None, after: Job, time: int, used: Usage | None = None) -> tuple[Event, ...]:
    """What happened between two states of a job, in order. `before` is None for a new
    job; `used` is what its last try had used, where it is to be tried again."""
    if before is None:
        return (_of_state(after, time),)
    found = []
    if before.state is State.STARTING and _ran(before, after):
        # It began and ended while no daemon was there to see it.
        before = msgspec.structs.replace(before, state=State.RUNNING)
        found.append(_of_state(before, time))
    found += _counted(before, after, used or after.usage, time)
    if after.restarts > before.restarts:
        found.append(_retry(after, time))
    elif after.state is not before.state:
        found.append(_of_state(after, time))
    if after.spec is not before.spec:
        found += _updated(before, after, time)
    return tuple(found)


def removed(job_id: str, uid: int, name: str | None, state: State, time: int) -> Event:
    return Event(EventKind.REMOVED, time, id=job_id, uid=uid, name=name, state=state)


def counts_of(usage: Usage | None) -> tuple[int, int, int]:
    """(OOM kills, memory.max reached, pids.max reached)"""
    if usage is None:
        return 0, 0, 0
    return usage.oom_kills or 0, usage.memory_max_hits or 0, usage.pids_max_hits or 0


def _ran(before: Job, after: Job) -> bool:
    """Whether the command of a job that was starting has run, and ended by now."""
    if after.restarts > before.restarts:
        return after.tries[-1].started is not None
    return after.state is State.FINISHED and after.started is not None


def _counted(before: Job, after: Job, used: Usage | None, time: int) -> list[Event]:
    """Where it is now above what was told before. The kernel counts from 0 in each try."""
    told, now = counts_of(before.usage), counts_of(used)
    found: list[Event] = []
    if now == told:
        return found
    kinds = ((EventKind.OOM, None), (EventKind.LIMIT, "memory"), (EventKind.LIMIT, "pids"))
    # The limit that was reached comes before the kill that it led to.
    for place in (1, 2, 0):
        kind, limit = kinds[place]
        if now[place] > told[place]:
            # Before its end, for it had not ended then.
            found.append(_event(kind, before, time, limit=limit, count=now[place]))
    return found


def _of_state(job: Job, time: int) -> Event:
    fields: dict[str, object] = {}
    if job.state is State.FINISHED:
        detail = job.start_error.message if job.start_error is not None else job.detail
        fields = {"reason": job.reason, "exit_code": job.exit_code, "signal": job.signal, "detail": _short(detail)}
    elif job.state is State.STOPPING:
        detail = "asked for" if job.stop_requested else job.timed_out
        fields = {"signal": job.stop.signal if job.stop else None, "detail": detail}
    elif job.state is State.PAUSED:
        fields = {"detail": job.timed_out}
    return _event(EventKind.STATE, job, time, **fields)


def _retry(job: Job, time: int) -> Event:
    last = job.tries[-1]
    return _event(
        EventKind.RETRY,
        job,
        time,
        reason=last.reason,
        exit_code=last.exit_code,
        signal=last.signal,
        detail=_short(last.detail),
    )


def _updated(before: Job, after: Job, time: int) -> list[Event]:
    found = []
    if after.spec.name != before.spec.name:
        was = f"was {before.spec.name}" if before.spec.name else "had no name"
        found.append(_event(EventKind.RENAMED, after, time, detail=was))
    if changed := _changed_limits(before, after):
        found.append(_event(EventKind.UPDATED, after, time, detail=", ".join(changed)))
    return found


def _changed_limits(before: Job, after: Job) -> list[str]:
    """The names of the fields of the spec's limits, and `timeout`."""
    was, now = before.spec.limits, after.spec.limits
    found = [name for name in now.__struct_fields__ if getattr(was, name) != getattr(now, name)]
    return [*found, "timeout"] if before.spec.timeout != after.spec.timeout else found


def _event(kind: EventKind, job: Job, time: int, **fields: object) -> Event:
    event = Event(kind, time, id=job.id, uid=job.uid, name=job.spec.name, state=job.state, restarts=job.restarts)
    return msgspec.structs.replace(event, **fields) if fields else event


def _short(text: str | None) -> str | None:
    return text if text is None or len(text) <= _LONGEST_DETAIL else text[: _LONGEST_DETAIL - 1] + "…"
