"""The methods of the RPC: from a caller's parameters to what the rest does.

Each takes the peer and decoded parameters and gives a result Struct, with the
descriptors that ride on the answer where there are some.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from msgspec import Struct

from workerd import __version__, output, protocol
from workerd.admission import output_of_a_job, totals_of
from workerd.auth import Peer, is_admin
from workerd.errors import Exhausted, InvalidParams, WrongState, as_worker_error
from workerd.followers import Followers
from workerd.job import Job, State
from workerd.procfs import host_cpus, host_memory
from workerd.queue import Queue
from workerd.registry import now
from workerd.room import rooms
from workerd.stopping import Stopper
from workerd.supervisor import Supervisor


class Answer(NamedTuple):
    result: Struct
    fds: tuple[int, ...] = ()
    """sent with the answer, then closed"""


class Call(Struct, frozen=True):
    """One request, decoded. `fds` are the descriptors it claims, checked
    (workerd.passedfds); they stay the server's."""

    peer: Peer
    params: Any
    fds: tuple[int, ...]


Handler = Callable[[Call], Awaitable[Answer]]
QuickHandler = Callable[[Peer, Any], bytes | None]
"""from the parameters: the result, `protocol.encoded`, where it is at hand; None: ask the Handler"""


class Service:
    def __init__(
        self, supervisor: Supervisor, queue: Queue, stopper: Stopper, followers: Followers, socket_path: str
    ) -> None:
        self._supervisor = supervisor
        self._registry = supervisor.registry
        self._queue = queue
        self._stopper = stopper
        self._followers = followers
        self._socket_path = socket_path
        self._started = now()
        self.handlers: dict[str, Handler] = {
            "job.run": self._run,
            "job.rerun": self._rerun,
            "job.status": self._status,
            "job.list": self._list,
            "job.wait": self._wait,
            "job.stop": self._stop,
            "job.kill": self._kill,
            "output.open": self._output_open,
            "output.wait": self._output_wait,
            "output.read": self._output_read,
            "daemon.info": self._info,
        }

        self.quick: dict[str, QuickHandler] = {"job.status": self._status_at_hand}

    async def _run(self, call: Call) -> Answer:
        params: protocol.RunParams = call.params
        if params.stdin and params.spec.tty:
            raise InvalidParams("a job with a terminal takes its input from there: leave out stdin", field="stdin")
        if len(call.fds) != int(params.stdin):
            raise InvalidParams(f"{len(call.fds)} file descriptors came, {int(params.stdin)} were wanted", field="fds")
        job = await self._queue.submit(call.peer, params, call.fds[0] if params.stdin else None)
        return Answer(protocol.RunResult(job.id, job.state, job.warnings, job.waits_for))

    async def _rerun(self, call: Call) -> Answer:
        job = await self._queue.rerun(call.peer, call.params.id)
        return Answer(protocol.RunResult(job.id, job.state, job.warnings, job.waits_for))

    def _status_at_hand(self, peer: Peer, params: protocol.JobParams) -> bytes | None:
        return self._registry.status_at_hand(peer, params.id)

    async def _status(self, call: Call) -> Answer:
        return Answer(await self._registry.status(call.peer, call.params.id))

    async def _list(self, call: Call) -> Answer:
        params: protocol.ListParams = call.params
        jobs = await self._registry.list(call.peer, params)
        more = len(jobs) > params.limit
        jobs = jobs[: params.limit]
        # The store may be behind (workerd.backlog): what has ended meanwhile was not asked for.
        wanted = params.states or (tuple(State) if params.all else tuple(set(State) - {State.FINISHED}))
        shown = tuple(job for job in jobs if job.state in wanted)
        return Answer(protocol.ListResult(shown, jobs[-1].id if more else None))

    async def _wait(self, call: Call) -> Answer:
        params: protocol.WaitParams = call.params
        jobs = {job.id: job for job in [await self._registry.find(call.peer, ref) for ref in params.ids]}
        if len(jobs) == 1 and params.timeout is None:
            return Answer(protocol.WaitResult((await self._registry.finished(*jobs.values()),), ()))
        tasks = {job_id: asyncio.ensure_future(self._registry.finished(job)) for job_id, job in jobs.items()}
        timeout = None if params.timeout is None else params.timeout / 1e6
        until = asyncio.FIRST_COMPLETED if params.any else asyncio.ALL_COMPLETED
        try:
            await asyncio.wait(tasks.values(), timeout=timeout, return_when=until)
            # Of a job that has ended the outcome may still be under way, from the store: it is not pending.
            while ended := [t for job_id, t in tasks.items() if not (t.done() or self._registry.goes_on(job_id))]:
                await asyncio.wait(ended)
            finished = tuple(task.result() for task in tasks.values() if task.done())
            pending = tuple(job_id for job_id, task in tasks.items() if not task.done())
            return Answer(protocol.WaitResult(finished, pending))
        finally:
            for task in tasks.values():
                task.cancel()

    async def _stop(self, call: Call) -> Answer:
        params: protocol.StopParams = call.params
        job = await self._stopper.stop(call.peer, params.id, params.signal, params.grace)
        return Answer(await self._registry.finished(job))

    async def _kill(self, call: Call) -> Answer:
        params: protocol.KillParams = call.params
        return Answer(await self._stopper.kill(call.peer, params.id, params.signal, everyone=params.all))

    async def _output_open(self, call: Call) -> Answer:
        job, log = await self._open(call)
        extent = self._extent(job, log)
        result = protocol.OutputOpenResult(job.id, extent.start, extent.end, extent.complete)
        return Answer(result, (log.log_fd, log.index_fd))

    async def _output_wait(self, call: Call) -> Answer:
        params: protocol.OutputWaitParams = call.params
        job, log = await self._open(call)
        with log:
            try:
                index = self._supervisor.files(job.id).index
                wait = self._followers.wait(index, params.offset, lambda: self._extent(job, log))
                async with asyncio.timeout(None if params.timeout is None else params.timeout / 1e6):
                    extent = await wait
            except TimeoutError:
                extent = self._extent(job, log)
            except OSError as error:
                raise Exhausted(f"cannot follow the output: {error.strerror}", errno=error.errno) from error
        return Answer(protocol.OutputWaitResult(extent.start, extent.end, extent.complete))

    async def _output_read(self, call: Call) -> Answer:
        params: protocol.OutputReadParams = call.params
        job, log = await self._open(call)
        with log:
            extent = self._extent(job, log)
            piece = await asyncio.to_thread(output.read_piece, log, params.offset, params.length, params.stream)
        data, begin, after = piece
        return Answer(protocol.OutputReadResult(data, begin, after, extent.complete and after >= extent.end))

    async def _info(self, call: Call) -> Answer:
        supervisor = self._supervisor
        tree = supervisor.tree
        policy = self._registry.config.policy
        jobs = [live.job for live in self._registry]
        mine = totals_of(call.peer, policy)
        total, free = rooms(call.peer.uid, mine, policy.machine, jobs, host_memory(), host_cpus())
        return Answer(
            protocol.InfoResult(
                version=__version__,
                pid=os.getpid(),
                boot_id=supervisor.boot_id,
                started=self._started,
                socket=self._socket_path,
                state_dir=supervisor.place.state_dir,
                cgroup=str(tree.root),
                controllers=tuple(sorted(tree.available)),
                missing_controllers=tuple(sorted(tree.missing)),
                jobs_live=self._registry.count(queued=False),
                jobs_queued=self._registry.count(queued=True),
                jobs_finished=await self._registry.call(lambda store: store.finished_count()),
                uid=call.peer.uid,
                admin=is_admin(call.peer, policy),
                defaults=policy.defaults.limits,
                default_output=output_of_a_job(None, call.peer, policy),
                total=total,
                free=free,
            )
        )

    async def _open(self, call: Call) -> tuple[Job, output.Log]:
        """The log is read only, and the caller's to close."""
        job = await self._registry.find(call.peer, call.params.id)
        files = self._supervisor.files(job.id)
        try:
            return job, output.open_log(files.log, files.index)
        except FileNotFoundError as error:
            raise WrongState(f"job {job.id} has no output: it never ran", id=job.id, state=job.state) from error
        except OSError as error:
            raise as_worker_error(error) from error

    def _extent(self, job: Job, log: output.Log) -> output.Extent:
        """What there is of a job's output; complete also where PID 1 can say nothing
        any more."""
        live = self._registry.get(job.id)
        over = live is None or live.job.state is State.FINISHED
        extent = log.extent()
        extent.complete = extent.complete or over
        return extent
