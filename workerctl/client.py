"""The Python API: a blocking client whose calls take and give the protocol's structs.

    with Client() as worker:
        started = worker.run(JobSpec(argv=("make", "-j4"), cwd="/src"), env=dict(os.environ))
        job = worker.wait([started.id]).finished[0]

Errors are the classes of workerd.errors, as the daemon raised them; ConnectionFailed
and its children where it could not be reached, or went away. One thread at a time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import msgspec
from msgspec import UNSET

from workerctl.wire import Connection
from workerd import errors, fdpass, protocol
from workerd.events import Event
from workerd.job import Job, JobSpec, Limits, State
from workerd.output import Log
from workerd.protocol import METHODS, Params

T = TypeVar("T")
Received = list[int]
"""descriptors, the caller's to close (`list` itself is a method below)"""

_answers = msgspec.json.Decoder(protocol.Response)


class Client:
    """A connection to workerd: at `socket_path`, else $WORKERD_SOCKET, else the system's."""

    def __init__(self, socket_path: str | None = None) -> None:
        self._connection = Connection(socket_path)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._connection.close()

    def call(self, method: str, params: Params) -> Any:
        """The result, as the struct that METHODS names for the method."""
        number = self._send(method, params, ())
        return _result(method, number, self._connection.receive())

    def call_with_fds(self, method: str, params: Params, fds: Sequence[int] = ()) -> tuple[Any, Received]:
        """As `call`, with descriptors: `fds` go along and stay the caller's, those
        that come back are the caller's to close."""
        number = self._send(method, params, fds)
        line, received = self._connection.receive_with_fds(protocol.MAX_FDS)
        try:
            result = _result(method, number, line)
            if getattr(result, "fds", 0) != len(received):
                raise errors.ConnectionFailed(f"{method} gave {len(received)} descriptors in place of {result.fds}")
        except BaseException:
            fdpass.close_all(received)
            raise
        return result, received

    def run(self, spec: JobSpec, env: dict[str, str] | None = None, *, stdin: int | None = None) -> protocol.RunResult:
        """Starts a job; `stdin` is a descriptor for its standard input. Raises
        StartFailed (CommandNotFound, CannotExecute) where the command did not run."""
        params = protocol.RunParams(spec, env or {}, stdin=stdin is not None, fds=0 if stdin is None else 1)
        result, _ = self.call_with_fds("job.run", params, () if stdin is None else (stdin,))
        return _typed(result, protocol.RunResult)

    def status(self, job: str) -> Job:
        return _typed(self.call("job.status", protocol.JobParams(job)), Job)

    def list(self, *, all: bool = False, states: Sequence[State] = ()) -> Iterator[Job]:
        """The jobs, newest first; fetched as they are taken."""
        before: str | None = None
        while True:
            params = protocol.ListParams(all=all, states=tuple(states), before=before)
            answer = _typed(self.call("job.list", params), protocol.ListResult)
            yield from answer.jobs
            if (before := answer.next) is None:
                return

    def wait(self, jobs: Sequence[str], *, any: bool = False, timeout: int | None = None) -> protocol.WaitResult:
        """Until all are finished (or any is), or `timeout` microseconds are over."""
        return _typed(
            self.call("job.wait", protocol.WaitParams(tuple(jobs), any=any, timeout=timeout)), protocol.WaitResult
        )

    def stop(self, job: str, *, signal: int | None = None, grace: int | None = None) -> Job:
        """Stop signal, `grace` microseconds, SIGKILL; returns when it is finished."""
        return _typed(self.call("job.stop", protocol.StopParams(job, signal=signal, grace=grace)), Job)

    def kill(self, job: str, signal: int = 9, *, all: bool = False) -> Job:
        return _typed(self.call("job.kill", protocol.KillParams(job, signal=signal, all=all)), Job)

    def pause(self, job: str) -> Job:
        return _typed(self.call("job.pause", protocol.JobParams(job)), Job)

    def resume(self, job: str) -> Job:
        return _typed(self.call("job.resume", protocol.JobParams(job)), Job)

    def update(self, job: str, limits: Limits, *, lift: Sequence[str] = (), timeout: int | None = None) -> Job:
        """Other limits: all of them, or none where one is refused."""
        return _typed(self.call("job.update", protocol.UpdateParams(job, limits, tuple(lift), timeout)), Job)

    def rerun(self, job: str) -> protocol.RunResult:
        return _typed(self.call("job.rerun", protocol.JobParams(job)), protocol.RunResult)

    def rename(self, job: str, name: str | None) -> Job:
        return _typed(self.call("job.rename", protocol.RenameParams(job, name)), Job)

    def remove(self, job: str, *, force: bool = False) -> Job:
        """Forget a finished job; with `force`, stop it first. The job as it was."""
        return _typed(self.call("job.remove", protocol.RemoveParams(job, force)), Job)

    def open_output(self, job: str) -> Log:
        """The job's log, to be read at file speed and to be closed by the caller."""
        _, fds = self.call_with_fds("output.open", protocol.JobParams(job))
        if len(fds) != 2:
            fdpass.close_all(fds)
            raise errors.ConnectionFailed(f"output.open gave {len(fds)} descriptors in place of 2")
        return Log(*fds)

    def wait_output(self, job: str, offset: int, *, timeout: int | None = None) -> protocol.OutputWaitResult:
        """Until there is output past `offset`, or no more will come."""
        return _typed(
            self.call("output.wait", protocol.OutputWaitParams(job, offset, timeout)), protocol.OutputWaitResult
        )

    def events(
        self, cursor: str = "now", *, all: bool = False, jobs: Sequence[str] = (), follow: bool = True
    ) -> EventStream:
        """What happens to jobs (full ids; none: all) from now on, or behind a cursor. With
        `all`, an admin gets everybody's. Without `follow`, only what there is by now."""
        return EventStream(self, protocol.SubscribeParams(cursor, all, tuple(jobs)), follow=follow)

    def info(self) -> protocol.InfoResult:
        return _typed(self.call("daemon.info", protocol.InfoParams()), protocol.InfoResult)

    def _send(self, method: str, params: Params, fds: Sequence[int]) -> int:
        number = self._connection.next_id()
        line = protocol.encode({"jsonrpc": "2.0", "id": number, "method": method, "params": params})
        self._connection.send(line, fds)
        return number


class EventStream(Iterator[Event]):
    """Blocks for the next event. Made, it misses nothing that happens from then on, however
    slowly it is read; where events are gone all the same, a `gap` stands for them."""

    def __init__(self, client: Client, params: protocol.SubscribeParams, *, follow: bool) -> None:
        self.cursor = params.cursor
        """behind the event that was given last: to go on from, on a new connection too"""
        self._client = client
        self._params = params
        self._follow = follow
        self._events: deque[Event] = deque()
        self._next, self._more = params.cursor, True
        self._ask(0)

    def __next__(self) -> Event:
        while not self._events:
            self.cursor = self._next
            if not self._follow and not self._more:
                raise StopIteration
            self._ask(None if self._follow else 0)
        event = self._events.popleft()
        self.cursor = event.cursor
        return event

    def _ask(self, timeout: int | None) -> None:
        params = msgspec.structs.replace(self._params, cursor=self._next, timeout=timeout)
        answer = _typed(self._client.call("events.subscribe", params), protocol.SubscribeResult)
        self._events.extend(answer.events)
        self._next, self._more = answer.next, answer.more
        if not answer.events:
            self.cursor = answer.next


def _typed(result: object, kind: type[T]) -> T:
    assert isinstance(result, kind)
    return result


def _result(method: str, number: int, line: bytes) -> Any:
    try:
        answer = _answers.decode(line)
        if answer.id not in (number, None):
            raise errors.ConnectionFailed("workerd answers something that was not asked")
        if answer.error is not UNSET:
            raise protocol.error_from(answer.error)
        if answer.result is UNSET:
            raise errors.ConnectionFailed("workerd's answer has neither a result nor an error")
        return msgspec.json.decode(answer.result, type=METHODS[method].result)
    except msgspec.DecodeError as error:
        raise errors.ConnectionFailed(f"this is not workerd's answer, or not of this version: {error}") from error
