"""After a restart of the daemon: every recorded job is taken up, once.

A job that is recorded as live is still that process, or has ended meanwhile (its exit
record tells), or was never started, or is lost. Then what belongs to nobody is removed;
a cgroup with processes always belongs to a job.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Container

import msgspec

from workerd import exitrecord, jobrecord, latestart, outcome, procfs
from workerd.events import changes, entries
from workerd.evidence import take_account
from workerd.job import Job, JobSpec, State
from workerd.jobcgroup import JobCgroup
from workerd.pausing import reconcile
from workerd.registry import Live, now
from workerd.stopping import Stopper
from workerd.supervisor import Supervisor

log = logging.getLogger("workerd")


async def recover(supervisor: Supervisor, stopper: Stopper) -> None:
    """Before the first request is served. Raises WorkerError where the store fails."""
    recorded = await supervisor.registry.call(lambda store: store.live())
    for job in recorded:
        await _take_up(supervisor, stopper, job)
    kept = {live.job.id for live in supervisor.registry if live.job.state is not State.QUEUED}
    strays, unrecorded = await asyncio.to_thread(_find_strays, supervisor, kept)
    await asyncio.gather(*(supervisor.clear_stray(cgroup, job_id) for job_id, cgroup in strays.items()))
    kept.update(job.id for job in unrecorded)
    await asyncio.to_thread(_remove_stray_files, supervisor, kept)
    for job in unrecorded:
        log.critical("job %s runs, but no record speaks of it: it is taken up as it is found", job.id)
        found = entries(changes(None, job, now()))
        await supervisor.registry.call(lambda store, job=job, found=found: store.insert(job, {}, found))  # type: ignore[misc]
        await _take_up(supervisor, stopper, job)
    await supervisor.totals.follow()
    await supervisor.network.recover(live.job for live in supervisor.registry if live.job.live)


async def _take_up(supervisor: Supervisor, stopper: Stopper, job: Job) -> None:
    live = Live(job, supervisor.files(job.id))
    supervisor.registry.add(live)
    if job.state is State.QUEUED:
        return
    if job.boot_id != supervisor.boot_id:
        kept = None
        with contextlib.suppress(OSError):
            kept = jobrecord.load(live.files.state)
        supervisor.settle_soon(live, outcome.of_earlier_boot(kept, now()))
        return
    with contextlib.suppress(FileNotFoundError):
        live.cgroup = supervisor.tree.open(job.id, job.uid)
    live.pidfd = _find_init(live)
    if live.pidfd < 0:
        account = take_account(live.cgroup)
        if _fence(live):
            supervisor.conclude_soon(live, account)
            return
        live.pidfd = _find_init(live)  # it got in just before
        if live.pidfd < 0:
            supervisor.conclude_when_gone(live, account)
            return
    await _adopt(supervisor, stopper, live)


def _fence(live: Live) -> bool:
    """Whether the cgroup is removed: a first stage of worker-init that is only now about
    to clone then fails, so that the outcome which is found next is the last word. False
    where something is in it."""
    if live.cgroup is not None:
        try:
            live.cgroup.remove()
        except OSError:
            return False
    return True


async def _adopt(supervisor: Supervisor, stopper: Stopper, live: Live) -> None:
    recorded = live.job
    late = live.job.state is State.STARTING and not latestart.takes_up(live)
    reconcile(live)
    if live.job is not recorded:
        await supervisor.registry.record(live.job)
    supervisor.watch(live)
    if late:
        latestart.follow(supervisor, live)
    if live.job.state is State.STOPPING:
        stopper.resume(live)


def _find_init(live: Live) -> int:
    """A pidfd of the job's PID 1, or -1. The cgroup says whose process it is: only the
    daemon puts processes there, and a pid that was reused would not be in it."""
    if live.cgroup is None:
        return -1
    for pid in live.cgroup.procs():
        if not procfs.is_namespace_init(pid):
            continue
        try:
            pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        if pid in live.cgroup.procs():
            if live.job.pid != pid or live.job.pid_start is None:
                live.job = msgspec.structs.replace(live.job, pid=pid, pid_start=procfs.start_ticks(pid))
            return pidfd
        os.close(pidfd)
    return -1


def _find_strays(supervisor: Supervisor, kept: Container[str]) -> tuple[dict[str, JobCgroup], list[Job]]:
    """The cgroups, by job id, of jobs other than `kept`, and the jobs that the database lost:
    those whose cgroup has processes. Blocks."""
    registry, tree = supervisor.registry, supervisor.tree
    strays, unrecorded = {}, []
    for uid, job_id in tree.scan():
        if job_id in kept:
            continue
        with contextlib.suppress(FileNotFoundError):
            cgroup = tree.open(job_id, uid)
            if registry.get(job_id) is None and cgroup.populated() and not _waits_to_go(supervisor, job_id):
                unrecorded.append(_as_found(job_id, uid, cgroup.procs(), supervisor.boot_id))
                cgroup.close()
            else:
                strays[job_id] = cgroup
    return strays, unrecorded


def _waits_to_go(supervisor: Supervisor, job_id: str) -> bool:
    """Whether there is no more in it than a PID 1 whose job was not recorded when the last
    daemon died: it has not said that it runs a command, and never does."""
    files = supervisor.files(job_id)
    return os.path.isdir(files.runtime) and not isinstance(exitrecord.read(files.exit), exitrecord.Ran)


def _remove_stray_files(supervisor: Supervisor, kept: Container[str]) -> None:
    """The run-time files of all jobs but these; blocks."""
    with contextlib.suppress(FileNotFoundError):
        for name in os.listdir(os.path.dirname(supervisor.files("any").runtime)):
            if name not in kept:
                supervisor.files(name).remove_runtime()


def _as_found(job_id: str, uid: int, pids: list[int], boot_id: str) -> Job:
    """A running job of which nothing is known but its processes."""
    commands = [pid for pid in pids if not procfs.is_namespace_init(pid)]
    argv = procfs.command_line(commands[0]) if commands else ()
    gid, groups = procfs.groups(commands[0]) if commands else (uid, ())
    return Job(
        id=job_id,
        uid=uid,
        gid=gid,
        groups=groups,
        spec=JobSpec(argv=argv or ("(unknown)",)),
        state=State.STARTING,
        created=now(),
        boot_id=boot_id,
        warnings=("its record was lost: what is shown of it is what was found of its processes",),
    )
