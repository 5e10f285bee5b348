"""The socket: accept, and whose turn it is. Nothing here knows what a job is.

Peers are authenticated at accept, by what the kernel says of connect(2). Of the
requests that have come in (workerd.connection) each user's are taken a few at a time,
in turn with the other users', however many connections they come from.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import socket
from collections import deque
from collections.abc import Callable

from workerd import protocol
from workerd.auth import Peer, peer_of
from workerd.clientfds import ClientFds
from workerd.connection import READ_SIZE, Connection
from workerd.errors import NotPermitted, WorkerError
from workerd.gate import Account, Gate
from workerd.service import Service

log = logging.getLogger("workerd")

_GONE_SECONDS = 2.0
"""in which a killed daemon's last child lets go of its socket"""
_BACKLOG = 128
"""connections that wait to be accepted; who comes then waits in connect(2), in turn. So
nobody stands behind thousands of somebody else's"""
_ACCEPTED_AT_ONCE = 64
_TURN_REQUESTS, _TURN_BYTES = 16, 64 << 10
"""taken of one user's before another's turn"""
_TURN_ALONE = 64
"""requests, where no other user has any: before the loop sees to the rest of the world"""
_AT_ONCE = 8
"""requests taken of one connection before another one of its user's"""
_OUT_OF = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_RETRY_SECONDS = 1.0
"""after which accepting is tried again, where no connection was closed before"""


class Server:
    """Owns the listening socket and all connections. `admits` is the policy's word on
    who may connect."""

    def __init__(
        self, sock: socket.socket, service: Service, tasks: asyncio.TaskGroup, admits: Callable[[Peer], bool]
    ) -> None:
        self._sock = sock
        self.handlers = service.handlers
        self.quick = service.quick
        self.tasks = tasks
        self.loop = asyncio.get_running_loop()
        self.client_fds = ClientFds(self.loop)
        self.buffer = memoryview(bytearray(READ_SIZE))
        self._admits = admits
        self._gate = Gate()
        self._connections: set[Connection] = set()
        self._turns: dict[int, deque[Connection]] = {}
        """by uid: the connections with requests that are not taken yet"""
        self.idle = True
        self._accepting = False
        self._retry: asyncio.TimerHandle | None = None
        sock.setblocking(False)

    def start(self) -> None:
        self._accepting = True
        self._sock.listen(_BACKLOG)  # anew: systemd's may be longer
        self.loop.add_reader(self._sock, self._accept)

    def stop_accepting(self) -> None:
        self._accepting = False
        self._end_pause()
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
        self.client_fds.stop()

    def forget(self, connection: Connection) -> None:
        self._connections.discard(connection)
        self._gate.leave(connection.account)
        if self._retry is not None:
            self._end_pause()
            self.loop.add_reader(self._sock, self._accept)

    def settle(self, account: Account) -> None:
        """A request ended whose connection is gone."""
        self._gate.settle(account)

    def check_peers(self) -> None:
        """Hang up on those whom the policy does not admit any more."""
        for connection in tuple(self._connections):
            if not self._admits(connection.peer):
                connection.refuse(_not_admitted())

    # ── accepting ──

    def _accept(self) -> None:
        for _ in range(_ACCEPTED_AT_ONCE):
            try:
                sock, _ = self._sock.accept()
            except BlockingIOError:
                return
            except ConnectionAbortedError:
                continue
            except OSError as error:
                self._pause(error)
                return
            sock.setblocking(False)
            try:
                peer = peer_of(sock)
            except OSError as error:
                log.warning("a connection without a peer: %s", error)
                sock.close()
                continue
            try:
                self._connect(sock, peer)
            except WorkerError as error:
                self._turn_away(sock, peer, error)

    def _connect(self, sock: socket.socket, peer: Peer) -> None:
        if not self._admits(peer):
            raise _not_admitted()
        account = self._gate.enter(peer.uid)
        connection = Connection(self, sock, peer, account)
        self._connections.add(connection)
        connection.start()

    def _turn_away(self, sock: socket.socket, peer: Peer, error: WorkerError) -> None:
        """Say why; a socket that was just made takes one line. Descriptors may be in it."""
        with contextlib.suppress(OSError):
            sock.send(protocol.encode_error(None, error), socket.MSG_NOSIGNAL)
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)
        self.client_fds.close(peer.uid, (sock.detach(),))

    def _pause(self, error: OSError) -> None:
        """The connection stays in the backlog, so the socket would be readable for ever:
        try again when one is closed, or after a while."""
        if error.errno not in _OUT_OF:
            log.error("cannot accept a connection: %s", error)
            return
        log.error("no more connections for now: %s", error)
        self.loop.remove_reader(self._sock)
        self._retry = self.loop.call_later(_RETRY_SECONDS, self._resume)

    def _resume(self) -> None:
        self._retry = None
        if self._accepting:
            self.loop.add_reader(self._sock, self._accept)

    def _end_pause(self) -> None:
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None

    # ── turns ──

    def enqueue(self, connection: Connection) -> None:
        """It has requests to be taken."""
        self._turns.setdefault(connection.peer.uid, deque()).append(connection)
        if self.idle:
            self.idle = False
            self._pump()

    def _pump(self) -> None:
        """A turn of each user who has requests; then whatever else the loop has to do."""
        most = _TURN_ALONE if len(self._turns) == 1 else _TURN_REQUESTS
        for uid, queue in tuple(self._turns.items()):
            self._take_turn(queue, most)
            if not queue:
                del self._turns[uid]
        self.idle = not self._turns
        if self._turns:
            self.loop.call_soon(self._pump)

    def _take_turn(self, queue: deque[Connection], requests: int) -> None:
        size = _TURN_BYTES
        while queue and requests > 0 and size > 0:
            connection = queue.popleft()
            begun, taken = connection.take(min(requests, _AT_ONCE))
            requests, size = requests - begun, size - taken
            if connection.has_request:
                queue.append(connection)
            else:
                connection.send_answers()


def _not_admitted() -> NotPermitted:
    return NotPermitted("the policy does not let you use workerd: ask the administrator ([connect] in workerd.toml)")


def _is_left_behind(path: str) -> bool:
    """Whether a daemon that was killed left its socket there. Raises FileExistsError
    where one listens."""
    while True:
        with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as probe:
            try:
                probe.connect(path)
            except FileNotFoundError:
                return False
            except ConnectionRefusedError:
                return True
            # A child that a killed daemon was just starting holds the listening socket too;
            # once it executes its program, this connection is reset.
            probe.settimeout(_GONE_SECONDS)
            try:
                alive = bool(probe.recv(1))
            except ConnectionResetError:
                alive = False
            except TimeoutError:
                alive = True
            if alive:
                raise FileExistsError(17, "another workerd listens there", path)


def bind(path: str, group: int | None) -> socket.socket:
    """A listening socket of our own, mode 0660. Raises OSError, also where another
    daemon answers there (EADDRINUSE)."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        while _is_left_behind(path):
            os.unlink(path)
        saved = os.umask(0o117)
        try:
            sock.bind(path)
        finally:
            os.umask(saved)
        if group is not None:
            os.chown(path, -1, group)
        sock.listen(_BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock
