"""The Python API: a blocking client whose calls take and give the protocol's structs.

    with Client() as worker:
        started = worker.run(["make", "-j4"], mem="1G", cpus=2, timeout="10m")
        for piece in worker.stream(started):
            sys.stdout.buffer.write(piece.data)
        worker.result(started).check()

Sizes are bytes or `"256M"`, durations seconds, `"10m"` or a timedelta; in the structs
they are bytes and microseconds. A job is meant by its id, a unique beginning of that, its
name, or a struct that has its id.

Errors are the classes of workerd.errors, as the daemon raised them; ConnectionFailed
and its children where it could not be reached, or went away.

One thread at a time: each thread needs a Client of its own (RuntimeError says so where
one is used by two at once). A call that was interrupted or lost its connection is not
repeated, since the daemon may have carried it out; the next call connects anew. Jobs run
on without us.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar, Unpack, overload

from workerctl.api import answers, asks, stdin
from workerctl.api.asks import Ask, JobRefs
from workerctl.api.command import Command
from workerctl.api.eventstream import EventStream
from workerctl.api.options import JobRef, LimitOptions, RunOptions, StartOptions, Words, ref, run_params
from workerctl.api.pieces import Piece, Reader, StreamName, newest
from workerctl.api.quantity import Duration
from workerctl.api.result import MOST_OUTPUT, JobResult, ReadNewest
from workerctl.machine import HERE, Machine
from workerctl.wire import Connection, far, link_to
from workerd import errors, fdpass, protocol
from workerd.job import Job, JobSpec, Limits, Reason, State
from workerd.output import Log
from workerd.protocol import Params

T = TypeVar("T")
Received = list[int]
"""descriptors, the caller's to close (`list` itself is a method below)"""

class Client:
    """A connection to workerd: at `socket_path`, else on the machine that $WORKER_HOST names,
    else at $WORKERD_SOCKET, else the system's. With `host`, ssh://[USER@]HOST[:PORT][/SOCKET],
    on that machine: paths and the environment are then that machine's, as its user has them."""

    def __init__(self, socket_path: str | None = None, *, host: str | None = None) -> None:
        self._path = socket_path
        self._link = None if host is None else link_to(host)
        self._connection: Connection | None = Connection(socket_path, self._link)
        self._busy = threading.Lock()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None and self._connection is not None:
            self._connection.finish()
        self.close()

    def close(self) -> None:
        """May be called twice; a call after it connects again."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
        if self._link is not None:
            self._link.close()

    # ── any method of the protocol ──

    def call(self, method: str, params: Params) -> Any:
        """The result, as the struct that METHODS names for the method."""
        with self._connected() as connection:
            number = _send(connection, method, params, ())
            return self._taken(method, number, connection.receive())

    def call_with_fds(self, method: str, params: Params, fds: Sequence[int] = ()) -> tuple[Any, Received]:
        """As `call`, with descriptors: `fds` go along and stay the caller's, those
        that come back are the caller's to close."""
        with self._connected() as connection:
            number = _send(connection, method, params, fds)
            line, received = connection.receive_with_fds(protocol.MAX_FDS)
        try:
            result = self._taken(method, number, line)
            answers.check_fds(method, result, received)
        except BaseException:
            fdpass.close_all(received)
            raise
        return result, received

    @contextmanager
    def _connected(self) -> Iterator[Connection]:
        """For one exchange; where that breaks off, an answer may still come: nobody is to
        take it for the next one's."""
        if not self._busy.acquire(blocking=False):
            raise RuntimeError("a Client serves one thread at a time: make one in each thread, or use an AsyncClient")
        try:
            if self._connection is None:
                if self._link is not None:
                    self._link = self._link.renewed()
                self._connection = Connection(self._path, self._link)
            yield self._connection
        except errors.WorkerError as error:
            if isinstance(error, errors.ConnectionFailed):
                self.close()
            raise
        except BaseException:
            self.close()
            raise
        finally:
            self._busy.release()

    def _taken(self, method: str, number: int, line: bytes) -> Any:
        answer = answers.decoded(line)
        if answer.id != number:
            self.close()  # without an id: workerd could not read the request, and hangs up
        if answer.id not in (number, None):
            raise errors.ConnectionFailed("workerd answers something that was not asked")
        return answers.result_of(method, answer)

    def _machine(self) -> Machine:
        """Where jobs run."""
        return self._link or (None if self._path else far()) or HERE

    def _ask(self, ask: Ask[T]) -> T:
        result = self.call(ask.method, ask.params)
        assert isinstance(result, ask.result)
        return result

    # ── jobs ──

    @overload
    def run(self, command: JobSpec, **options: Unpack[StartOptions]) -> protocol.RunResult: ...
    @overload
    def run(self, command: Words, **options: Unpack[RunOptions]) -> protocol.RunResult: ...
    def run(self, command: JobSpec | Words, **options: Any) -> protocol.RunResult:
        """Starts a job; answers when its command runs, or the job is queued. `command` is
        a list of words, or a whole JobSpec. Raises StartFailed (CommandNotFound,
        CannotExecute) where the command did not run, PolicyExceeded, InvalidParams."""
        params = run_params(command, options, self._machine())
        fds = stdin.opened(options.get("stdin"))
        try:
            result, _ = self.call_with_fds("job.run", params, fds)
        finally:
            fdpass.close_all(fds)
        assert isinstance(result, protocol.RunResult)
        return result

    def status(self, job: JobRef) -> Job:
        return self._ask(asks.status(job))

    def list(
        self,
        *,
        all: bool = False,
        states: Iterable[State | str] = (),
        labels: Mapping[str, str | None] | None = None,
    ) -> Iterator[Job]:
        """The jobs, newest first, fetched as they are taken: those not finished, or `all`,
        or those in one of `states`; with all of `labels` (None: with any value)."""
        before: str | None = None
        while True:
            answer = self._ask(asks.page(all=all, states=states, labels=labels or {}, before=before))
            yield from answer.jobs
            if (before := answer.next) is None:
                return

    @overload
    def wait(self, jobs: JobRef, *, timeout: Duration | None = None) -> Job: ...
    @overload
    def wait(self, jobs: JobRefs, *, any: bool = False, timeout: Duration | None = None) -> protocol.WaitResult: ...
    def wait(
        self, jobs: JobRef | JobRefs, *, any: bool = False, timeout: Duration | None = None
    ) -> Job | protocol.WaitResult:
        """Of one job: until it is finished; the job. Raises TimeoutError. Of several: until
        all are (or any is), or the time is over; which are finished, and which are not."""
        result = self._ask(asks.wait(jobs, any=any, timeout=timeout))
        return result if asks.is_several(jobs) else asks.only(result)

    def result(self, job: JobRef, *, timeout: Duration | None = None) -> JobResult:
        """Waits for one job; its exit code and output (of another machine's, that is read
        through this client). Raises TimeoutError."""
        ended = self.wait(job, timeout=timeout)
        return JobResult(ended, newest_of(self._path) if self._machine() is HERE else self.newest)

    def stop(self, job: JobRef, *, signal: int | None = None, grace: Duration | None = None) -> Job:
        """Stop signal, `grace`, SIGKILL; returns when it is finished."""
        return self._ask(asks.stop(job, signal, grace))

    def kill(self, job: JobRef, signal: int = 9, *, all: bool = False) -> Job:
        """A signal to the command, or to `all` processes of the job."""
        return self._ask(asks.kill(job, signal, all=all))

    def pause(self, job: JobRef) -> Job:
        """Freezes all its processes."""
        return self._ask(asks.pause(job))

    def resume(self, job: JobRef) -> Job:
        return self._ask(asks.resume(job))

    def update(
        self,
        job: JobRef,
        limits: Limits | None = None,
        *,
        lift: Sequence[str] = (),
        timeout: Duration | None = None,
        **more: Unpack[LimitOptions],
    ) -> Job:
        """Other limits: all of them, or none where one is refused. `lift` names fields of
        Limits that are to be no limit any more; a `timeout` of 0 lifts that."""
        return self._ask(asks.update(job, limits, more, lift, timeout))

    def rerun(self, job: JobRef) -> protocol.RunResult:
        """The same again, as a new job."""
        return self._ask(asks.rerun(job))

    def rename(self, job: JobRef, name: str | None) -> Job:
        return self._ask(asks.rename(job, name))

    def remove(self, job: JobRef, *, force: bool = False) -> Job:
        """Forget a finished job; with `force`, stop it first. The job as it was."""
        return self._ask(asks.remove(job, force=force))

    def prune(
        self,
        *,
        older_than: Duration | None = None,
        keep: int | None = None,
        reasons: Iterable[Reason | str] = (),
        labels: Mapping[str, str | None] | None = None,
        dry_run: bool = False,
    ) -> protocol.PruneResult:
        """Forget finished jobs that meet every condition given."""
        return self._ask(
            asks.prune(older_than=older_than, keep=keep, reasons=reasons, labels=labels or {}, dry_run=dry_run)
        )

    def exec(
        self,
        job: JobRef,
        command: Words,
        *,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        stdin: int | None = None,
        stdout: int = 1,
        stderr: int = 2,
    ) -> Command:
        """One more command inside a running job, on the caller's descriptors. `env` comes
        on top of the job's own."""
        ask = asks.execute(job, command, env, cwd, stdin=stdin is not None)
        fds = (stdout, stderr) if stdin is None else (stdin, stdout, stderr)
        _, received = self.call_with_fds(ask.method, ask.params, fds)
        return Command(received[0])

    # ── output ──

    def stream(
        self, job: JobRef, *, stream: StreamName | None = None, start: int = 0, tail: int | None = None
    ) -> Iterator[Piece]:
        """What the job writes, as it comes, from the first byte kept to its last one; one
        `stream` where that is named. Begins at the offset `start` (`piece.end` of the last
        one to go on), or with the last `tail` lines. Other calls may be made meanwhile."""
        job_id, log = self._open(job)
        with Reader(log, start, stream, tail) as reader:
            while True:
                yield from reader.turn()
                if reader.complete:
                    return
                if not reader.behind and self.wait_output(job_id, reader.offset).finished and reader.ended():
                    return

    def output(self, job: JobRef, stream: StreamName | None = None, *, most: int = MOST_OUTPUT) -> bytes:
        """What there is now: the last `most` bytes of one stream, or of both as they came."""
        return self.newest(job, stream, most)[0]

    def newest(self, job: JobRef, stream: StreamName | None, most: int) -> tuple[bytes, bool]:
        """As `output`, and whether there had been more before it."""
        with self.open_output(job) as log:
            return newest(log, stream, most)

    def open_output(self, job: JobRef) -> Log:
        """The job's log, to be read at file speed and to be closed by the caller."""
        return self._open(job)[1]

    def _open(self, job: JobRef) -> tuple[str, Log]:
        with self._connected() as connection:
            return connection.find_log(ref(job))

    def wait_output(self, job: JobRef, offset: int, *, timeout: Duration | None = None) -> protocol.OutputWaitResult:
        """Until there is output past `offset`, or no more will come, or the time is over."""
        return self._ask(asks.wait_output(job, offset, timeout))

    # ── the daemon ──

    def events(
        self, cursor: str = "now", *, all: bool = False, jobs: Sequence[JobRef] = (), follow: bool = True
    ) -> EventStream:
        """What happens to jobs (by full ids; none: all) from now on, behind a cursor, or from
        the `first` that is kept. With `all`, an admin gets everybody's. Without `follow`,
        only what there is by now. Other calls may be made between two events."""
        return EventStream(self._ask, asks.subscription(cursor, all=all, jobs=jobs), follow=follow)

    def info(self) -> protocol.InfoResult:
        return self._ask(asks.info())


def newest_of(socket_path: str | None) -> ReadNewest:
    """Reads over a connection made for it: usable from any thread, at any time."""

    def read(job: str, stream: StreamName | None, most: int) -> tuple[bytes, bool]:
        with Client(socket_path) as client:
            try:
                return client.newest(job, stream, most)
            except errors.WrongState:
                return b"", False  # it never ran

    return read


def _send(connection: Connection, method: str, params: Params, fds: Sequence[int]) -> int:
    number = connection.next_id()
    connection.send(answers.encoded(number, method, params), fds)
    return number
