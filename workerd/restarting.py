"""Whether a job that ended is tried again, and when; and one whose start was cut short. Pure.

As people know it from systemd and the container engines: the same job, with the same id;
each try that ended is kept in `tries`, its output is followed by the next one's in the
same log, and the offsets say where one ends. The wait before a try begins at 100 ms and
doubles up to a minute; a try that ran for ten seconds begins the series anew.

on-failure: after an exit code other than 0, a signal, want of memory, a time limit, or a
start that failed. always: after everything, and after a reboot. Neither: after a stop
that somebody asked for, nor where the very first start failed (whoever asked for it was
told). A job that is lost may have done its work, so only `always` tries it again.

A start that the daemon's own death cut short is none of these where the job had waited for
it: the command has not run, and nobody was told that it would not, so it is started again.
After the same series of waits, for what ends the daemon may be this very start.
"""

from __future__ import annotations

from workerd.job import Job, Reason, Restart, State, Try, change

FIRST_WAIT = 100_000
LONGEST_WAIT = 60_000_000
LONG_RUN = 10_000_000
"""microseconds"""
TRIES_KEPT = 20
"""the newest; `restarts` counts all"""


def wait_before_next(ended: Job) -> int | None:
    """Microseconds from the end of this try to the next; None where there is none."""
    policy = ended.spec.restart
    if ended.stop_requested or not _wanted(ended, policy.when):
        return None
    if policy.limit is not None and ended.restarts >= policy.limit:
        return None
    return _wait_after(_short_tries(ended))


def again(live: Job, ended: Job, wait: int, now: int, monotonic: int, output_end: int) -> Job:
    """The job as it waits for its next try. `live` is as it was before its end, `ended`
    as it would be finished; `now` and `monotonic` in microseconds."""
    this = Try(
        reason=ended.reason or Reason.LOST,
        started=ended.started,
        finished=ended.finished or now,
        exit_code=ended.exit_code,
        signal=ended.signal,
        detail=ended.detail,
        output_start=ended.tries[-1].output_end if ended.tries else 0,
        output_end=output_end,
    )
    tries = (*live.tries, this)[-TRIES_KEPT:]
    return _queued(live, wait, now, monotonic, restarts=live.restarts + 1, tries=tries, start_attempts=0)


def attempt(waiting: Job, boot_id: str) -> Job:
    """The job as it is taken out of the queue."""
    attempts = waiting.start_attempts + 1
    return change(waiting, State.STARTING, start_at=None, start_mono=None, start_attempts=attempts, boot_id=boot_id)


def starts_anew(cut_short: Job) -> bool:
    """Whether it goes back to the queue, out of a start that was cut short."""
    return cut_short.start_attempts > 0


def anew(cut_short: Job, now: int, monotonic: int) -> Job:
    """The job as it waits for that; microseconds."""
    return _queued(cut_short, _wait_after(cut_short.start_attempts - 1), now, monotonic)


def put_back(starting: Job, wait: int, now: int, monotonic: int) -> Job:
    """The job whose start could not even be recorded: that attempt was none."""
    return _queued(starting, wait, now, monotonic, start_attempts=starting.start_attempts - 1)


def _queued(live: Job, wait: int, now: int, monotonic: int, **fields: object) -> Job:
    """With nothing of the run that it had."""
    return change(
        live,
        State.QUEUED,
        start_at=now + wait,
        start_mono=monotonic + wait,
        started=None,
        stop=None,
        signaled=None,
        timed_out=None,
        clock=None,
        address=None,
        pid=None,
        pid_start=None,
        usage=None,
        **fields,
    )


def _wait_after(fails: int) -> int:
    """Microseconds before what failed so often in a row, and now once more, is tried again."""
    return min(FIRST_WAIT << min(fails, 16), LONGEST_WAIT)


def _wanted(ended: Job, when: Restart) -> bool:
    if (
        ended.reason is Reason.SKIPPED
        or when is Restart.NEVER
        or (ended.reason is Reason.START_FAILED and ended.restarts == 0)
    ):
        return False
    if when is Restart.ALWAYS:
        return True
    return ended.reason not in (Reason.LOST, Reason.STOPPED) and not (
        ended.reason is Reason.EXITED and ended.exit_code == 0
    )


def _short_tries(ended: Job) -> int:
    """How many of the newest tries, before this one, ran shortly; 0 if this one ran long."""
    if _ran_long(ended.started, ended.finished):
        return 0
    count = 0
    for tried in reversed(ended.tries):
        count += 1
        if _ran_long(tried.started, tried.finished):
            break
    return count


def _ran_long(started: int | None, finished: int | None) -> bool:
    return started is not None and finished is not None and finished - started >= LONG_RUN
