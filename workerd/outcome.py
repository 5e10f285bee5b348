"""From what PID 1 left behind to the fields of a finished job. Pure.

An outcome that is not known is `lost`; nothing here turns it into an exit code.
"""

from __future__ import annotations

import errno
import os
import signal
from typing import Any

from workerd import exitrecord
from workerd.job import Job, Reason, StartError, State
from workerd.jobrecord import Admission
from workerd.units import format_duration

_OF_AN_END = (
    *("reason", "exit_code", "signal", "detail", "start_error", "started", "finished", "duration"),
    *("usage", "output_end"),
)
"""fields of a job that its end fills"""


def judge(job: Job, record: exitrecord.Record | None, *, oom_killed: bool, now: int) -> dict[str, Any]:
    """The fields to change. `now` (microseconds) stands in for a time not recorded."""
    if cut_short(job, record, oom_killed=oom_killed):
        return interrupted((isinstance(record, exitrecord.NeverRan) and record.finished) or now)
    match record:
        case exitrecord.NeverRan(step="go", errno=errno.ECANCELED):
            return never_begun(record.finished or now)
        case exitrecord.NeverRan():
            error = StartError(record.step, record.errno, _words(record))
            return {"reason": Reason.START_FAILED, "start_error": error, "finished": record.finished or now}
        case exitrecord.Ended():
            return {
                "reason": _reason(job, record, oom_killed=oom_killed),
                "detail": _time_limit(job),
                "exit_code": record.exit_code,
                "signal": record.signal,
                "started": job.started or record.started,
                "finished": record.finished,
                "duration": record.duration,
                "output_end": record.output_end,
                "output_lost": record.output_lost,
            }
        case exitrecord.Started():
            return {
                "started": job.started or record.started,
                **_without_record(job, oom_killed=oom_killed, now=now),
            }
        case None if job.state is State.STOPPING and job.started is None and not oom_killed:
            return never_begun(now)
    return _without_record(job, oom_killed=oom_killed, now=now)


def cut_short(job: Job, record: exitrecord.Record | None, *, oom_killed: bool) -> bool:
    """Whether the daemon's own death ended the job's start before the command ran. It is
    certain: PID 1 has left no record, which it does before anything runs, or says so (as that
    of an earlier version does)."""
    match record:
        case None:
            return job.state is State.STARTING and not oom_killed
        case exitrecord.NeverRan(step="go", errno=errno.ECANCELED):
            return job.state is not State.STOPPING
    return False


def of_earlier_boot(kept: Admission | None, now: int) -> dict[str, Any]:
    """For a job of an earlier boot that the database has as live; `kept` is what its
    directory says: its end, where only the database's last commits were lost."""
    if kept is not None and kept.job.state is State.FINISHED:
        ended = kept.job
        return {name: getattr(ended, name) for name in _OF_AN_END}
    return {"reason": Reason.LOST, "detail": "reboot", "finished": now}


def never_begun(finished: int) -> dict[str, Any]:
    """For a job that was stopped before its command ran."""
    return {"reason": Reason.STOPPED, "detail": "before it started", "finished": finished}


def interrupted(now: int) -> dict[str, Any]:
    """For a job whose start the daemon's own death cut short."""
    error = StartError("init", 0, "workerd was stopped before the command was started")
    return {"reason": Reason.START_FAILED, "start_error": error, "finished": now}


def _reason(job: Job, record: exitrecord.Ended, *, oom_killed: bool) -> Reason:
    if oom_killed and record.signal == signal.SIGKILL:
        return Reason.OOM
    if _timed_out(job):
        return Reason.TIMEOUT
    if job.stop_requested:
        return Reason.STOPPED
    return Reason.EXITED if record.signal is None else Reason.SIGNALED


def _timed_out(job: Job) -> bool:
    """Whether its time limit, and nobody's wish, is stopping it."""
    return job.timed_out is not None and job.state is State.STOPPING and not job.stop_requested


def _time_limit(job: Job) -> str | None:
    if not _timed_out(job):
        return None
    if job.timed_out == "cpu-time":
        return f"{format_duration(job.spec.cpu_time or 0)} of CPU time"
    return format_duration(job.spec.timeout or 0)


def _without_record(job: Job, *, oom_killed: bool, now: int) -> dict[str, Any]:
    if oom_killed:
        # Where PID 1 could not be protected, it died with the rest of the job.
        return {"reason": Reason.OOM, "signal": int(signal.SIGKILL), "finished": now}
    if job.state is State.STOPPING:
        # Our own last resort, SIGKILL to PID 1, leaves no record and is no secret.
        reason = Reason.TIMEOUT if _timed_out(job) else Reason.STOPPED
        return {"reason": reason, "detail": _time_limit(job), "signal": int(signal.SIGKILL), "finished": now}
    return {"reason": Reason.LOST, "detail": "its PID 1 was killed from outside", "finished": now}


def _words(record: exitrecord.NeverRan) -> str:
    reason = os.strerror(record.errno) if record.errno else ""
    return ": ".join(part for part in (record.step, record.detail, reason) if part)
