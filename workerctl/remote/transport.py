"""One connection to a workerd over there: what wire.Connection has in place of a socket.

It is one channel, whose DATA are the lines of the RPC as they are. The thread that
brings them writes into a socket, so that they can be waited for with poll(2).
"""

from __future__ import annotations

import json
import socket
from _queue import SimpleQueue

from workerctl import threads
from workerctl.remote import frames, nearfds
from workerctl.remote.mux import Channel, Closed
from workerd.errors import BY_KIND, ConnectionFailed, HostUnreachable

TYPE_CHECKING = False  # as typing has it, without its 9 ms
if TYPE_CHECKING:
    from collections.abc import Sequence

    from workerctl.remote.link import Link
    from workerctl.wire import Connection
    from workerd.errors import WorkerError
    from workerd.output import Log


class FarTransport:
    """Owned by one Connection."""

    def __init__(self, link: Link, socket_path: str | None) -> None:
        self._link = link
        self._path = socket_path
        self._channel = link.mux.open(kind="rpc", socket=socket_path)
        self._sock, self._other = socket.socketpair()
        self._fds: SimpleQueue[int] = SimpleQueue()
        self._inputs: list[Channel] = []
        threads.begin(self._bring)

    def send(self, line: bytes, fds: Sequence[int] = ()) -> None:
        """Raises BrokenPipeError where there is nobody any more."""
        try:
            if fds:
                self._announce(line, fds)
            self._channel.send(line)
        except Closed:
            raise BrokenPipeError from None

    def receive(self, size: int) -> bytes:
        return self._sock.recv(size)

    def receive_with_fds(self, size: int, max_fds: int) -> tuple[bytes, list[int]]:
        data, fds = self._sock.recv(size), []
        while not self._fds.empty():
            fds.append(self._fds.get())
        return data, fds

    def fileno(self) -> int:
        return self._sock.fileno()

    def find_log(self, connection: Connection, job_id: str) -> tuple[str, Log]:
        return self._link.find_log(job_id, self._path)

    def lost(self) -> WorkerError | None:
        """Why there is nobody any more, where that is known better than that it is so."""
        return self._link.error(self._channel.closed)

    def finish(self, timeout: float | None) -> bool:
        """Until the standard input that was given to a job is there, or nobody reads it."""
        while self._inputs:
            if not self._inputs[0].wait_closed(timeout):
                return False
            self._inputs.pop(0)
        return True

    def close(self) -> None:
        self._channel.close()
        self.hang_up()

    def hang_up(self) -> None:
        """At this end alone; the link has ended, or goes on without it."""
        self._link.let_go(self)
        self._sock.close()

    def _announce(self, line: bytes, fds: Sequence[int]) -> None:
        """As protocol has it: the first is read where `stdin` says so, the others are written."""
        first = 1 if json.loads(line).get("params", {}).get("stdin") else 0
        given = [nearfds.give(self._link.mux, fd, reads=place < first) for place, fd in enumerate(fds)]
        self._inputs += given[:first]
        self._channel.post(frames.FDS, json.dumps([channel.number for channel in given]).encode())

    def _bring(self) -> None:
        try:
            while (frame := self._channel.inbox.get()).kind in (frames.DATA, frames.FDS):
                if frame.kind == frames.FDS:
                    self._take(json.loads(frame.payload))
                else:
                    self._other.sendall(frame.payload)
                    self._channel.grant(len(frame.payload))
        except OSError:
            pass  # closed on our side
        self._other.close()

    def _take(self, numbers: Sequence[int]) -> None:
        for number in numbers:
            channel = self._link.mux.channels.get(number)
            if channel is None:  # the link was just lost, as the next read finds
                raise ConnectionResetError
            if channel.params["kind"] == "leash":
                self._inputs.clear()  # whoever holds it stays as long as it is wanted
            fd = nearfds.take(self._link.mux, channel)
            self._link.terminals[fd] = channel
            self._fds.put(fd)


def error_of(closed: dict[str, str], host: str) -> WorkerError:
    """The error that CLOSE or ANSWER gave, as its own class; one of connecting names the
    machine it is about."""
    made = BY_KIND.get(closed.get("kind", ""), ConnectionFailed)
    message = closed.get("message", "it gave no reason")
    connecting = issubclass(made, ConnectionFailed) and made is not HostUnreachable
    return made(f"{host}: {message}" if connecting else message)
