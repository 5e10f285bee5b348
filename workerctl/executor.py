"""Commands as futures: like concurrent.futures, with a job for each call.

    with CommandExecutor(max_workers=8, mem="512M") as executor:
        futures = [executor.submit(["make", target]) for target in targets]
        for future in concurrent.futures.as_completed(futures):
            print(future.job_id, future.result().exit_code)

One connection and one thread serve all; `max_workers` bounds the jobs that were handed to
workerd and have not ended. Beyond that, and within it where the totals of the policy are
taken, they wait. What a future's callbacks do runs in that thread, and holds it up.

A restart of workerd is waited through (`patience`, seconds). Jobs are workerd's: a program
that ends without `shutdown` leaves those that it handed over to run on.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from typing import Any, Unpack, overload

from workerctl.aio import AsyncClient
from workerctl.api import stdin
from workerctl.api.options import RunOptions, StartOptions, Words, run_params
from workerctl.api.quantity import Duration, maybe_duration
from workerctl.api.result import MOST_OUTPUT, CommandFailed, JobResult
from workerctl.client import newest_of
from workerd import fdpass, protocol
from workerd.errors import WorkerError
from workerd.events import EventKind
from workerd.job import JobSpec, State

PATIENCE = 20.0
_START_OPTIONS = frozenset(StartOptions.__annotations__)
_numbers = itertools.count(1)


class JobFuture(Future[JobResult]):
    """Pending until the job runs, also while it waits in workerd's queue; until then
    `cancel` takes it back. One that runs is ended by `stop`, and its result says so."""

    def __init__(self, executor: CommandExecutor, params: protocol.RunParams, fds: tuple[int, ...], *, check: bool):
        super().__init__()
        self._executor = executor
        self._params = params
        self._fds = fds
        self._check = check
        self._told = False
        """whether those who wait for it know that it runs, or that it was cancelled"""
        self.job_id: str | None = None
        """once it was handed to workerd; also where what became of it is not known"""

    def cancel(self) -> bool:
        """Whether the job will not run; False where it runs, or has ended."""
        if not super().cancel():
            return False
        self._executor._in_thread(self._executor._withdraw, self)
        return True

    def stop(self, grace: Duration | None = None) -> None:
        """Cancel it, or stop its job (stop signal, `grace`, SIGKILL) without waiting for
        the end, which `result()` then tells."""
        usec = maybe_duration(grace, "grace")
        if not self.cancel() and not self.done():
            self._executor._in_thread(self._executor._stop, self, usec)

    def _begin(self) -> bool:
        """It runs, or was cancelled before: False."""
        if self._told:
            return not self.cancelled()
        self._told = True
        return self.set_running_or_notify_cancel()

    def _close_fds(self) -> None:
        fds, self._fds = self._fds, ()
        fdpass.close_all(fds)


class CommandExecutor:
    """`defaults` are options of `run` for every command; `check` has futures raise
    CommandFailed for commands that do not exit with 0; `most_output` bounds what
    `result.stdout` and its like read into memory, in bytes."""

    def __init__(
        self,
        max_workers: int | None = None,
        *,
        socket_path: str | None = None,
        check: bool = False,
        most_output: int = MOST_OUTPUT,
        patience: float = PATIENCE,
        **defaults: Unpack[RunOptions],
    ) -> None:
        if max_workers is not None and max_workers <= 0:
            raise ValueError("max_workers must be greater than 0")
        self._most = max_workers
        self._check = check
        self._defaults: dict[str, Any] = dict(defaults)
        self._most_output = most_output
        self._read = newest_of(socket_path)
        self._lock = threading.Lock()
        self._shut = False
        self._open: set[Future[JobResult]] = set()
        """those not done"""
        self._loop = asyncio.new_event_loop()
        # All below is the thread's alone.
        self._client = AsyncClient(socket_path, patience=patience)
        self._queue: deque[JobFuture] = deque()
        self._handed: set[JobFuture] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._waiting: dict[str, JobFuture] = {}
        """in workerd's queue, by job"""
        self._watcher: asyncio.Task[None] | None = None
        self._idle = asyncio.Event()
        """shut down, and nothing is left to do"""
        self._thread = threading.Thread(target=self._serve, name=f"CommandExecutor-{next(_numbers)}", daemon=True)
        self._thread.start()

    def __enter__(self) -> CommandExecutor:
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()

    @overload
    def submit(
        self, command: JobSpec, *, check: bool | None = None, **options: Unpack[StartOptions]
    ) -> JobFuture: ...
    @overload
    def submit(self, command: Words, *, check: bool | None = None, **options: Unpack[RunOptions]) -> JobFuture: ...
    def submit(self, command: JobSpec | Words, *, check: bool | None = None, **options: Any) -> JobFuture:
        """The options are those of `Client.run`. Raises InvalidParams, TypeError,
        RuntimeError after `shutdown`; what workerd says comes through the future."""
        return self._submit(command, check, options)

    def _submit(self, command: JobSpec | Words, check: bool | None, options: dict[str, Any]) -> JobFuture:
        given = {**self._defaults, **options}
        if isinstance(command, JobSpec):
            given = {name: value for name, value in given.items() if name in _START_OPTIONS or name in options}
        params = run_params(command, given)
        with self._lock:
            if self._shut:
                raise RuntimeError("cannot schedule new futures after shutdown")
            fds = stdin.opened(given.get("stdin"))
            future = JobFuture(self, params, fds, check=self._check if check is None else check)
            self._open.add(future)
            self._loop.call_soon_threadsafe(self._arrive, future)
        future.add_done_callback(self._forget)
        return future

    def map(
        self, commands: Iterable[JobSpec | Words], *, timeout: float | None = None, check: bool | None = None
    ) -> Iterator[JobResult]:
        """The results in the order of the commands, all of which are submitted at once.
        Raises TimeoutError `timeout` seconds from now; what has not started when the
        iteration ends early is cancelled."""
        end = None if timeout is None else time.monotonic() + timeout
        futures = deque([self._submit(command, check, {}) for command in commands])

        def results() -> Iterator[JobResult]:
            try:
                while futures:
                    yield futures.popleft().result(None if end is None else end - time.monotonic())
            finally:
                for future in futures:
                    future.cancel()

        return results()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """No more commands; returns when those submitted have ended (`wait`), or at once.
        With `cancel_futures` those that have not started do not. May be called twice."""
        with self._lock:
            self._shut = True
            left = tuple(self._open) if cancel_futures else ()
        for future in left:
            future.cancel()
        self._in_thread(self._end_when_idle)
        if wait and threading.current_thread() is not self._thread:
            self._thread.join()

    def _forget(self, future: Future[JobResult]) -> None:
        with self._lock:
            self._open.discard(future)

    # ── in the thread ──

    def _in_thread(self, function: Any, *arguments: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(function, *arguments)
        except RuntimeError:
            return  # it has ended, and with it all there was to do

    def _serve(self) -> None:
        try:
            self._loop.run_until_complete(self._until_idle())
            self._loop.run_until_complete(self._loop.shutdown_default_executor())
        finally:
            self._loop.close()

    async def _until_idle(self) -> None:
        await self._idle.wait()
        if self._watcher is not None:
            self._watcher.cancel()
            await asyncio.wait((self._watcher,))
        self._client.close()

    def _arrive(self, future: JobFuture) -> None:
        self._queue.append(future)
        self._hand_over()

    def _hand_over(self) -> None:
        while self._queue and (self._most is None or len(self._handed) < self._most):
            future = self._queue.popleft()
            if future.cancelled():
                self._drop(future)
                continue
            self._handed.add(future)
            self._spawn(self._carry(future))

    def _spawn(self, work: Any) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._hand_over()
        self._end_when_idle()

    def _end_when_idle(self) -> None:
        if self._shut and not self._tasks and not self._queue:
            self._idle.set()

    async def _carry(self, future: JobFuture) -> None:
        """From handing it over to its end."""
        try:
            result = await self._result(future)
        except BaseException as error:
            future._close_fds()
            if future._begin():
                future.set_exception(error)
        else:
            if result is not None and future._begin():
                self._settle(future, result)
        finally:
            self._handed.discard(future)
            self._waiting.pop(future.job_id or "", None)

    async def _result(self, future: JobFuture) -> JobResult | None:
        """None: it was cancelled, and is taken back."""
        fds, future._fds = future._fds, ()
        started = await self._client.start(future._params, fds)
        future.job_id = started.id
        if future.cancelled() or (started.state is not State.QUEUED and not future._begin()):
            future._begin()
            await self._take_back(started.id)
            return None
        if started.state is State.QUEUED:
            self._await_turn(future, started.id)
        job = await self._client.wait(started.id)
        return JobResult(job, self._read, self._most_output)

    def _await_turn(self, future: JobFuture, job_id: str) -> None:
        """Workerd's queue has it: one watcher looks out for the beginning of all such."""
        self._waiting[job_id] = future
        if self._watcher is None:
            self._watcher = self._loop.create_task(self._watch())
        else:
            self._spawn(self._look(job_id))

    async def _watch(self) -> None:
        try:
            events = await self._client.events()
            for job_id in tuple(self._waiting):  # those that began before we looked
                await self._look(job_id)
            async for event in events:
                if event.id in self._waiting and event.state is not State.QUEUED:
                    self._waiting.pop(event.id)._begin()
                elif event.kind is EventKind.GAP:
                    for job_id in tuple(self._waiting):
                        await self._look(job_id)
        except WorkerError:
            self._watcher = None  # their ends are told all the same

    async def _look(self, job_id: str) -> None:
        try:
            job = await self._client.status(job_id)
        except WorkerError:
            return  # what waits for its end is told
        if job.state is not State.QUEUED and (future := self._waiting.pop(job_id, None)) is not None:
            future._begin()

    def _settle(self, future: JobFuture, result: JobResult) -> None:
        if future._check and not result.succeeded:
            future.set_exception(CommandFailed(result))
        else:
            future.set_result(result)

    def _drop(self, future: JobFuture) -> None:
        future._close_fds()
        future._begin()

    def _withdraw(self, future: JobFuture) -> None:
        """It was cancelled: those who wait for it are told, and workerd where it knows it."""
        if future in self._queue:
            self._queue.remove(future)
        elif future.job_id is not None:
            self._spawn(self._take_back(future.job_id))
        self._drop(future)
        self._end_when_idle()

    async def _take_back(self, job_id: str) -> None:
        try:
            await self._client.stop(job_id, grace=0)
        except WorkerError:
            return  # it has just ended; or workerd is lost, and nobody can be told

    def _stop(self, future: JobFuture, grace: int | None) -> None:
        if future.job_id is not None and not future.done():
            self._spawn(self._stopped(future.job_id, grace))

    async def _stopped(self, job_id: str, grace: int | None) -> None:
        try:
            await self._client.stop(job_id, grace=None if grace is None else grace / 1e6)
        except WorkerError:
            return  # the future tells what there is to tell
