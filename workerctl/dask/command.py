"""The Dask task that is a command: hands it to the machine's workerd, and waits there.

It asks the ledger before anything else, since Dask runs a task again whenever it thinks
that it has to. The job's labels say which task it is of, so that a restarted worker finds
the job that its predecessor began.
"""

from __future__ import annotations

import os
from typing import Any

import msgspec
from distributed import Reschedule, get_worker

from workerctl.dask import ids, machine, resources
from workerctl.dask.daemon import Plain, error_of, plain
from workerctl.dask.machine import Machine
from workerd.errors import ConnectionFailed, InvalidParams, NotRunning, WorkerError
from workerd.job import Job, Reason


class CommandFailed(WorkerError):
    """A command that was to succeed (`check=True`) did not. `job` says how it ended."""

    kind = "command-failed"

    def __init__(self, message: str, job: Job | None = None) -> None:
        super().__init__(message)
        self.job = job


async def run_command(key: str, request: Plain, argv: list[Any], after: list[Any]) -> Job:
    """`request` is job.run's parameters without the argv. `argv` and `after` are the results
    of the tasks that this one depends on, and plain words. Raises what the daemon answers,
    CommandFailed."""
    worker = get_worker()
    here = machine.of(worker)
    name = here.name if here is not None else ""
    claim = await worker.scheduler.workerctl_claim(key=key, machine=name, worker=worker.address)
    check = bool(request.get("check"))
    match claim["verdict"]:
        case "done":
            return _result(claim["job"], claim["error"], check=check)
        case "lost":
            return _result(lost_job(claim), None, check=check)
        case "elsewhere":
            raise Reschedule
    if here is None:
        raise NotRunning("this Dask worker runs no commands: start it with --preload workerctl.dask")
    request = with_words(request, argv)
    try:
        job = await _run(worker, here, key, request, claim)
    except WorkerError as error:
        await worker.scheduler.workerctl_refused(key=key, error=plain(error))
        raise
    if await worker.scheduler.workerctl_finished(key=key, job=job):
        raise Reschedule
    return _result(job, None, check=check)


async def _run(worker: Any, here: Machine, key: str, request: Plain, claim: Plain) -> Plain:
    """The finished job, as those outside know it."""
    labels = {ids.LABEL: key, ids.TRY_LABEL: str(claim["attempt"])}
    begun = await _find(here, labels) if claim["verdict"] == "adopt" else None
    if begun is None:
        begun = await _begin(here, request, labels)
    here.hold(key, resources.wanted(request["spec"]))
    try:
        here.secede(key)
        await worker.scheduler.workerctl_placed(
            key=key, job=begun["id"], warnings=begun.get("warnings", []), waits_for=begun.get("waits_for")
        )
        answer = await here.daemon.call_patiently("job.wait", {"ids": [begun["id"]]})
    finally:
        here.release(key)
    return ids.outward(answer["finished"][0], here.name)


async def _begin(here: Machine, request: Plain, labels: dict[str, str]) -> Plain:
    """Where the daemon goes away while it is asked, the job may be there all the same."""
    spec = {**request["spec"], "labels": {**request["spec"].get("labels", {}), **labels}}
    params = {**{name: value for name, value in request.items() if name != "check"}, "spec": spec}
    try:
        return await here.daemon.call("job.run", params)
    except ConnectionFailed:
        found = await _find(here, labels)
        return found or await here.daemon.patiently(lambda: here.daemon.call("job.run", params))


async def _find(here: Machine, labels: dict[str, str]) -> Plain | None:
    answer = await here.daemon.call_patiently("job.list", {"all": True, "labels": labels, "limit": 1})
    return answer["jobs"][0] if answer["jobs"] else None


def with_words(request: Plain, argv: list[Any]) -> Plain:
    """The request with its argv, once the tasks that it comes from are done."""
    words = []
    for word in argv:
        if isinstance(word, (str, int, float, os.PathLike)) and not isinstance(word, bool):
            words.append(os.fspath(word) if isinstance(word, os.PathLike) else str(word))
        else:
            raise InvalidParams(f"a command's word is text, a number or a path, not {type(word).__name__}")
    return {**request, "spec": {**request["spec"], "argv": words}}


def lost_job(view: Plain) -> Plain:
    """How a job is shown whose machine is gone, from the ledger's word on it."""
    asked = view["asked"]
    name = f"machine {view['machine']}"
    job_id = view["job_id"] or view["key"].removeprefix(ids.KEY_PREFIX)
    return {
        "id": ids.join(view["machine"], job_id),
        "uid": asked.get("uid", 0),
        "gid": 0,
        "groups": [],
        "spec": asked["spec"],
        "state": "finished",
        "reason": str(Reason.LOST),
        "detail": name,
        "created": asked.get("created", 0),
    }


def _result(job: Plain | None, error: Plain | None, *, check: bool) -> Job:
    if job is None:
        raise error_of(error or {})
    found = msgspec.convert(job, Job)
    if check and not found.succeeded:
        raise CommandFailed(f"job {found.id}: {' '.join(found.spec.argv[:1])} {found.ending}", found)
    return found
