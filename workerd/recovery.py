"""After a restart of the daemon: every recorded job is taken up, once.

A job that is recorded as live is still that process, or has ended meanwhile (its exit
record tells), or was never started, or is lost. Then what belongs to nobody is removed.
"""

from __future__ import annotations

import asyncio
import contextlib
import os

import msgspec

from workerd import exitrecord, outcome, procfs
from workerd.job import Job, RunClock, State, change
from workerd.pausing import reconcile
from workerd.registry import Live, monotonic, now
from workerd.stopping import Stopper
from workerd.supervisor import Supervisor, clear


async def recover(supervisor: Supervisor, stopper: Stopper) -> None:
    """Before the first request is served. Raises WorkerError where the store fails."""
    for job in await supervisor.registry.call(lambda store: store.live()):
        await _take_up(supervisor, stopper, job)
    await supervisor.network.recover(live.job for live in supervisor.registry if live.job.live)
    await asyncio.to_thread(_remove_strays, supervisor)


async def _take_up(supervisor: Supervisor, stopper: Stopper, job: Job) -> None:
    live = Live(job, supervisor.files(job.id))
    supervisor.registry.add(live)
    if job.state is State.QUEUED:
        return
    if job.boot_id != supervisor.boot_id:
        await supervisor.settle(live, outcome.rebooted(now()))
        return
    with contextlib.suppress(FileNotFoundError):
        live.cgroup = supervisor.tree.open(job.id, job.uid)
    live.pidfd = _find_init(live)
    if live.pidfd < 0 and job.state is State.STARTING and exitrecord.read(live.files.exit) is None:
        # A first stage that is only now about to clone finds its cgroup gone, and fails.
        await supervisor.settle(live, outcome.interrupted(now()))
    elif live.pidfd < 0:
        await supervisor.conclude(live)
    else:
        await _adopt(supervisor, stopper, live)


async def _adopt(supervisor: Supervisor, stopper: Stopper, live: Live) -> None:
    recorded = live.job
    if live.job.state is State.STARTING:
        live.job = change(live.job, State.RUNNING, started=now(), clock=RunClock(0, monotonic()))
    reconcile(live)
    if live.job is not recorded:
        await supervisor.registry.record(live.job)
    supervisor.watch(live)
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
            live.job = msgspec.structs.replace(live.job, pid=pid, pid_start=procfs.start_ticks(pid))
            return pidfd
        os.close(pidfd)
    return -1


def _remove_strays(supervisor: Supervisor) -> None:
    """cgroups and run-time files of jobs that are not live."""
    tree = supervisor.tree
    live = {live.job.id for live in supervisor.registry if live.job.live}
    for uid, job_id in tree.scan():
        if job_id not in live:
            with contextlib.suppress(FileNotFoundError):
                clear(tree.open(job_id, uid), supervisor.files(job_id))
    with contextlib.suppress(FileNotFoundError):
        for name in os.listdir(os.path.dirname(supervisor.files("any").runtime)):
            if name not in live:
                supervisor.files(name).remove_runtime()
