"""One client: bytes in, requests out; answers in, bytes out.

A connection is read with recvmsg by the loop itself; each request is a task of its own,
so answers come as they are ready. Nothing is read while requests that were read are not
taken yet, or answers not by the client: what a client sends faster waits in its socket.
A client that goes away ends its waits, never its deeds.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections import deque
from collections.abc import Iterable
from typing import Protocol

import msgspec

from workerd import errors, fdpass, gate, protocol
from workerd.auth import Peer
from workerd.batch import Batch
from workerd.clientfds import ClientFds
from workerd.errors import Exhausted, InvalidParams, ParseError, RequestError, WorkerError
from workerd.outbox import Outbox
from workerd.service import Answer, Call, Handler, QuickHandler

log = logging.getLogger("workerd")

READ_SIZE = 65_536
_MAX_PENDING = 1024
"""requests of one connection under way at once"""
_QUEUED_FDS = 64
"""descriptors of one connection that no request has claimed yet"""
REQUEST_SECONDS = 30.0
"""from a request's first byte to its last"""
_ABANDONED_WITH_CLIENT = frozenset({"job.wait", "output.wait", "events.subscribe"})


class Owner(Protocol):
    """What a connection knows of the server."""

    loop: asyncio.AbstractEventLoop
    tasks: asyncio.TaskGroup
    handlers: dict[str, Handler]
    quick: dict[str, QuickHandler]
    client_fds: ClientFds
    buffer: memoryview
    """of READ_SIZE: for what a connection reads, until it has taken it"""
    idle: bool
    """whether no connection has requests that wait for their turn"""

    def enqueue(self, connection: Connection) -> None:
        """It has requests to be taken."""

    def forget(self, connection: Connection) -> None:
        """It is closed."""

    def settle(self, account: gate.Account) -> None:
        """A request ended whose connection is gone."""


class Connection:
    def __init__(self, server: Owner, sock: socket.socket, peer: Peer, account: gate.Account) -> None:
        self.peer = peer
        self.account = account
        self._server = server
        self._loop = server.loop
        self._sock = sock
        self._received = bytearray()
        self._taken = 0
        """bytes of it that were taken as requests"""
        self._searched = 0
        """bytes of it that are known to have no newline after `_taken`, or are before it"""
        self._line_end = -1
        """where the next request's newline is; -1 where none has come, and once it is closed"""
        self._fds: deque[int] = deque()
        self._outbox = Outbox(server.loop, sock, account, self._relieved, self.close)
        self._tasks: dict[asyncio.Task[None], bool] = {}
        self._partial: asyncio.TimerHandle | None = None
        self._closed = False
        self._ended = False
        """whether the client will send no more"""
        self._reading = False

    def start(self) -> None:
        """Read requests, from when the server knows of the connection."""
        self._update_reading()

    def deeds(self) -> list[asyncio.Task[None]]:
        """Requests under way that would be missed: all but the waits."""
        return [task for task, abandoned in self._tasks.items() if not abandoned]

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._stop_reading()
        self._outbox.close()
        self._close_socket()
        self._hold(-len(self._received))
        self._received.clear()
        self._line_end = -1
        self._time_partial()
        self.account.fds -= len(self._fds)
        self._discard(self._fds)
        self._fds.clear()
        for task, abandoned in tuple(self._tasks.items()):
            if abandoned:
                task.cancel()
        self._server.forget(self)

    def _close_socket(self) -> None:
        """After its end nothing can be in it; else there may be descriptors, unread."""
        if self._ended:
            self._sock.close()
            return
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)
        self._discard((self._sock.detach(),))

    def _discard(self, fds: Iterable[int]) -> None:
        self._server.client_fds.close(self.peer.uid, fds)

    # ── in ──

    def _update_reading(self) -> None:
        wanted = not (self._closed or self._ended or self._outbox.crowded or self.has_request)
        if wanted and not self._reading:
            try:
                self._loop.add_reader(self._sock, self._readable)
            except OSError as error:  # epoll_ctl(2); a client that is not read would wait for ever
                log.error("a connection of uid %d cannot be read: %s", self.peer.uid, error)
                told = Exhausted(f"workerd cannot read this connection: {error.strerror}; try again")
                self._outbox.put(protocol.encode_error(None, told), ())
                self.close()
                return
            self._reading = True
        elif not wanted:
            self._stop_reading()

    def _stop_reading(self) -> None:
        if self._reading:
            self._reading = False
            self._loop.remove_reader(self._sock)

    def _readable(self) -> None:
        try:
            count, fds = fdpass.receive_into(self._sock, self._server.buffer, protocol.MAX_FDS, self._discard)
        except (BlockingIOError, InterruptedError):
            return
        except RequestError as error:
            self.refuse(error)
            return
        except OSError:
            self.close()
            return
        data = self._server.buffer[:count].tobytes()
        if not (fds or self._received) and data.find(b"\n") == len(data) - 1 >= 0 and self._server.idle:
            self._take_alone(data)
            return
        self._fds.extend(fds)
        self.account.fds += len(fds)
        self._received += data
        self._hold(len(data))
        if self._line_end < 0:
            self._search()
        if len(self._fds) > _QUEUED_FDS or self._unclaimed() > gate.MAX_FDS:
            self.refuse(InvalidParams("too many file descriptors that no request claims", field="fds"))
        elif not data:
            self._end_of_input()
        elif self._line_end >= 0:
            self._server.enqueue(self)
            if self.has_request:  # else `take` has seen to it
                self._update_reading()
        else:
            self._wait_for_rest()

    def _take_alone(self, line: bytes) -> None:
        """The usual case made short: one whole request, with nothing before or after it, and
        nobody's turn."""
        self._outbox.gather()
        if (answer := self._take_line(line)) is not None:
            self._send(answer)
        if self.account.held > gate.MAX_HELD:
            self._wait_for_rest()
        self._outbox.send()

    def _unclaimed(self) -> int:
        """Descriptors of this user's that are of no use, all connections together."""
        return self.account.fds + self._server.client_fds.held(self.peer.uid)

    def _wait_for_rest(self) -> None:
        """There is a request in part, or nothing."""
        if len(self._received) - self._taken >= protocol.MAX_REQUEST:
            self._too_large()
        elif self.account.held > gate.MAX_HELD:
            self.refuse(Exhausted("your unanswered requests take too much memory: send fewer at once"))
        else:
            self._time_partial()

    def _hold(self, count: int) -> None:
        self.account.held += count

    def _time_partial(self) -> None:
        partial = not self._closed and len(self._received) > self._taken and not self.has_request
        if partial and self._partial is None:
            self._partial = self._loop.call_later(REQUEST_SECONDS, self._too_slow)
        elif not partial and self._partial is not None:
            self._partial.cancel()
            self._partial = None

    def _too_slow(self) -> None:
        self.refuse(ParseError(f"a request must be there, whole, within {REQUEST_SECONDS:g} seconds"))

    def _too_large(self) -> None:
        self.refuse(ParseError(f"a request of more than {protocol.MAX_REQUEST} bytes"))

    def _end_of_input(self) -> None:
        """A half-closed client still gets the answers under way."""
        self._ended = True
        self._update_reading()
        if not self.deeds() and not self._outbox:
            self.close()
            return
        for task, abandoned in tuple(self._tasks.items()):
            if abandoned:
                task.cancel()

    @property
    def has_request(self) -> bool:
        """Whether there is one to `take`."""
        return self._line_end >= 0

    def _search(self) -> None:
        """For the next newline, where bytes have come or gone."""
        self._line_end = self._received.find(b"\n", self._searched)
        self._searched = self._line_end if self._line_end >= 0 else len(self._received)

    def take(self, most: int) -> tuple[int, int]:
        """Begin up to `most` of the requests that are there; how many, and their bytes. What is
        answered at once leaves with `send_answers`."""
        begun = size = 0
        too_large = False
        answers: list[bytes] = []
        self._outbox.gather()
        while begun < most and (newline := self._line_end) >= 0 and not too_large:
            line = bytes(self._received[self._taken : newline])
            begun += 1
            size += len(line) + 1
            self._taken = self._searched = newline + 1
            if self._taken == len(self._received) or self._taken > READ_SIZE:
                self._hold(-self._taken)
                del self._received[: self._taken]
                self._searched = self._taken = 0
            self._search()
            too_large = len(line) >= protocol.MAX_REQUEST
            if not too_large and (answer := self._take_line(line)) is not None:
                answers.append(answer)
        if answers:
            self._send(b"".join(answers))
        if too_large:
            self._too_large()
        elif begun and self._line_end < 0 and not self._closed:
            self._partial_is_new()
        return begun, size

    def send_answers(self) -> None:
        """What answers there are by now; nothing once it is closed."""
        self._outbox.send()

    def _partial_is_new(self) -> None:
        if self._partial is not None:
            self._partial.cancel()
            self._partial = None
        self._wait_for_rest()
        self._update_reading()

    def refuse(self, error: WorkerError) -> None:
        """Answer what cannot be attributed to a request, and hang up."""
        self._stop_reading()
        self._send(protocol.encode_error(None, error))
        self.close()

    def _take_line(self, line: bytes) -> bytes | None:
        """As `_begin`, with a batch or a request."""
        if line.startswith(b"{"):
            return self._begin(line, None)
        if not line.strip():
            return None
        try:
            members = protocol.split_batch(line)
        except RequestError as error:
            return protocol.encode_error(None, error)
        if members is None:
            return self._begin(line, None)
        batch = Batch(len(members), self._send)
        for member in members:
            self._begin(member, batch)
        return None

    def _begin(self, data: bytes | msgspec.Raw, batch: Batch | None) -> bytes | None:
        """The answer that is there at once, for the caller to send; all others, and those to a
        batch, are sent when they are there."""
        try:
            request = protocol.decode_request(data)
        except RequestError as error:
            return _alone(protocol.encode_error(protocol.recover_id(data), error), batch)
        request_id: protocol.RequestId = None if request.id is msgspec.UNSET else request.id
        notification = request.id is msgspec.UNSET
        try:
            if len(self._tasks) >= _MAX_PENDING:
                raise InvalidParams(f"more than {_MAX_PENDING} requests under way on one connection")
            if self.account.pending >= gate.MAX_PENDING:
                raise Exhausted(f"you have {gate.MAX_PENDING} requests under way already: wait for some answers")
            params = protocol.decode_params(request)
            count = getattr(params, "fds", 0)
            fds = self._claim(count) if count else ()
        except WorkerError as error:
            self._discard(self._claim(min(len(self._fds), protocol.claimed_fds(request))))
            return _alone(None if notification else protocol.encode_error(request_id, error), batch)
        line = None if fds else self._at_hand(request.method, params, request_id)
        if line is not None:
            return _alone(None if notification else line, batch)
        call = Call(self.peer, params, fds)
        self._start(request.method, call, request_id, notification, batch, len(data))
        return None

    def _at_hand(self, method: str, params: protocol.Params, request_id: protocol.RequestId) -> bytes | None:
        """The answer that needs nobody to be waited for, and so no task; None where it does."""
        handler = self._server.quick.get(method)
        if handler is None:
            return None
        try:
            result = handler(self.peer, params)
            return None if result is None else protocol.encode_answer(request_id, result)
        except Exception:
            return _internal_error(method, request_id)

    def _start(
        self,
        method: str,
        call: Call,
        request_id: protocol.RequestId,
        notification: bool,
        batch: Batch | None,
        size: int,
    ) -> None:
        self.account.pending += 1
        self._hold(size)
        task = self._server.tasks.create_task(self._carry_out(method, call, request_id, notification, batch))
        self._tasks[task] = method in _ABANDONED_WITH_CLIENT
        task.add_done_callback(lambda done: self._task_done(done, size))

    def _claim(self, count: int) -> tuple[int, ...]:
        if count > len(self._fds):
            raise InvalidParams(f"{count} file descriptors were announced, {len(self._fds)} came", field="fds")
        self.account.fds -= count
        return tuple(self._fds.popleft() for _ in range(count))

    def _task_done(self, task: asyncio.Task[None], size: int) -> None:
        self._tasks.pop(task, None)
        self.account.pending -= 1
        self._hold(-size)
        if self._closed:
            self._server.settle(self.account)
        elif self._ended and not self.deeds() and not self._outbox:
            self.close()

    # ── carrying out ──

    async def _carry_out(
        self, method: str, call: Call, request_id: protocol.RequestId, notification: bool, batch: Batch | None
    ) -> None:
        answer = Answer(msgspec.Struct())
        try:
            async with self.account.slot(method) or contextlib.nullcontext():
                if call.fds:
                    await self._server.client_fds.check(self.peer.uid, call.fds)
                answer = await self._server.handlers[method](call)
            line = protocol.encode_result(request_id, answer.result)
        except WorkerError as error:
            line = protocol.encode_error(request_id, error)
        except Exception:
            line = _internal_error(method, request_id)
        finally:
            self._discard(call.fds)
        if notification or (batch is not None and answer.fds):
            fdpass.close_all(answer.fds)
            answer = answer._replace(fds=())
        self.answer(None if notification else line, answer.fds, batch)

    # ── out ──

    def answer(self, line: bytes | None, fds: tuple[int, ...], batch: Batch | None) -> None:
        """None: a notification, which gets no answer."""
        if (alone := _alone(line, batch)) is not None:
            self._send(alone, fds)

    def _send(self, line: bytes, fds: tuple[int, ...] = ()) -> None:
        if self._closed:
            fdpass.close_all(fds)
            return
        if self._outbox.put(line, fds):
            self._see_to_crowd()

    def _see_to_crowd(self) -> None:
        if self._outbox.full:
            log.warning("uid %d does not read its answers: hanging up", self.peer.uid)
            self.close()
        else:
            self._update_reading()

    def _relieved(self) -> None:
        if self._ended and not self._tasks and not self._outbox:
            self.close()
        elif not self._closed:
            self._update_reading()


def _alone(line: bytes | None, batch: Batch | None) -> bytes | None:
    """What is to be sent of an answer, None of a notification: one to a batch is given to that."""
    if batch is None:
        return line
    batch.add(line)
    return None


def _internal_error(method: str, request_id: protocol.RequestId) -> bytes:
    """Of an exception that nobody expected; the log has its traceback."""
    log.exception("%s failed", method)
    internal = errors.InternalError("internal error; workerd's log has the details")
    return protocol.encode_error(request_id, internal)
