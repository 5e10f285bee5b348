"""One connection to workerd on asyncio: many requests under way, answers in any order.

asyncio's streams cannot take descriptors, so the loop itself reads the socket with
recvmsg. What must hold: every request that was sent has exactly one answer, taken for it
whether somebody still waits or not (a cancelled call), with the descriptors that came for
it; and a request's descriptors are ours, until they are sent.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections import deque
from collections.abc import Sequence
from typing import Any

from msgspec import UNSET

from workerctl import wire
from workerctl.api import answers
from workerctl.reach import explain
from workerd import fdpass, protocol
from workerd.errors import ConnectionFailed, InvalidParams, InvalidRequest
from workerd.protocol import Params

READ_SIZE = 1 << 16
ROOM = 1 << 18
"""bytes that may wait to be sent before callers do"""
MOST_UNDER_WAY = 960
"""requests; workerd takes 1024 of one connection"""

WAITS = frozenset({"job.wait", "output.wait", "events.subscribe"})
"""may be asked again, and end with their connection (workerd.connection)"""
MOST_ABANDONED = 64
"""waits that were cancelled, and of which workerd cannot be told but by hanging up"""


class Moved(ConnectionFailed):
    """A wait is to be asked again on another connection: this one had too many that nobody
    waits for. Never shown."""

    kind = "moved"


class Asked:
    """A request under way."""

    __slots__ = ("answer", "begun", "fds", "line", "method", "number")

    def __init__(self, number: int, method: str, line: bytes, fds: tuple[int, ...], answer: asyncio.Future[Any]):
        self.number = number
        self.method = method
        self.line = memoryview(line)
        """what is left to be sent of it"""
        self.fds = fds
        self.begun = False
        self.answer = answer


class AsyncConnection:
    """Belongs to the loop that it was made in. `lost` says why it ended, once it has."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._loop = asyncio.get_running_loop()
        self._number = 0
        self._under_way: dict[int, Asked] = {}
        self._outgoing: deque[Asked] = deque()
        self._waiting_bytes = 0
        self._abandoned = 0
        """requests that were sent, and for whose answers nobody waits any more"""
        self._deeds = 0
        """others for which somebody waits, and which are no waits"""
        self._entering = 0
        """callers that wait for room"""
        self._room = asyncio.Event()
        self._room.set()
        self._writing = False
        self._rest = bytearray()
        self._fds: deque[int] = deque()
        self.lost: ConnectionFailed | None = None
        self._loop.add_reader(sock, self._readable)

    @property
    def free(self) -> int:
        """How many more requests it takes now."""
        if self.lost is not None or self._abandoned >= MOST_ABANDONED:
            return 0
        return MOST_UNDER_WAY - len(self._under_way) - self._entering

    def rid(self) -> None:
        """Hang up where too much of what is under way is abandoned, and nothing is lost by
        it: workerd then forgets that, and the waits that are left move."""
        if self._abandoned >= MOST_ABANDONED and not self._deeds and not self._entering:
            self.close(Moved("this connection has ended"))

    async def ask(self, method: str, params: Params, fds: Sequence[int] = ()) -> tuple[Any, list[int]]:
        """The answer, and the descriptors that ride on it, now the caller's to close; those
        that go along are copied before this returns or is cancelled. Raises what workerd
        answers; ConnectionFailed where the connection ends before."""
        await self._enter()
        self._number += 1
        line = answers.encoded(self._number, method, params)
        if len(line) > wire.MAX_REQUEST:
            raise InvalidParams(f"the request is {len(line)} bytes long, more than the {wire.MAX_REQUEST} taken")
        asked = Asked(self._number, method, line, _copies(fds), self._loop.create_future())
        self._under_way[asked.number] = asked
        self._deeds += method not in WAITS
        self._put(asked)
        try:
            result: tuple[Any, list[int]] = await asked.answer
        except BaseException:
            self._abandon(asked)
            raise
        finally:
            self._deeds -= method not in WAITS
        return result

    async def _enter(self) -> None:
        """Back-pressure: where workerd does not read as fast as we ask, that waits here."""
        self._entering += 1
        try:
            while self.lost is None and not self._room.is_set():
                await self._room.wait()
        finally:
            self._entering -= 1
        if self.lost is not None:
            raise type(self.lost)(self.lost.message)

    def close(self, why: ConnectionFailed | None = None) -> None:
        """Whoever waits gets `why`. May be called twice."""
        if self.lost is not None:
            return
        self.lost = why or ConnectionFailed("this client was closed")
        self._loop.remove_reader(self._sock)
        self._stop_writing()
        self._sock.close()
        for asked in self._outgoing:
            fdpass.close_all(asked.fds)
        self._outgoing.clear()
        fdpass.close_all(self._fds)
        self._fds.clear()
        self._room.set()
        for asked in self._under_way.values():
            if not asked.answer.done():
                asked.answer.set_exception(type(self.lost)(self.lost.message))
        self._under_way.clear()

    # ── out ──

    def _put(self, asked: Asked) -> None:
        self._outgoing.append(asked)
        self._waiting_bytes += len(asked.line)
        if not self._writing:
            self._write()
        if self._waiting_bytes > ROOM:
            self._room.clear()

    def _write(self) -> None:
        try:
            while self._outgoing:
                self._write_some(self._outgoing[0])
        except (BlockingIOError, InterruptedError):
            if not self._writing:
                self._writing = True
                self._loop.add_writer(self._sock, self._write)
            return
        except OSError:
            # What was read already may say why, and that comes first.
            self._loop.call_soon(self._hang_up)
        self._stop_writing()

    def _write_some(self, asked: Asked) -> None:
        sent = fdpass.send(self._sock, asked.line, asked.fds)
        asked.begun = True
        fdpass.close_all(asked.fds)
        asked.fds = ()
        asked.line = asked.line[sent:]
        self._drop_waiting(sent)
        if not asked.line:
            self._outgoing.popleft()

    def _drop_waiting(self, count: int) -> None:
        self._waiting_bytes -= count
        if self._waiting_bytes <= ROOM:
            self._room.set()

    def _stop_writing(self) -> None:
        if self._writing:
            self._writing = False
            self._loop.remove_writer(self._sock)

    def _abandon(self, asked: Asked) -> None:
        """Nobody waits for it any more: it is not sent, or its answer is thrown away."""
        if asked.answer.done() and not asked.answer.cancelled() and asked.answer.exception() is None:
            fdpass.close_all(asked.answer.result()[1])  # it came while the call was being cancelled
        asked.answer.cancel()
        if asked.number not in self._under_way:
            return
        if asked.line and not asked.begun and asked in self._outgoing:
            self._outgoing.remove(asked)
            self._drop_waiting(len(asked.line))
            fdpass.close_all(asked.fds)
            del self._under_way[asked.number]
        else:
            self._abandoned += 1

    # ── in ──

    def _readable(self) -> None:
        try:
            data, fds = fdpass.receive(self._sock, READ_SIZE, protocol.MAX_FDS)
        except (BlockingIOError, InterruptedError):
            return
        except (OSError, InvalidRequest) as error:
            self.close(ConnectionFailed(f"the connection to workerd was lost: {error}"))
            return
        self._fds.extend(fds)
        if not data:
            self._hang_up()
            return
        self._rest += data
        *lines, rest = self._rest.split(b"\n")
        self._rest = rest
        for line in lines:
            if self.lost is None:
                self._take(bytes(line))

    def _hang_up(self) -> None:
        self.close(ConnectionFailed("the connection to workerd was lost before it answered; jobs run on"))

    def _take(self, line: bytes) -> None:
        try:
            answer = answers.decoded(line)
            asked = self._whose(answer)
        except ConnectionFailed as error:
            self.close(error)
            return
        received: list[int] = []
        try:
            result = answers.result_of(asked.method, answer)
            received = self._claim(getattr(result, "fds", 0))
            answers.check_fds(asked.method, result, received)
        except Exception as error:
            fdpass.close_all(received)
            if not asked.answer.done():
                asked.answer.set_exception(error)
            if isinstance(error, ConnectionFailed):
                self.close(error)  # whose descriptors came is not known any more
        else:
            if asked.answer.done():
                fdpass.close_all(received)
            else:
                asked.answer.set_result((result, received))

    def _whose(self, answer: protocol.Response) -> Asked:
        """Raises ConnectionFailed where it is nobody's."""
        if answer.id is None and answer.error is not UNSET:  # and it hangs up
            raise ConnectionFailed(f"workerd refuses what it was sent: {answer.error.message}")
        asked = self._under_way.pop(answer.id, None) if isinstance(answer.id, int) else None
        if asked is None:
            raise ConnectionFailed("workerd answers something that was not asked")
        self._abandoned -= asked.answer.cancelled()
        return asked

    def _claim(self, count: int) -> list[int]:
        """The descriptors of the next answer that has some, in the order in which they came."""
        return [self._fds.popleft() for _ in range(min(count, len(self._fds)))]


def _copies(fds: Sequence[int]) -> tuple[int, ...]:
    copied: list[int] = []
    try:
        for fd in fds:
            copied.append(os.dup(fd))
    except BaseException:
        fdpass.close_all(copied)
        raise
    return tuple(copied)


async def connect(path: str | None) -> AsyncConnection:
    """Raises ConnectionFailed (NotRunning, SocketForbidden)."""
    if path is None and os.environ.get("WORKER_HOST"):
        raise ConnectionFailed("WORKER_HOST names another machine, which an AsyncClient does not reach: use a Client")
    where = wire.socket_path(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # Where the daemon's backlog is full, connect(2) waits: not in the loop. A thread
        # that waits on when we are cancelled ends with its socket, which is shut down.
        await asyncio.to_thread(sock.connect, where)
        return AsyncConnection(sock)
    except OSError as error:
        sock.close()
        raise explain(where, error) from error
    except BaseException:
        sock.close()
        raise
