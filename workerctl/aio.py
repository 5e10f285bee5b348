"""The Python API on asyncio: as workerctl.client, with any number of calls under way.

    async with AsyncClient() as worker:
        async with asyncio.TaskGroup() as group:
            for target in ("lib", "docs"):
                started = await worker.run(["make", target])
                group.create_task(worker.result(started))

All calls share one connection (another is opened for every 960 that are under way); their
answers come in any order. It belongs to the event loop in which it was first used.

A cancelled call is forgotten, and disturbs no other. What workerd was asked for by then it
still does: a cancelled `run` may have started its job, so name or label what you may have
to look for. When the connection is lost, every call under way raises ConnectionFailed and
the next call connects anew. With `patience`, what may be asked twice (waiting, reading,
listing; not `run`) is asked again for so many seconds instead, as is connecting again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import Any, TypeVar, Unpack, overload

import msgspec

from workerctl.api import asks, asyncwire, stdin
from workerctl.api.asks import Ask, JobRefs
from workerctl.api.asynccommand import AsyncCommand
from workerctl.api.eventstream import AsyncEventStream
from workerctl.api.options import JobRef, LimitOptions, RunOptions, StartOptions, Words, run_params
from workerctl.api.pieces import Piece, Reader, StreamName, log_of, newest
from workerctl.api.quantity import Duration
from workerctl.api.result import MOST_OUTPUT, JobResult
from workerctl.client import newest_of
from workerd import errors, fdpass, protocol
from workerd.job import Job, JobSpec, Limits, Reason, State
from workerd.output import Log
from workerd.protocol import Params

T = TypeVar("T")

REPEATABLE = frozenset(
    {"job.status", "job.list", "job.wait", "output.open", "output.wait", "events.subscribe", "daemon.info"}
)
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 1.0
"""seconds between two tries to reach a daemon that went away"""


class AsyncClient:
    """Connects at the first call: to `socket_path`, else $WORKERD_SOCKET, else the system's."""

    def __init__(self, socket_path: str | None = None, *, patience: float = 0.0) -> None:
        self._path = socket_path
        self._patience = patience
        self._connections: list[asyncwire.AsyncConnection] = []
        self._connecting = asyncio.Lock()
        self._reached = False
        """whether there was a daemon once"""

    async def __aenter__(self) -> AsyncClient:
        await self._connection()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Calls under way raise ConnectionFailed. May be called twice."""
        for connection in self._connections:
            connection.close()
        self._connections.clear()

    # ── any method of the protocol ──

    async def call(self, method: str, params: Params) -> Any:
        """The result, as the struct that METHODS names for the method."""
        result, fds = await self.call_with_fds(method, params)
        fdpass.close_all(fds)
        return result

    async def call_with_fds(self, method: str, params: Params, fds: Sequence[int] = ()) -> tuple[Any, list[int]]:
        """As `call`, with descriptors: `fds` go along and stay the caller's, those
        that come back are the caller's to close."""
        begun = asyncio.get_running_loop().time()
        deadline = begun + self._patience
        pause = FIRST_PAUSE
        whole = getattr(params, "timeout", None) if method in asyncwire.WAITS else None
        while True:
            connection = await self._connection()
            if whole is not None:
                spent = round((asyncio.get_running_loop().time() - begun) * 1e6)
                params = msgspec.structs.replace(params, timeout=max(0, whole - spent))
            try:
                return await connection.ask(method, params, fds)
            except asyncwire.Moved:
                continue
            except (errors.ConnectionFailed, errors.Unavailable):
                if method not in REPEATABLE or asyncio.get_running_loop().time() >= deadline:
                    raise
            finally:
                connection.rid()
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    async def _connection(self) -> asyncwire.AsyncConnection:
        """One that takes a request more."""
        if (found := self._free()) is not None:
            return found
        async with self._connecting:
            if (found := self._free()) is not None:
                return found
            self._connections = [one for one in self._connections if one.lost is None]
            made = await self._connect()
            self._connections.append(made)
            return made

    def _free(self) -> asyncwire.AsyncConnection | None:
        return next((one for one in self._connections if one.free > 0), None)

    async def _connect(self) -> asyncwire.AsyncConnection:
        """A daemon that was there once may be back in a moment."""
        loop = asyncio.get_running_loop()
        deadline, pause = loop.time() + (self._patience if self._reached else 0.0), FIRST_PAUSE
        while True:
            try:
                made = await asyncwire.connect(self._path)
            except errors.SocketForbidden:
                raise
            except errors.ConnectionFailed:
                if loop.time() >= deadline:
                    raise
                await asyncio.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)
            else:
                self._reached = True
                return made

    async def _ask(self, ask: Ask[T]) -> T:
        result = await self.call(ask.method, ask.params)
        assert isinstance(result, ask.result)
        return result

    # ── jobs; workerctl.client says more of each ──

    @overload
    async def run(self, command: JobSpec, **options: Unpack[StartOptions]) -> protocol.RunResult: ...
    @overload
    async def run(self, command: Words, **options: Unpack[RunOptions]) -> protocol.RunResult: ...
    async def run(self, command: JobSpec | Words, **options: Any) -> protocol.RunResult:
        """Starts a job; answers when its command runs, or the job is queued."""
        return await self.start(run_params(command, options), stdin.opened(options.get("stdin")))

    async def start(self, params: protocol.RunParams, fds: Sequence[int] = ()) -> protocol.RunResult:
        """As `run`, with ready parameters; the descriptors are closed here."""
        try:
            result, _ = await self.call_with_fds("job.run", params, fds)
        finally:
            fdpass.close_all(fds)
        assert isinstance(result, protocol.RunResult)
        return result

    async def status(self, job: JobRef) -> Job:
        return await self._ask(asks.status(job))

    async def list(
        self,
        *,
        all: bool = False,
        states: Iterable[State | str] = (),
        labels: Mapping[str, str | None] | None = None,
    ) -> AsyncIterator[Job]:
        """The jobs, newest first, fetched as they are taken."""
        before: str | None = None
        while True:
            answer = await self._ask(asks.page(all=all, states=states, labels=labels or {}, before=before))
            for job in answer.jobs:
                yield job
            if (before := answer.next) is None:
                return

    @overload
    async def wait(self, jobs: JobRef, *, timeout: Duration | None = None) -> Job: ...
    @overload
    async def wait(
        self, jobs: JobRefs, *, any: bool = False, timeout: Duration | None = None
    ) -> protocol.WaitResult: ...
    async def wait(
        self, jobs: JobRef | JobRefs, *, any: bool = False, timeout: Duration | None = None
    ) -> Job | protocol.WaitResult:
        """Of one job: until it is finished; the job. Raises TimeoutError. Of several: until
        all are (or any is), or the time is over; which are finished, and which are not."""
        result = await self._ask(asks.wait(jobs, any=any, timeout=timeout))
        return result if asks.is_several(jobs) else asks.only(result)

    async def result(self, job: JobRef, *, timeout: Duration | None = None) -> JobResult:
        """Waits for one job; its exit code and output (reading that blocks for a moment;
        `await worker.output(job)` does not)."""
        return JobResult(await self.wait(job, timeout=timeout), newest_of(self._path))

    async def stop(self, job: JobRef, *, signal: int | None = None, grace: Duration | None = None) -> Job:
        """Stop signal, `grace`, SIGKILL; returns when it is finished."""
        return await self._ask(asks.stop(job, signal, grace))

    async def kill(self, job: JobRef, signal: int = 9, *, all: bool = False) -> Job:
        return await self._ask(asks.kill(job, signal, all=all))

    async def pause(self, job: JobRef) -> Job:
        return await self._ask(asks.pause(job))

    async def resume(self, job: JobRef) -> Job:
        return await self._ask(asks.resume(job))

    async def update(
        self,
        job: JobRef,
        limits: Limits | None = None,
        *,
        lift: Sequence[str] = (),
        timeout: Duration | None = None,
        **more: Unpack[LimitOptions],
    ) -> Job:
        return await self._ask(asks.update(job, limits, more, lift, timeout))

    async def rerun(self, job: JobRef) -> protocol.RunResult:
        return await self._ask(asks.rerun(job))

    async def rename(self, job: JobRef, name: str | None) -> Job:
        return await self._ask(asks.rename(job, name))

    async def remove(self, job: JobRef, *, force: bool = False) -> Job:
        return await self._ask(asks.remove(job, force=force))

    async def prune(
        self,
        *,
        older_than: Duration | None = None,
        keep: int | None = None,
        reasons: Iterable[Reason | str] = (),
        labels: Mapping[str, str | None] | None = None,
        dry_run: bool = False,
    ) -> protocol.PruneResult:
        return await self._ask(
            asks.prune(older_than=older_than, keep=keep, reasons=reasons, labels=labels or {}, dry_run=dry_run)
        )

    async def exec(
        self,
        job: JobRef,
        command: Words,
        *,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        stdin: int | None = None,
        stdout: int = 1,
        stderr: int = 2,
    ) -> AsyncCommand:
        """One more command inside a running job, on the caller's descriptors."""
        ask = asks.execute(job, command, env, cwd, stdin=stdin is not None)
        fds = (stdout, stderr) if stdin is None else (stdin, stdout, stderr)
        _, received = await self.call_with_fds(ask.method, ask.params, fds)
        return AsyncCommand(received[0])

    # ── output ──

    async def stream(
        self, job: JobRef, *, stream: StreamName | None = None, start: int = 0, tail: int | None = None
    ) -> AsyncIterator[Piece]:
        """What the job writes, as it comes, from the first byte kept to its last one. The
        log is read in the loop, a megabyte at most before others get their turn."""
        job_id, log = await self._open(job)
        with Reader(log, start, stream, tail) as reader:
            while True:
                for piece in reader.turn():
                    yield piece
                if reader.complete:
                    return
                if reader.behind:
                    await asyncio.sleep(0)
                elif (await self.wait_output(job_id, reader.offset)).finished and reader.ended():
                    return

    async def output(self, job: JobRef, stream: StreamName | None = None, *, most: int = MOST_OUTPUT) -> bytes:
        """What there is now: the last `most` bytes of one stream, or of both as they came."""
        with await self.open_output(job) as log:
            return newest(log, stream, most)[0]

    async def open_output(self, job: JobRef) -> Log:
        """The job's log, to be closed by the caller."""
        return (await self._open(job))[1]

    async def _open(self, job: JobRef) -> tuple[str, Log]:
        ask = asks.open_output(job)
        result, fds = await self.call_with_fds(ask.method, ask.params)
        return result.id, log_of(fds)

    async def wait_output(
        self, job: JobRef, offset: int, *, timeout: Duration | None = None
    ) -> protocol.OutputWaitResult:
        """Until there is output past `offset`, or no more will come, or the time is over."""
        return await self._ask(asks.wait_output(job, offset, timeout))

    # ── the daemon ──

    def events(
        self, cursor: str = "now", *, all: bool = False, jobs: Sequence[JobRef] = (), follow: bool = True
    ) -> AsyncEventStream:
        """What happens to jobs (by full ids; none: all) from now on, behind a cursor, or from
        the `first` that is kept. With `all`, an admin gets everybody's. Without `follow`,
        only what there is by now."""
        return AsyncEventStream(self._ask, asks.subscription(cursor, all=all, jobs=jobs), follow=follow)

    async def info(self) -> protocol.InfoResult:
        return await self._ask(asks.info())
