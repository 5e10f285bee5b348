"""The life of a job: started, watched, ended.

All changes of a job's state go through `job.change` and are recorded. What must hold:
the record says `starting` before the command may run, while all else may be there (a
PID 1 that still waits for that leaves when the daemon dies); a job's exit record and
cgroup stay until its outcome is committed, so that a daemon that dies in between
finds the same outcome again (workerd.recovery).
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
from collections.abc import Callable, Coroutine, Iterator
from typing import NamedTuple

import msgspec

from workerd import admission, evidence, jobfiles, launcher, outcome, procfs, restarting, sandbox, trylog
from workerd.cgroup import CgroupTree
from workerd.clearing import Clearing, Remains
from workerd.comingfiles import ComingOutput, ComingRuntime, open_output
from workerd.errors import StartFailed, WorkerError, as_worker_error
from workerd.evidence import Account
from workerd.followers import Followers
from workerd.job import Job, Net, Reason, Restart, RunClock, StartError, State, Usage, change
from workerd.jobcgroup import JobCgroup
from workerd.jobfiles import JobFiles
from workerd.limitwatch import LimitWatch
from workerd.network import Network
from workerd.output import extent_of
from workerd.registry import Live, Registry, monotonic, now
from workerd.retrying import until_possible
from workerd.slowcalls import SlowCalls
from workerd.usertotals import UserTotals

log = logging.getLogger("workerd")

NETS = frozenset(Net)
"""network modes that there are"""
_PATH_PATIENCE = 10.0
"""seconds that looking up a path of the caller's may take"""
_START_AGAIN = 5_000_000
"""microseconds after which a waiting job is started again whose start could not be recorded"""
_WATCH_AGAIN = 0.5
"""seconds after which it is tried again to watch a job"""


class Place(NamedTuple):
    """Where the daemon keeps what; absolute paths."""

    state_dir: str
    runtime_dir: str
    init_path: str
    hidden: tuple[str, ...] = ()
    """files and directories, beside these two, that no job may see"""


class Supervisor:
    def __init__(
        self, place: Place, registry: Registry, tree: CgroupTree, followers: Followers, tasks: asyncio.TaskGroup
    ) -> None:
        self.place = place
        self.registry = registry
        self.tree = tree
        self.boot_id = procfs.boot_id()
        self._followers = followers
        self._tasks = tasks
        self._loop = asyncio.get_running_loop()
        self.network = Network(place.runtime_dir, lambda: registry.config.policy.network)
        self.totals = UserTotals(registry, tree)
        self.limit_watch = LimitWatch(registry, tasks)
        self._slow = SlowCalls()
        self._lasting: set[asyncio.Task[object]] = set()
        self.cleared: Callable[[Live], None] = lambda live: None
        """called when nothing is left of the last try of a job that is to run again"""
        self._clearing = Clearing()
        self._running: dict[int, Live] = {}
        """by the pid of PID 1, from its start to its end"""
        self.launcher = launcher.Launcher(
            self._loop, place.init_path, (place.state_dir, place.runtime_dir, *place.hidden), self._ending
        )

    def close(self) -> None:
        """Let go of everything; the jobs run on."""
        for task in tuple(self._lasting):
            task.cancel()
        self.launcher.close()
        for live in self.registry:
            self.registry.release(live)
        self.limit_watch.close()

    def files(self, job_id: str) -> JobFiles:
        return JobFiles(self.place.state_dir, self.place.runtime_dir, job_id)

    async def run(self, job: Job, env: dict[str, str], stdin: int | None, window: tuple[int, int]) -> Job:
        """Start a new job, which is `starting`; it runs, or StartFailed (or another
        WorkerError) is raised. `stdin` stays the caller's; `window` are the rows and
        columns of its terminal."""
        live = Live(job, self.files(job.id))
        live.window = window
        self.registry.take_in(live)
        output = ComingOutput(lambda made: self.registry.insert(live, env, lambda: open_output(live, made)))
        try:
            await self._start(live, env, await self._prepared(live), output, stdin)
        except BaseException:
            self.registry.discard(job.id)
            raise
        return live.job

    async def enqueue(self, live: Live, env: dict[str, str]) -> None:
        """Record a job that is to wait; its output can be followed from now on. Raises WorkerError."""
        self.registry.take_in(live)
        await self.registry.insert(live, env, lambda: jobfiles.open_output(live.files).close())

    async def start_waiting(self, live: Live) -> None:
        """Start a job that waited, and is `starting` now. Nobody is there to be told of a
        failure: it is the job's outcome. Where not even that it starts can be recorded
        (a full disk, say), it waits on."""
        job_id = live.job.id
        try:
            await self.registry.record(live.job)
            env = await self.registry.call(lambda store: store.environ(job_id))
        except WorkerError as error:
            log.error("job %s waits on: %s", job_id, error)
            self._wait_on(live)
            return
        try:
            output = ComingOutput(lambda made: self.registry.call(lambda store: open_output(live, made)))
            try:
                await output.files()
                prepared = await self._prepared(live)
            except (WorkerError, OSError) as error:
                output.close()
                await self._start_failed(live, error)
                return
            await self._start(live, env, prepared, output, None)
        except (WorkerError, OSError) as error:
            log.info("job %s: %s", job_id, error)

    def _wait_on(self, live: Live) -> None:
        if live.job.state is State.STARTING:
            live.job = restarting.put_back(live.job, _START_AGAIN, now(), monotonic())
            self.cleared(live)

    async def _prepared(self, live: Live) -> JobCgroup | None:
        """As `_prepare`, undone where it fails; None where the job is to be stopped by now."""
        if live.job.state is State.STOPPING:
            return None
        try:
            return await self._prepare(live)
        except BaseException:
            await self._undo(live)
            raise

    async def _start(
        self,
        live: Live,
        env: dict[str, str],
        cgroup: JobCgroup | None,
        output: ComingOutput,
        stdin: int | None,
    ) -> None:
        if cgroup is None:
            await output.files()
            output.close()
            await self.settle(live, outcome.never_begun(now()))
            return
        runtime = ComingRuntime(live.files, tty=live.job.spec.tty)
        env = {**env, "WORKER_JOB_ID": live.job.id}
        max_output = live.job.spec.max_output or admission.NO_CAP
        launch = launcher.Launch(
            live.job, env, cgroup.fd, runtime.files, output.files, max_output, stdin, window=live.window
        )
        try:
            if live.job.spec.net is Net.BRIDGE:
                runtime.files()  # a stop that comes meanwhile is told through them
                await output.files()  # it is recorded with its address next
                launch = await self._with_network(live, launch)
            started = await self.launcher.start(launch)
        except (WorkerError, OSError) as error:
            if await output.is_recorded():
                await self._start_failed(live, error)
            else:
                await self._clear(live)
            if isinstance(error, OSError):
                raise as_worker_error(error) from error
            raise
        finally:
            runtime.close()
            output.close()
        # From here on nothing may fail: the command runs.
        live.pidfd = started.pidfd
        self._running[started.pid] = live
        fields = {"started": now(), "pid": started.pid, "pid_start": started.start_ticks}
        if live.job.state is State.STARTING:
            live.job = change(live.job, State.RUNNING, clock=RunClock(0, monotonic()), **fields)
        else:  # stopped meanwhile
            live.job = msgspec.structs.replace(live.job, **fields)
        # Nobody waits for this commit: a daemon that dies before it finds the job running
        # in its cgroup, and takes it up as that (workerd.recovery).
        self.registry.record_soon(live.job)
        self.watch(live)

    async def _prepare(self, live: Live) -> JobCgroup:
        """With its limits, and the directory of its run-time files. Raises WorkerError."""
        job = live.job
        try:
            self.totals.hold(job)
            live.cgroup = self.tree.create(job.id, job.uid)
            apply = functools.partial(live.cgroup.apply, job.spec.limits, (job.gid, *job.groups))
            if any("/" in (limit.device or "") for limit in job.spec.limits.io):
                effective, warnings = await self._slow.call(apply, "the I/O limit's path", _PATH_PATIENCE)
            else:
                effective, warnings = apply()
            live.job = msgspec.structs.replace(live.job, effective=effective, warnings=warnings)
            live.files.make_runtime()
            return live.cgroup
        except OSError as error:
            raise as_worker_error(error) from error

    async def _with_network(self, live: Live, launch: launcher.Launch) -> launcher.Launch:
        """With an address, and what it takes to be connected. Raises WorkerError, OSError."""
        lease = await self.network.lease(live.job)
        warnings = (*live.job.warnings, *lease.warnings)
        live.job = msgspec.structs.replace(live.job, address=lease.address, warnings=warnings)
        await self.registry.record(live.job)  # a restarted daemon claims the address from there
        files = live.files
        files.write_names(lease.resolv_conf, lease.hosts)
        seen = ((files.resolv_conf, "/etc/resolv.conf"), (files.hosts, "/etc/hosts"))
        interface = sandbox.Interface(f"{lease.address}/{lease.prefix}", lease.gateway, seen)
        return launch._replace(job=live.job, interface=interface, connect=lambda pid: self.network.connect(lease, pid))

    async def _undo(self, live: Live) -> None:
        """Nothing of a try that never ran stays behind, nor of its job but the record, where
        it is the first."""
        await self.network.release(live.job)
        await self._clear(live)
        if live.job.restarts > 0:
            return
        try:
            live.files.remove_output()
        except OSError as error:
            log.error("job %s: its empty output remains: %s", live.job.id, error)

    async def _start_failed(self, live: Live, error: WorkerError | OSError) -> None:
        data = error.data if isinstance(error, StartFailed) else {}
        told = StartError(str(data.get("step") or "start"), int(data.get("errno") or 0), str(error))
        await self._undo(live)
        await self.settle(live, {"reason": Reason.START_FAILED, "start_error": told, "finished": now()})

    def watch(self, live: Live) -> None:
        """From now on the end of PID 1 is seen; soon, where epoll_ctl(2) finds no memory."""
        if live.pidfd < 0:
            return
        try:
            self._loop.add_reader(live.pidfd, self._exited, live)
        except OSError as error:
            log.warning("job %s: its end cannot be watched for yet: %s", live.job.id, error)
            self._loop.call_later(_WATCH_AGAIN, self.watch, live)
        else:
            self._loop.call_soon(self._watch_limits, live)  # nobody waits for it

    def _watch_limits(self, live: Live) -> None:
        if live.pidfd >= 0:
            self.limit_watch.begin(live)

    def _ending(self, pid: int) -> None:
        """What is left of the job is the end of PID 1: how it has ended is found out meanwhile."""
        live = self._running.get(pid)
        if live is not None:
            with contextlib.suppress(OSError):  # then it is tried again at the end
                live.evidence = evidence.gather(live.cgroup, live.files)

    def _exited(self, live: Live) -> None:
        self._loop.remove_reader(live.pidfd)
        self._running.pop(live.job.pid or 0, None)
        launcher.reap(live.pidfd)
        self._tasks.create_task(self._survive(live, self.conclude(live)))

    async def conclude(self, live: Live, account: Account | None = None) -> None:
        """PID 1 is dead: find the outcome, commit it, tell it, clear up. `account` is
        what the cgroup said, where that is gone already."""
        found = live.evidence
        if found is None or not found.is_final:
            with self._giving_way():
                gather = functools.partial(evidence.gather, live.cgroup, live.files, account)
                found = live.evidence = await until_possible(gather, f"job {live.job.id}: its end cannot be read")
        (usage, oom_killed), record, written = found
        if restarting.starts_anew(live.job) and outcome.cut_short(live.job, record, oom_killed=oom_killed):
            log.warning("job %s: the last workerd died while it was starting: it is started again", live.job.id)
            await self._back_to_the_queue(live, restarting.anew(live.job, now(), monotonic()))
        else:
            fields = outcome.judge(live.job, record, oom_killed=oom_killed, now=now())
            await self.settle(live, {"usage": usage, **written, **fields})

    @contextlib.contextmanager
    def _giving_way(self) -> Iterator[None]:
        """What is awaited here may last for ever; the daemon's end does not wait for it."""
        task = asyncio.current_task()
        assert task is not None
        self._lasting.add(task)
        try:
            yield
        finally:
            self._lasting.discard(task)

    def conclude_soon(self, live: Live, account: Account) -> None:
        """As `conclude`; what is asked of the job from now on finds it finished."""
        self._tasks.create_task(self._survive(live, self.conclude(live, account)))

    def conclude_when_gone(self, live: Live, account: Account) -> None:
        """As `conclude_soon`, of a job whose PID 1 is no more to be found, but whose cgroup
        is not empty: processes in state D are not killed before they wake."""
        self._tasks.create_task(self._survive(live, self._conclude_when_gone(live, account)))

    async def _conclude_when_gone(self, live: Live, account: Account) -> None:
        cgroup = live.cgroup
        assert cgroup is not None

        def remove() -> None:
            cgroup.kill()
            cgroup.remove()

        with self._giving_way():
            await until_possible(remove, f"job {live.job.id}: not all of it is dead")
        await self.conclude(live, account)

    def settle_soon(self, live: Live, fields: dict[str, object]) -> None:
        """As `settle`, as `conclude_soon`."""
        self._tasks.create_task(self._survive(live, self.settle(live, fields)))

    async def _survive(self, live: Live, recording: Coroutine[None, None, object]) -> None:
        try:
            await recording
        except Exception:
            # The job stays as it is recorded; the next start of workerd looks again.
            log.exception("job %s: what became of it could not be recorded", live.job.id)

    async def settle(self, live: Live, fields: dict[str, object]) -> None:
        """Finish a job whose outcome is known, or have it tried again where its restart
        policy says so: commit, tell, clear up. Where the disk is full it is told, and all
        else happens once it could be committed."""
        ended = change(live.job, State.FINISHED, **fields)
        wait = restarting.wait_before_next(ended)
        if wait is not None:
            await self._try_again(live, ended, wait)
            return
        live.job = ended
        await self.network.release(ended)  # whoever waits for the end may want its ports
        remains = Remains(live.cgroup, live.files)
        committed = await self.registry.settle(live, remains.remove)
        if ended.spec.restart.when is not Restart.NEVER:
            _end_log(live)
        self._followers.wake(live.files.index)
        if not committed:
            self._tasks.create_task(self._clear_later(live))
        elif remains.are_gone:
            self._let_go(live)
        else:
            await self._clear(live)

    async def _clear_later(self, live: Live) -> None:
        await self.registry.recorded(live.job.id)
        self.registry.discard(live.job.id)
        await self._clear(live)

    async def _try_again(self, live: Live, ended: Job, wait: int) -> None:
        end = ended.output_end
        if end is None:
            extent = extent_of(live.files.log, live.files.index)
            end = 0 if extent is None else extent.end
        waiting = restarting.again(live.job, ended, wait, now(), monotonic(), end)
        await self._back_to_the_queue(live, waiting, ended.usage)

    async def _back_to_the_queue(self, live: Live, waiting: Job, used: Usage | None = None) -> None:
        """Commit, clear up, and only then may it start again. `used` is what its last try has."""
        before, live.job = live.job, waiting
        live.clearing = True
        await self.registry.record(live.job, used)
        self.registry.release(live)
        await self.network.release(before)
        await self._clear(live)
        live.clearing = False
        self.cleared(live)

    async def _clear(self, live: Live) -> None:
        """Remove the job's cgroup and run-time files."""
        cgroup, live.cgroup = live.cgroup, None
        await self._clearing.clear(cgroup, live.files)

    def _let_go(self, live: Live) -> None:
        """As `_clear`, of a job whose cgroup and files are gone."""
        cgroup, live.cgroup = live.cgroup, None
        if cgroup is not None:
            cgroup.close()
        self._clearing.retry()

    async def clear_stray(self, cgroup: JobCgroup, job_id: str) -> None:
        """Remove a cgroup and run-time files that no live job has."""
        await self._clearing.clear(cgroup, self.files(job_id))


def _end_log(live: Live) -> None:
    try:
        trylog.end(live.files.index)
    except OSError as error:
        log.error("job %s: its output is not marked as complete: %s", live.job.id, error)
