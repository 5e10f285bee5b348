"""The connection to workerd: connecting, sending a line, its answer, plain JSON calls.

The short verbs (`run`, `wait`, `kill` …) speak plain JSON values through here,
since importing msgspec, socket and typing alone takes four times as long as
starting Python; `workerctl.client` has the typed calls on top. Hence `_socket`
(the C half of `socket`, without the enums), plainjson, and imports where they are
needed.
What must hold: one request is under way at a time, unless by `call_many`.
"""

from __future__ import annotations

import _socket
import os

from workerctl import plainjson

TYPE_CHECKING = False  # as typing has it, without its 9 ms
if TYPE_CHECKING:
    from collections.abc import Sequence
    from socket import socket as FullSocket
    from typing import Any, Protocol

    from workerctl.dask.link import ClusterLink
    from workerctl.remote.link import Link
    from workerd.errors import WorkerError
    from workerd.output import Log

    class Transport(Protocol):
        """What a Connection is made of: LocalTransport, FarTransport through ssh, or
        ClusterTransport through Dask."""

        def send(self, line: bytes, fds: Sequence[int] = ()) -> None: ...
        def receive(self, size: int) -> bytes: ...
        def receive_with_fds(self, size: int, max_fds: int) -> tuple[bytes, list[int]]: ...
        def fileno(self) -> int: ...
        def find_log(self, connection: Connection, job_id: str) -> tuple[str, Log]: ...
        def lost(self) -> WorkerError | None: ...
        def finish(self, timeout: float | None) -> bool: ...
        def close(self) -> None: ...


# As workerd.protocol has them; a test holds them equal.
DEFAULT_SOCKET = "/run/workerd/workerd.sock"
MAX_REQUEST = 1 << 20
READ_SIZE = 1 << 16
WINDOW = 64
"""requests under way at most in `call_many`, so that neither side's buffer fills"""

NOTICE_SECONDS = 1.0
"""after which a person is told what keeps us"""


def socket_path(given: str | None = None) -> str:
    """The one given, or the environment's, or the system's."""
    return given or os.environ.get("WORKERD_SOCKET") or DEFAULT_SOCKET


def far() -> Link | ClusterLink | None:
    """The link to the cluster that $WORKER_CLUSTER names, or to the machine that
    $WORKER_HOST does; None for this machine."""
    if cluster := os.environ.get("WORKER_CLUSTER"):
        from workerctl.dask import link

        return link.shared(cluster)
    host = os.environ.get("WORKER_HOST")
    if not host:
        return None
    from workerctl.remote.link import shared

    return shared(host)


def link_to(host: str) -> Link:
    """One of its own, to be closed by the caller."""
    from workerctl.remote.address import parse
    from workerctl.remote.link import Link

    return Link(parse(host))


class LocalTransport:
    """A socket of this machine's. Raises NotRunning, SocketForbidden, ConnectionFailed."""

    def __init__(self, path: str) -> None:
        self._sock = connect(path)

    def send(self, line: bytes, fds: Sequence[int] = ()) -> None:
        if fds:
            from workerd import fdpass

            line = line[fdpass.send(self._full_socket(), line, fds) :]
        self._sock.sendall(line, _socket.MSG_NOSIGNAL)

    def receive(self, size: int) -> bytes:
        return self._sock.recv(size)

    def receive_with_fds(self, size: int, max_fds: int) -> tuple[bytes, list[int]]:
        from workerd import fdpass

        return fdpass.receive(self._full_socket(), size, max_fds)

    def fileno(self) -> int:
        return self._sock.fileno()

    def find_log(self, connection: Connection, job_id: str) -> tuple[str, Log]:
        from workerd.output import Log

        result, fds = connection.call_with_fds("output.open", {"id": job_id}, 2)
        if len(fds) != 2:
            from workerd import errors, fdpass

            fdpass.close_all(fds)
            raise errors.ConnectionFailed(f"workerd sent {len(fds)} descriptors in place of 2 for {result.get('id')}")
        return str(result["id"]), Log(*fds)

    def lost(self) -> None:
        """It is not known why."""

    def finish(self, timeout: float | None) -> bool:
        """What was given away is the daemon's."""
        return True

    def close(self) -> None:
        self._sock.close()

    def _full_socket(self) -> FullSocket:
        """The same connection with all that the socket module adds, as fdpass wants it."""
        from socket import socket as full_socket

        sock = full_socket(fileno=self._sock.detach())
        self._sock = sock
        return sock


class Connection:
    """A blocking connection, through `link` or $WORKER_HOST to another machine, or to a
    socket of this one. Raises ConnectionFailed (NotRunning, SocketForbidden,
    HostUnreachable), perhaps only when it is first used."""

    def __init__(self, path: str | None = None, link: Link | ClusterLink | None = None) -> None:
        self._path = path
        self._link = far() if link is None and path is None else link
        self._transport = self._connect()
        self._rest = b""
        self._id = 0

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None and not self.finish(NOTICE_SECONDS):
                from workerctl import stdio

                stdio.note("sending standard input to the job, as long as that lasts; Ctrl-C ends it")
                self.finish()
        finally:
            self.close()

    def finish(self, timeout: float | None = None) -> bool:
        """Until all that was given to a job as its input is out of our hands; False where
        that is not so after `timeout` seconds."""
        return self._transport.finish(timeout)

    def close(self) -> None:
        self._transport.close()

    def next_id(self) -> int:
        self._id += 1
        return self._id

    def send(self, line: bytes, fds: Sequence[int] = ()) -> None:
        """One request, its newline included, and the descriptors that ride on it."""
        if len(line) > MAX_REQUEST:
            raise _too_large(len(line))
        try:
            self._transport.send(line, fds)
        except (BrokenPipeError, ConnectionResetError) as error:
            # The daemon may have said why before it hung up: the answer is read all the same.
            if not self._fill():
                raise self._lost() from error

    def receive(self) -> bytes:
        """One answer, of any length, without its newline."""
        parts: list[bytes] = []
        while (end := self._rest.find(b"\n")) < 0:
            parts.append(self._rest)
            self._rest = b""
            if not self._fill():
                raise self._lost()
        parts.append(self._rest[:end])
        self._rest = self._rest[end + 1 :]
        return b"".join(parts)

    def receive_with_fds(self, max_fds: int) -> tuple[bytes, list[int]]:
        """One answer and the descriptors that ride on it, now the caller's to close."""
        from workerd import fdpass

        fds: list[int] = []
        try:
            while b"\n" not in self._rest:
                data, more = self._transport.receive_with_fds(READ_SIZE, max_fds)
                fds += more
                if not data:
                    raise self._lost()
                self._rest += data
            line, _, self._rest = self._rest.partition(b"\n")
        except BaseException as error:
            fdpass.close_all(fds)
            if isinstance(error, ConnectionResetError):
                raise self._lost() from error
            raise
        return line, fds

    def open_log(self, job_id: str) -> Log:
        """The job's log, to be read at file speed and to be closed by the caller."""
        return self.find_log(job_id)[1]

    def find_log(self, job_id: str) -> tuple[str, Log]:
        """As `open_log`, with the job's whole id."""
        return self._transport.find_log(self, job_id)

    def _fill(self) -> bool:
        try:
            data = self._transport.receive(READ_SIZE)
        except ConnectionResetError:
            return False
        self._rest += data
        return bool(data)

    def fileno(self) -> int:
        """For poll(2): readable when an answer comes."""
        return self._transport.fileno()

    def ask(self, method: str, params: dict[str, Any], fds: Sequence[int] = ()) -> int:
        """Sends a request; `take` has its answer under this number."""
        number = self.next_id()
        self.send(request(number, method, params), fds)
        return number

    def call(self, method: str, params: dict[str, Any], fds: Sequence[int] = ()) -> dict[str, Any]:
        """The result as plain JSON values. `fds` go along. Raises what the daemon answers."""
        return self.take(self.ask(method, params, fds))

    def take(self, number: int) -> dict[str, Any]:
        """The result of the request that was sent under this number."""
        return _result(_answer(self.receive(), {number}))

    def call_with_fds(
        self, method: str, params: dict[str, Any], max_fds: int, sent: Sequence[int] = ()
    ) -> tuple[dict[str, Any], list[int]]:
        """As `call`, with the descriptors that ride on the answer, now the caller's to close."""
        number = self.ask(method, params, sent)
        line, fds = self.receive_with_fds(max_fds)
        try:
            return _result(_answer(line, {number})), fds
        except BaseException:
            for fd in fds:
                os.close(fd)
            raise

    def call_patiently(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        """As `call`, asked again through a restart of the daemon: only for what
        may be asked twice, as job.wait."""
        try:
            return self.call(method, params)
        except Exception as error:
            from workerctl.patience import call_again

            return call_again(self, method, params, error)

    def reconnect(self) -> None:
        self.close()
        self._rest = b""
        self._transport = self._connect()

    def _connect(self) -> Transport:
        if self._link is not None:
            return self._link.transport(self._path)
        return LocalTransport(socket_path(self._path))

    def _lost(self) -> WorkerError:
        """Why there is no answer: what the transport knows, or only that."""
        if (error := self._transport.lost()) is not None:
            return error
        from workerd.errors import ConnectionFailed

        return ConnectionFailed("the connection to workerd was lost before it answered; see: journalctl -u workerd")

    def call_many(self, method: str, params: Sequence[dict[str, Any]]) -> list[dict[str, Any] | WorkerError]:
        """Several calls under way at once; their results or errors, in order."""
        results: dict[int, dict[str, Any] | WorkerError] = {}
        waiting: set[int] = set()
        first = self._id + 1
        for one in params:
            number = self.next_id()
            self.send(request(number, method, one))
            waiting.add(number)
            if len(waiting) >= WINDOW:
                self._collect(waiting, results)
        while waiting:
            self._collect(waiting, results)
        return [results[number] for number in range(first, first + len(params))]

    def _collect(self, waiting: set[int], results: dict[int, dict[str, Any] | WorkerError]) -> None:
        from workerd.errors import ConnectionFailed, WorkerError

        answer = _answer(self.receive(), waiting)
        number = min(waiting) if answer.get("id") is None else answer["id"]
        waiting.discard(number)
        try:
            results[number] = _result(answer)
        except ConnectionFailed:
            raise
        except WorkerError as error:
            results[number] = error


def request(number: int, method: str, params: dict[str, Any]) -> bytes:
    return plainjson.dumps({"jsonrpc": "2.0", "id": number, "method": method, "params": params}) + b"\n"


def _answer(line: bytes, expected: set[int]) -> dict[str, Any]:
    try:
        answer = plainjson.loads(line)
    except ValueError as error:
        raise _garbled(str(error)) from error
    # An answer without an id is to a request that the daemon could not read: ours.
    if not isinstance(answer, dict) or answer.get("id") not in {None, *expected}:
        raise _garbled("it answers something that was not asked")
    return answer


def _result(answer: dict[str, Any]) -> dict[str, Any]:
    if (failure := answer.get("error")) is not None:
        raise _error(failure)
    result = answer.get("result")
    if not isinstance(result, dict):
        raise _garbled("an answer with neither a result nor an error")
    return result


def _error(answer: dict[str, Any]) -> WorkerError:
    """As protocol.error_from, from plain values."""
    from workerd.errors import BY_KIND, WorkerError

    data = dict(answer.get("data") or {})
    made = BY_KIND.get(str(data.pop("kind", "")), WorkerError)
    return made(str(answer.get("message", "")), **data)


def connect(path: str) -> _socket.socket:
    """A socket of this machine's. Raises NotRunning, SocketForbidden, ConnectionFailed."""
    if not hasattr(_socket, "AF_UNIX"):
        from workerd.errors import ConnectionFailed

        raise ConnectionFailed("workerd runs on Linux alone: name the machine, as with -H ssh://HOST")
    sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    try:
        sock.connect(path)
    except OSError as error:
        sock.close()
        from workerctl.reach import explain

        raise explain(path, error) from error
    return sock


def _garbled(what: str) -> WorkerError:
    from workerd.errors import ConnectionFailed

    return ConnectionFailed(f"this is not workerd's answer, or not of this version: {what}")


def _too_large(size: int) -> WorkerError:
    from workerd.errors import InvalidParams

    return InvalidParams(
        f"the request is {size} bytes long, more than the {MAX_REQUEST} that workerd takes; "
        "give long arguments or environments to the command in a file"
    )
