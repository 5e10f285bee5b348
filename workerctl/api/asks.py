"""What both clients ask of the daemon: each call's method, parameters and kind of answer.

Arguments are as programs give them (a job or its id, seconds, words), parameters as the
protocol has them. Raises InvalidParams for a value that cannot be meant.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

from workerctl.api.options import HasId, JobRef, Words, ref, update_limits, words
from workerctl.api.quantity import Duration, maybe_duration
from workerd import protocol
from workerd.job import Job, Limits, Reason, State
from workerd.protocol import Params

T = TypeVar("T")

JobRefs = Collection[HasId] | list[str] | tuple[str, ...] | set[str] | frozenset[str]
"""several jobs; not a single str, which is a collection of letters"""


class Ask(NamedTuple, Generic[T]):
    method: str
    params: Params
    result: type[T]


def is_several(jobs: JobRef | JobRefs) -> bool:
    return isinstance(jobs, Collection) and not isinstance(jobs, str)


def status(job: JobRef) -> Ask[Job]:
    return Ask("job.status", protocol.JobParams(ref(job)), Job)


def page(
    *,
    all: bool,
    states: Iterable[State | str],
    labels: Mapping[str, str | None],
    before: str | None,
) -> Ask[protocol.ListResult]:
    wanted = tuple(State(state) for state in states)
    params = protocol.ListParams(all=all, states=wanted, labels=dict(labels), before=before)
    return Ask("job.list", params, protocol.ListResult)


def wait(jobs: JobRef | JobRefs, *, any: bool, timeout: Duration | None) -> Ask[protocol.WaitResult]:
    many: Collection[JobRef] = jobs if isinstance(jobs, Collection) and not isinstance(jobs, str) else (jobs,)
    params = protocol.WaitParams(tuple(ref(job) for job in many), any=any, timeout=maybe_duration(timeout, "timeout"))
    return Ask("job.wait", params, protocol.WaitResult)


def stop(job: JobRef, signal: int | None, grace: Duration | None) -> Ask[Job]:
    return Ask("job.stop", protocol.StopParams(ref(job), signal=signal, grace=maybe_duration(grace, "grace")), Job)


def kill(job: JobRef, signal: int, *, all: bool) -> Ask[Job]:
    return Ask("job.kill", protocol.KillParams(ref(job), signal=signal, all=all), Job)


def pause(job: JobRef) -> Ask[Job]:
    return Ask("job.pause", protocol.JobParams(ref(job)), Job)


def resume(job: JobRef) -> Ask[Job]:
    return Ask("job.resume", protocol.JobParams(ref(job)), Job)


def update(
    job: JobRef, limits: Limits | None, more: Mapping[str, Any], lift: Sequence[str], timeout: Duration | None
) -> Ask[Job]:
    wanted = update_limits(limits or Limits(), more)
    params = protocol.UpdateParams(ref(job), wanted, tuple(lift), maybe_duration(timeout, "timeout"))
    return Ask("job.update", params, Job)


def rerun(job: JobRef) -> Ask[protocol.RunResult]:
    return Ask("job.rerun", protocol.JobParams(ref(job)), protocol.RunResult)


def rename(job: JobRef, name: str | None) -> Ask[Job]:
    return Ask("job.rename", protocol.RenameParams(ref(job), name), Job)


def remove(job: JobRef, *, force: bool) -> Ask[Job]:
    return Ask("job.remove", protocol.RemoveParams(ref(job), force), Job)


def prune(
    *,
    older_than: Duration | None,
    keep: int | None,
    reasons: Iterable[Reason | str],
    labels: Mapping[str, str | None],
    dry_run: bool,
) -> Ask[protocol.PruneResult]:
    age = maybe_duration(older_than, "older_than")
    params = protocol.PruneParams(age, keep, tuple(Reason(reason) for reason in reasons), dict(labels), dry_run)
    return Ask("job.prune", params, protocol.PruneResult)


def open_output(job: JobRef) -> Ask[protocol.OutputOpenResult]:
    return Ask("output.open", protocol.JobParams(ref(job)), protocol.OutputOpenResult)


def wait_output(job: JobRef, offset: int, timeout: Duration | None) -> Ask[protocol.OutputWaitResult]:
    params = protocol.OutputWaitParams(ref(job), offset, maybe_duration(timeout, "timeout"))
    return Ask("output.wait", params, protocol.OutputWaitResult)


def subscription(cursor: str, *, all: bool, jobs: Sequence[JobRef]) -> protocol.SubscribeParams:
    return protocol.SubscribeParams(cursor, all, tuple(ref(job) for job in jobs))


def execute(
    job: JobRef, command: Words, env: Mapping[str, str] | None, cwd: str | None, *, stdin: bool
) -> Ask[protocol.ExecResult]:
    params = protocol.ExecParams(ref(job), words(command), dict(env or {}), cwd, stdin=stdin, fds=2 + stdin)
    return Ask("job.exec", params, protocol.ExecResult)


def info() -> Ask[protocol.InfoResult]:
    return Ask("daemon.info", protocol.InfoParams(), protocol.InfoResult)


def only(result: protocol.WaitResult) -> Job:
    """The one job that was waited for. Raises TimeoutError where it is not finished."""
    if not result.finished:
        raise TimeoutError(f"job {result.pending[0]} is not finished")
    return result.finished[0]
