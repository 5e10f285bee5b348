"""The queue: every new job passes here, and waits here where it cannot start at once.

A job waits for others to end (`after`), for a time (`at`, `delay`, the back-off of a
restart), or for room in the policy's totals (workerd.schedule says whose turn it is). A
waiting job is recorded with its environment, so it survives the daemon and the machine.

Woken by jobs that end and by one timer of each clock: the loop's for delays, which nobody's
setting of the clock should touch, and the wall's for `at`, which is meant by it. (After a
reboot, a delay too is what the wall clock says.)
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import defaultdict
from collections.abc import Iterator

import msgspec

from workerd import account, admission, restarting, schedule
from workerd.auth import Peer, is_admin
from workerd.config import Totals
from workerd.errors import InvalidParams, NoSuchJob, PolicyExceeded, WorkerError
from workerd.job import After, Job, JobSpec, Reason, Restart, State, change, new_id
from workerd.protocol import RunParams
from workerd.registry import Live, Registry, monotonic, now
from workerd.storedoutput import StoredOutput
from workerd.supervisor import NETS, Supervisor
from workerd.totals import Stored
from workerd.units import format_duration
from workerd.walltimer import WallTimer

log = logging.getLogger("workerd")

AT_ONCE = 8
"""starts of one user's jobs out of the queue that are under way together"""


class Queue:
    def __init__(self, supervisor: Supervisor, tasks: asyncio.TaskGroup) -> None:
        self._supervisor = supervisor
        self._registry: Registry = supervisor.registry
        self._stored = StoredOutput(supervisor.registry, supervisor.place.state_dir)
        self._tasks = tasks
        self._loop = asyncio.get_running_loop()
        self._ready: dict[str, schedule.Request] = {}
        """what waits for room alone"""
        self._dependents: dict[str, set[str]] = {}
        """id → the jobs that wait for its end"""
        self._delays: dict[str, int] = {}
        self._times: dict[str, int] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._wall: WallTimer | None = None
        self._turns: defaultdict[int, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(AT_ONCE))
        """uid → to start that user's jobs"""
        self._starts: set[asyncio.Task[None]] = set()
        self._served: dict[int, int] = {}
        self._first: dict[int, tuple[str, str]] = {}
        """uid → the first of that user's ready jobs, and why it waits"""
        self._started = False
        self._closed = False
        self._pass_due: asyncio.Handle | None = None
        self._registry.observers.append(self._changed)
        self._registry.waits_for = self.waits_for
        self._registry.is_waited_for = lambda job: bool(self._ready) or job.id in self._dependents
        supervisor.cleared = self._take_up

    def start(self) -> None:
        """Take up what waited when the last daemon ended. Nothing starts before: only
        now is it known what runs."""
        self._started = True
        for live in self._registry:
            self._take_up(live)

    async def close(self, seconds: float) -> None:
        """Starts that are under way are gone through with, for so long. The others, and what
        has not begun to start yet, are the next daemon's to begin."""
        self._closed = True
        self._registry.observers.remove(self._changed)
        for handle in (self._timer, self._pass_due):
            if handle is not None:
                handle.cancel()
        if self._wall is not None:
            self._wall.close()
        if self._starts:
            _, pending = await asyncio.wait(self._starts, timeout=seconds)
            for task in pending:
                task.cancel()

    def wake(self) -> None:
        """Look for room, soon: a job ended, or the policy is new."""
        if self._pass_due is None and self._ready:
            self._pass_due = self._loop.call_soon(self._start_what_fits)

    def policy_changed(self) -> None:
        for job_id in self._ready:
            live = self._registry.get(job_id)
            if live is not None:
                self._ready[job_id] = self._request(live.job)
        self.wake()

    # ── in ──

    async def submit(self, peer: Peer, params: RunParams, stdin: int | None, rerun_of: str | None = None) -> Job:
        """A new job: it runs, or waits, or a WorkerError is raised (StartFailed with its
        kinds, PolicyExceeded, InvalidParams, …). `stdin` stays the caller's."""
        if stdin is not None and params.spec.restart.when is not Restart.NEVER:
            raise InvalidParams("standard input is there once: a job that has one cannot be restarted", field="stdin")
        policy = self._registry.config.policy
        admission.check_rank(params.spec, peer, policy)
        who = await _account(peer, params.spec.user)
        admission.check_capabilities(params.spec, who.uid)
        spec = await self._admit(peer, params)
        params = msgspec.structs.replace(params, env={**who.env, **params.env})
        after = await self._conditions(peer, params.after)
        job = self._job(who, msgspec.structs.replace(params, spec=spec), after, rerun_of)
        wish = self._request(job)
        if (never := schedule.never_fits(wish, policy.machine)) is not None:
            raise PolicyExceeded(f"{never}: it could never start")
        why = self._held(job) or self._no_room(wish)
        window = (params.window.rows, params.window.columns)
        if why is None:
            starting = change(job, State.STARTING, start_at=None, start_mono=None)
            self._note_start(job.uid)
            return await self._supervisor.run(starting, params.env, stdin, window)
        _check_may_wait(params, why, stdin)
        live = Live(job, self._supervisor.files(job.id))
        live.window = window
        await self._supervisor.enqueue(live, params.env)
        return msgspec.structs.replace(live.job, waits_for=why)

    async def _admit(self, peer: Peer, params: RunParams) -> JobSpec:
        """Raises InvalidParams, NotPermitted, PolicyExceeded."""
        stored = Stored()
        ended: dict[str, Job] = {}
        if self._registry.config.policy.counts_output:
            ended = {live.job.id: live.job for live in self._registry}
            stored = await self._stored.measure(peer.uid)
        # One that ended meanwhile is not in what was measured, and so counts as unfinished.
        others = (live.job for live in self._registry)
        unfinished = (ended | {job.id: job for job in others}).values() if ended else others
        policy = self._registry.config.policy
        return admission.admit(params.spec, params.env, peer, policy, unfinished, nets=NETS, stored=stored)

    async def rerun(self, peer: Peer, ref: str) -> Job:
        """The same again, as a new job of the same owner. Raises as `submit`, NoSuchJob."""
        job = await self._registry.find(peer, ref)
        env = await self._registry.call(lambda store: store.environ(job.id))
        spec = msgspec.structs.replace(job.spec, user=None)  # whose it is, is settled
        owner = peer if peer.uid == job.uid else Peer(job.uid, job.gid, job.groups, peer.pid)
        return await self.submit(owner, RunParams(spec, env), None, rerun_of=job.id)

    def _job(self, who: account.Account, params: RunParams, after: tuple[After, ...], rerun_of: str | None) -> Job:
        start_at, start_mono = params.at, None
        if params.delay is not None:
            start_at, start_mono = now() + params.delay, monotonic() + params.delay
        return Job(
            id=new_id(),
            uid=who.uid,
            gid=who.gid,
            groups=who.groups,
            spec=params.spec,
            state=State.QUEUED,
            created=now(),
            boot_id=self._supervisor.boot_id,
            after=after,
            start_at=start_at,
            start_mono=start_mono,
            rerun_of=rerun_of,
        )

    async def _conditions(self, peer: Peer, wanted: tuple[After, ...]) -> tuple[After, ...]:
        """Those that are still open, with full ids. Raises InvalidParams where one can no
        longer be met, NoSuchJob."""
        still = []
        for condition in wanted:
            job = await self._registry.find(peer, condition.id)
            if job.state is not State.FINISHED:
                still.append(msgspec.structs.replace(condition, id=job.id))
            elif not condition.met_by(job):
                raise InvalidParams(f"{condition.unmet(job)}: the job would never start", field="after")
        return tuple(still)

    # ── waiting ──

    def waits_for(self, job: Job) -> str | None:
        """Why a queued job waits, in words."""
        if job.state is not State.QUEUED:
            return None
        if (held := self._held(job)) is not None:
            return held
        first, why = self._first.get(job.uid, (job.id, "for its turn"))
        return why if first == job.id else f"behind {first}, which waits: {why}"

    def _held(self, job: Job) -> str | None:
        """Why it could not start even where there is room; None where it could."""
        if job.after:
            return "for " + " and ".join(f"{condition.id} to {condition.words()}" for condition in job.after)
        left = self._time_left(job)
        if left is None:
            return None
        # Rounded up: in the last moment it is a second, not nothing.
        seconds = -(-left // 1_000_000)
        what = "next try" if job.restarts or job.start_attempts else "time"
        return f"for its {what}, in {format_duration(seconds * 1_000_000)}"

    def _time_left(self, job: Job) -> int | None:
        """Microseconds; None where its time has come."""
        if job.start_at is None:
            return None
        if job.start_mono is not None and job.boot_id == self._supervisor.boot_id:
            left = job.start_mono - monotonic()
        else:
            left = job.start_at - now()
        return left if left > 0 else None

    def _changed(self, job: Job) -> None:
        """Of each job, as it was just committed."""
        live = self._registry.get(job.id)
        if live is not None and live.job.state is State.QUEUED:
            self._take_up(live)
            return
        self._forget(job.id)
        if job.state is State.FINISHED:
            for job_id in tuple(self._dependents.pop(job.id, ())):
                if (waiting := self._registry.get(job_id)) is not None:
                    self._take_up(waiting)
            self.wake()

    def _forget(self, job_id: str) -> None:
        for waiting in (self._ready, self._delays, self._times):
            waiting.pop(job_id, None)

    def _take_up(self, live: Live) -> None:
        """Put a queued job where it belongs: with those that wait for a job, for a time, or for room."""
        job = live.job
        self._forget(job.id)
        if job.state is not State.QUEUED or live.clearing or not self._started:
            return
        for condition in job.after:
            other = self._registry.get(condition.id)
            if other is None:  # it ended while this one was recorded, or while no daemon was there
                self._tasks.create_task(self._judge_late(live, condition))
            elif other.job.state is State.FINISHED:  # which may have been told already, and not be committed
                self._judge(live, condition, other.job)
            else:
                self._dependents.setdefault(condition.id, set()).add(job.id)
        job = live.job
        if job.after:
            return
        if self._time_left(job) is None:
            self._ready[job.id] = self._request(job)
            self.wake()
        elif job.start_mono is not None and job.boot_id == self._supervisor.boot_id:
            self._delays[job.id] = job.start_mono
            self._arm()
        else:
            self._times[job.id] = job.start_at or 0
            self._arm()

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._delays:
            self._timer = self._loop.call_at(min(self._delays.values()) / 1e6, self._ring)
        if self._times and self._wall is None:
            self._wall = WallTimer(self._loop, self._ring)
        if self._wall is not None:
            self._wall.set(min(self._times.values(), default=None))

    def _ring(self) -> None:
        for job_id in (*self._delays, *self._times):
            live = self._registry.get(job_id)
            if live is None or self._time_left(live.job) is None:
                self._forget(job_id)
                if live is not None:
                    self._take_up(live)
        self._arm()

    # ── conditions ──

    async def _judge_late(self, live: Live, condition: After) -> None:
        ended: Job | None = None
        try:
            ended = await self._registry.call(lambda store: store.get(condition.id))
        except NoSuchJob:
            pass  # nobody remembers it
        except WorkerError as error:
            log.error("job %s waits on: how %s ended could not be read: %s", live.job.id, condition.id, error)
            return
        if live.job.state is State.QUEUED and condition in live.job.after:
            self._judge(live, condition, ended)
            self._take_up(live)

    def _judge(self, live: Live, condition: After, ended: Job | None) -> None:
        """One condition of a waiting job is decided; None: nobody remembers how."""
        if condition.met_by(ended):
            after = tuple(other for other in live.job.after if other != condition)
            live.job = msgspec.structs.replace(live.job, after=after)
            self._tasks.create_task(self._record(live))
        else:
            fields = {"reason": Reason.SKIPPED, "detail": condition.unmet(ended), "finished": now()}
            self._tasks.create_task(self._end(live, fields))

    async def _record(self, live: Live) -> None:
        if live.job.state is State.QUEUED:
            with _logged(live):
                await self._registry.record(live.job)

    async def _end(self, live: Live, fields: dict[str, object]) -> None:
        if live.job.state is State.QUEUED:
            with _logged(live):
                await self._supervisor.settle(live, fields)

    # ── out ──

    def _start_what_fits(self) -> None:
        self._pass_due = None
        plan = self._plan()
        self._first = {self._ready[job_id].uid: (job_id, why) for job_id, why in plan.waits.items()}
        for job_id in plan.start:
            self._forget(job_id)
            live = self._registry.get(job_id)
            if live is not None and live.job.state is State.QUEUED:
                live.job = restarting.attempt(live.job, self._supervisor.boot_id)
                self._note_start(live.job.uid)
                task = self._tasks.create_task(self._start_in_turn(live))
                self._starts.add(task)
                task.add_done_callback(self._starts.discard)

    async def _start_in_turn(self, live: Live) -> None:
        """However many there is room for at once, whoever asks for a job meanwhile, or has
        others in the queue, does not wait for all of them."""
        async with self._turns[live.job.uid]:
            if not (self._closed and live.job.state is State.STARTING):
                await self._supervisor.start_waiting(live)

    def _plan(self, *more: schedule.Request) -> schedule.Plan:
        running = [self._request(live.job) for live in self._registry if live.job.live]
        machine = self._registry.config.policy.machine
        return schedule.choose((*self._ready.values(), *more), running, machine, self._served)

    def _no_room(self, wish: schedule.Request) -> str | None:
        """Why a new job cannot start now; None where it can."""
        if not self._ready and wish.totals == Totals() and self._registry.config.policy.machine == Totals():
            return None
        plan = self._plan(wish)
        if wish.id in plan.start:
            return None
        if (why := plan.waits.get(wish.id)) is not None:
            return why
        first = next(job_id for job_id in plan.waits if self._ready[job_id].uid == wish.uid)
        return f"behind {first}, which waits: {plan.waits[first]}"

    def _note_start(self, uid: int) -> None:
        self._served[uid] = max(self._served.values(), default=0) + 1

    def _request(self, job: Job) -> schedule.Request:
        policy = self._registry.config.policy
        owner = Peer(job.uid, job.gid, job.groups, 0)
        bound = not is_admin(owner, policy)
        return schedule.request(job, policy.totals(job.uid, owner.gids) if bound else Totals())


async def _account(peer: Peer, user: str | None) -> account.Account:
    """Whom the job is to run as. Raises InvalidParams."""
    if user is None:
        return account.Account(peer.uid, peer.gid, peer.groups, {})
    return await asyncio.to_thread(account.find, user)


@contextlib.contextmanager
def _logged(live: Live) -> Iterator[None]:
    try:
        yield
    except WorkerError as error:
        log.error("job %s waits on, but this could not be recorded: %s", live.job.id, error)


def _check_may_wait(params: RunParams, why: str, stdin: int | None) -> None:
    """Raises PolicyExceeded, InvalidParams."""
    if not params.queue:
        raise PolicyExceeded(f"it would have to wait: {why}")
    if stdin is not None:
        raise InvalidParams(
            f"standard input cannot wait, and the job would have to: {why}. Give it a file instead, or try again later",
            field="stdin",
        )
