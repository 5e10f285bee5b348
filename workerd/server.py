"""The socket: accept, frame, dispatch, answer. Nothing here knows what a job is.

Peers are authenticated at accept, by what the kernel says of connect(2). A connection
is read with recvmsg by the loop itself; each request is a task of its own, so answers
come as they are ready. A client that goes away ends its waits, never its deeds.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections import deque

import msgspec

from workerd import fdpass, protocol
from workerd.auth import Peer, peer_of
from workerd.errors import InternalError, InvalidParams, ParseError, RequestError, WorkerError
from workerd.service import Answer, Call, Service

log = logging.getLogger("workerd")

_READ_SIZE = 65_536
_MAX_BACKLOG = 8 << 20
"""bytes of answers that a client may leave unread"""
_MAX_PENDING = 1024
"""requests of one connection under way at once"""
_QUEUED_FDS = 64
"""descriptors of one connection that no request has claimed yet"""
_ABANDONED_WITH_CLIENT = frozenset({"job.wait", "output.wait"})


class Server:
    """Owns the listening socket and all connections."""

    def __init__(self, sock: socket.socket, service: Service, tasks: asyncio.TaskGroup) -> None:
        self._sock = sock
        self.service = service
        self.tasks = tasks
        self.loop = asyncio.get_running_loop()
        self._connections: set[Connection] = set()
        sock.setblocking(False)

    def start(self) -> None:
        self.loop.add_reader(self._sock, self._accept)

    def stop_accepting(self) -> None:
        self.loop.remove_reader(self._sock)

    async def drain(self, seconds: float) -> None:
        """Let the requests under way end, for up to `seconds`; then close. What
        is cancelled then (a stop that waits, say) is taken up by the next daemon."""
        deeds = [task for connection in self._connections for task in connection.deeds()]
        if deeds:
            _, pending = await asyncio.wait(deeds, timeout=seconds)
            for task in pending:
                task.cancel()
        for connection in tuple(self._connections):
            connection.close()

    def forget(self, connection: Connection) -> None:
        self._connections.discard(connection)

    def _accept(self) -> None:
        try:
            sock, _ = self._sock.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        except OSError as error:
            log.error("cannot accept a connection: %s", error)
            return
        try:
            peer = peer_of(sock)
        except OSError as error:
            log.warning("a connection without a peer: %s", error)
            sock.close()
            return
        sock.setblocking(False)
        self._connections.add(Connection(self, sock, peer))


class Connection:
    """One client. Bytes in, requests out; answers in, bytes out."""

    def __init__(self, server: Server, sock: socket.socket, peer: Peer) -> None:
        self._server = server
        self._loop = server.loop
        self._sock = sock
        self._peer = peer
        self._received = bytearray()
        self._fds: deque[int] = deque()
        self._unsent: deque[tuple[memoryview, tuple[int, ...]]] = deque()
        self._unsent_bytes = 0
        self._tasks: dict[asyncio.Task[None], bool] = {}
        self._closed = False
        self._reading = True
        self._loop.add_reader(sock, self._readable)

    def deeds(self) -> list[asyncio.Task[None]]:
        """Requests under way that would be missed: all but the waits."""
        return [task for task, abandoned in self._tasks.items() if not abandoned]

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._loop.remove_reader(self._sock)
        self._loop.remove_writer(self._sock)
        self._sock.close()
        fdpass.close_all(self._fds)
        for _, fds in self._unsent:
            fdpass.close_all(fds)
        self._unsent.clear()
        for task, abandoned in tuple(self._tasks.items()):
            if abandoned:
                task.cancel()
        self._server.forget(self)

    # ── in ──

    def _readable(self) -> None:
        try:
            data, fds = fdpass.receive(self._sock, _READ_SIZE, protocol.MAX_FDS)
        except (BlockingIOError, InterruptedError):
            return
        except RequestError as error:
            self._refuse(error)
            return
        except OSError:
            self.close()
            return
        self._fds.extend(fds)
        if len(self._fds) > _QUEUED_FDS:
            self._refuse(InvalidParams("too many file descriptors that no request claims", field="fds"))
        elif not data:
            self._end_of_input()
        else:
            self._received += data
            self._take_lines(len(data))

    def _end_of_input(self) -> None:
        """A half-closed client still gets the answers under way."""
        self._loop.remove_reader(self._sock)
        if not self.deeds():
            self.close()
            return
        self._reading = False
        for task, abandoned in self._tasks.items():
            if abandoned:
                task.cancel()

    def _take_lines(self, fresh: int) -> None:
        buffer = self._received
        start = 0
        search_from = len(buffer) - fresh
        while not self._closed and (newline := buffer.find(b"\n", max(start, search_from))) >= 0:
            line = bytes(buffer[start:newline])
            start = newline + 1
            if len(line) >= protocol.MAX_REQUEST:
                self._too_large()
                return
            if line.strip():
                self._take_line(line)
        if self._closed:
            return
        del buffer[:start]
        if len(buffer) >= protocol.MAX_REQUEST:
            self._too_large()

    def _too_large(self) -> None:
        self._refuse(ParseError(f"a request of more than {protocol.MAX_REQUEST} bytes"))

    def _refuse(self, error: WorkerError) -> None:
        """Answer what cannot be attributed to a request, and hang up."""
        self._loop.remove_reader(self._sock)
        self._send(protocol.encode_error(None, error))
        self.close()

    def _take_line(self, line: bytes) -> None:
        try:
            members = protocol.split_batch(line)
        except RequestError as error:
            self._send(protocol.encode_error(None, error))
            return
        if members is None:
            self._begin(line, None)
            return
        batch = Batch(self, len(members))
        for member in members:
            self._begin(member, batch)

    def _begin(self, data: bytes | msgspec.Raw, batch: Batch | None) -> None:
        try:
            request = protocol.decode_request(data)
        except RequestError as error:
            self.answer(protocol.encode_error(protocol.recover_id(data), error), (), batch)
            return
        request_id: protocol.RequestId = None if request.id is msgspec.UNSET else request.id
        notification = request.id is msgspec.UNSET
        try:
            if len(self._tasks) >= _MAX_PENDING:
                raise InvalidParams(f"more than {_MAX_PENDING} requests under way on one connection")
            params = protocol.decode_params(request)
            fds = self._claim(getattr(params, "fds", 0))
        except RequestError as error:
            fdpass.close_all(self._claim(min(len(self._fds), protocol.claimed_fds(request))))
            self.answer(None if notification else protocol.encode_error(request_id, error), (), batch)
            return
        call = Call(self._peer, params, fds)
        task = self._server.tasks.create_task(self._carry_out(request.method, call, request_id, notification, batch))
        self._tasks[task] = request.method in _ABANDONED_WITH_CLIENT
        task.add_done_callback(self._task_done)

    def _claim(self, count: int) -> tuple[int, ...]:
        if count > len(self._fds):
            raise InvalidParams(f"{count} file descriptors were announced, {len(self._fds)} came", field="fds")
        return tuple(self._fds.popleft() for _ in range(count))

    def _task_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.pop(task, None)
        if not self._reading and not self._closed and not self.deeds() and not self._unsent:
            self.close()

    # ── carrying out ──

    async def _carry_out(
        self, method: str, call: Call, request_id: protocol.RequestId, notification: bool, batch: Batch | None
    ) -> None:
        answer = Answer(msgspec.Struct())
        try:
            answer = await self._server.service.handlers[method](call)
            line = protocol.encode_result(request_id, answer.result)
        except WorkerError as error:
            line = protocol.encode_error(request_id, error)
        except Exception:
            log.exception("%s failed", method)
            line = protocol.encode_error(request_id, InternalError("internal error; workerd's log has the details"))
        finally:
            fdpass.close_all(call.fds)
        if notification or (batch is not None and answer.fds):
            fdpass.close_all(answer.fds)
            answer = answer._replace(fds=())
        self.answer(None if notification else line, answer.fds, batch)

    # ── out ──

    def answer(self, line: bytes | None, fds: tuple[int, ...], batch: Batch | None) -> None:
        """None: a notification, which gets no answer."""
        if batch is not None:
            batch.add(line)
        elif line is not None:
            self._send(line, fds)

    def _send(self, line: bytes, fds: tuple[int, ...] = ()) -> None:
        if self._closed:
            fdpass.close_all(fds)
            return
        self._unsent.append((memoryview(line), fds))
        self._unsent_bytes += len(line)
        if len(self._unsent) == 1:
            self._flush()
        if self._unsent_bytes > _MAX_BACKLOG:
            log.warning("uid %d does not read its answers: hanging up", self._peer.uid)
            self.close()

    def _flush(self) -> None:
        while self._unsent:
            view, fds = self._unsent[0]
            try:
                sent = fdpass.send(self._sock, view, fds)
            except (BlockingIOError, InterruptedError):
                self._loop.add_writer(self._sock, self._flush)
                return
            except OSError:
                self.close()
                return
            fdpass.close_all(fds)
            self._unsent_bytes -= sent
            if sent < len(view):
                self._unsent[0] = (view[sent:], ())
            else:
                self._unsent.popleft()
        self._loop.remove_writer(self._sock)
        if not self._reading and not self._tasks:
            self.close()


class Batch:
    """The answers to a batch: one array, once all are there; nothing where all its
    members were notifications."""

    def __init__(self, connection: Connection, members: int) -> None:
        self._connection = connection
        self._open = members
        self._lines: list[bytes] = []

    def add(self, line: bytes | None) -> None:
        self._open -= 1
        if line is not None:
            self._lines.append(line.rstrip(b"\n"))
        if self._open == 0 and self._lines:
            self._connection.answer(b"[" + b",".join(self._lines) + b"]\n", (), None)


def bind(path: str, group: int | None) -> socket.socket:
    """A listening socket of our own, mode 0660. Raises OSError, also where another
    daemon answers there (EADDRINUSE)."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as probe:
            try:
                probe.connect(path)
            except FileNotFoundError:
                pass
            except ConnectionRefusedError:
                os.unlink(path)  # left behind by a daemon that was killed
            else:
                raise FileExistsError(17, "another workerd listens there", path)
        saved = os.umask(0o117)
        try:
            sock.bind(path)
        finally:
            os.umask(saved)
        if group is not None:
            os.chown(path, -1, group)
        sock.listen(1024)
    except BaseException:
        sock.close()
        raise
    return sock
