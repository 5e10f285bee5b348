"""The command line's link to the cluster: one Dask client, on an event loop of its own thread.

A Connection of workerctl.wire speaks through it as to one workerd: each line that is sent is
a request, carried out by workerctl.dask.routes; the answers come through a socket, so that
they can be waited for with poll(2).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import threading
import warnings
from collections.abc import Coroutine, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
from distributed import Client

from workerctl import stdio
from workerctl.dask import ids
from workerctl.dask.daemon import plain
from workerctl.dask.farlog import ClusterLog
from workerctl.dask.routes import Routes
from workerctl.machine import HERE
from workerd.errors import ConnectionFailed, InternalError, InvalidParams, WorkerError

if TYPE_CHECKING:
    from workerctl.wire import Connection
    from workerd.output import Log

T = TypeVar("T")
CONNECT_SECONDS = 10.0
RECONNECT_SECONDS = 60.0
"""for a scheduler that was there, and is perhaps being restarted"""
CLOSE_SECONDS = 5.0


class ClusterLink:
    """`address` is workerctl.dask.address's. Raises ConnectionFailed."""

    def __init__(self, address: str) -> None:
        self._address = address
        _be_quiet()
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()
        self._client: Client | None = None
        self._seen: set[str] = set()
        self.routes = self.do(self._connect(CONNECT_SECONDS))

    def transport(self, _socket_path: str | None = None) -> ClusterTransport:
        if self._client is None or self._client.status != "running":
            self.routes = self.do(self._connect(RECONNECT_SECONDS))
        return ClusterTransport(self)

    def open_log(self, job_id: str) -> Log:
        return ClusterLog(lambda question: self._read(job_id, question))

    def _read(self, job_id: str, question: dict[str, Any]) -> Any:
        """Through one restart of the scheduler."""
        try:
            return self.do(self.routes.read_log(job_id, question))
        except ConnectionFailed:
            self.routes = self.do(self._connect(RECONNECT_SECONDS))
        return self.do(self.routes.read_log(job_id, question))

    # ── the machines, as far as it is known here what they are like ──

    def directory(self) -> str:
        """The same path as here. Raises FileNotFoundError where that is gone."""
        return os.getcwd()

    def umask(self) -> int:
        return HERE.umask()

    def environment(self) -> dict[str, str]:
        return dict(os.environ)

    def real(self, path: str) -> str:
        """Absolute; what is a symbolic link there is not known here."""
        return os.path.abspath(path)

    def user_name(self, uid: int) -> str:
        return ids.user_name(uid)

    def resize(self, fd: int, size: dict[str, int]) -> None:
        """No job of a cluster has a terminal."""

    def lost(self) -> WorkerError | None:
        return None

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        """On the loop; its result."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result()

    def close(self) -> None:
        """May be called again."""
        if self._thread.is_alive():
            with contextlib.suppress(OSError, TimeoutError):
                self.do(self._close_client())
            self.loop.call_soon_threadsafe(self.loop.stop)
            self._thread.join(CLOSE_SECONDS)

    async def _connect(self, seconds: float) -> Routes:
        await self._close_client()
        try:
            client = Client(self._address, asynchronous=True, set_as_default=False, timeout=seconds, name="workerctl")
            self._client = await client
        except TimeoutError as error:
            raise ConnectionFailed(
                f"no scheduler answers at {self._address} within {seconds:g} s: does `dask scheduler` run there?"
            ) from error
        except (OSError, TypeError, ValueError, RuntimeError) as error:
            raise ConnectionFailed(f"cannot reach the scheduler at {self._address}: {_reason(error)}") from error
        return Routes(self._client, stdio.note, self._seen)

    async def _close_client(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            with contextlib.suppress(TimeoutError, OSError):
                async with asyncio.timeout(CLOSE_SECONDS):
                    await client.close()


class ClusterTransport:
    """What a Connection has in place of workerd's socket. Owned by one."""

    def __init__(self, link: ClusterLink) -> None:
        self._link = link
        self._sock, self._other = socket.socketpair()
        self._other.setblocking(False)
        self._sending = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    def send(self, line: bytes, fds: Sequence[int] = ()) -> None:
        if fds:
            raise InvalidParams(
                "a job of the cluster has neither standard input nor a terminal from here: give it a file, "
                "or log in on its machine"
            )
        self._link.loop.call_soon_threadsafe(self._begin, line)

    def receive(self, size: int) -> bytes:
        return self._sock.recv(size)

    def receive_with_fds(self, size: int, _max_fds: int) -> tuple[bytes, list[int]]:
        return self._sock.recv(size), []

    def fileno(self) -> int:
        return self._sock.fileno()

    def find_log(self, _connection: Connection, job_id: str) -> tuple[str, Log]:
        return job_id, self._link.open_log(job_id)

    def lost(self) -> None:
        """It answers everything."""

    def finish(self, timeout: float | None) -> bool:
        """Nothing was given away."""
        return True

    def close(self) -> None:
        self._link.loop.call_soon_threadsafe(self._end)
        self._sock.close()

    def _begin(self, line: bytes) -> None:
        task = self._link.loop.create_task(self._answer(line))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _end(self) -> None:
        for task in self._tasks:
            task.cancel()
        self._other.close()

    async def _answer(self, line: bytes) -> None:
        request = msgspec.json.decode(line)
        answer: dict[str, Any] = {"jsonrpc": "2.0", "id": request["id"]}
        try:
            answer["result"] = await self._link.routes.call(request["method"], request["params"])
        except WorkerError as error:
            answer["error"] = plain(error)
        except Exception as error:
            logging.getLogger("distributed.workerctl").exception("%s failed", request["method"])
            answer["error"] = plain(InternalError(f"internal error: {type(error).__name__}: {error}"))
        async with self._sending:
            with contextlib.suppress(OSError):  # whoever asked has gone
                await self._link.loop.sock_sendall(self._other, msgspec.json.encode(answer) + b"\n")


_shared: dict[str, ClusterLink] = {}


def shared(address: str) -> ClusterLink:
    """The one link to it that this process has; it is closed at exit."""
    if address not in _shared:
        import atexit

        _shared[address] = link = ClusterLink(address)
        atexit.register(link.close)
    return _shared[address]


def _be_quiet() -> None:
    """What goes wrong is said in our own words."""
    if os.environ.get("WORKERCTL_DEBUG") != "1":
        warnings.simplefilter("ignore")
        for name in ("distributed", "tornado", "asyncio"):
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)


def _reason(error: Exception) -> str:
    last: BaseException = error
    while (cause := last.__cause__ or last.__context__) is not None:
        last = cause
    return str(last) or type(last).__name__
