"""The machine's workerd, asked by many Dask tasks at once, over a few connections.

Plain JSON values, as in workerctl.wire. Raises what the daemon answers, NotRunning or
SocketForbidden where it cannot be reached, and ConnectionFailed where it went away.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from workerctl import wire
from workerd.errors import BY_KIND, ConnectionFailed, InvalidParams, SocketForbidden, Unavailable, WorkerError

Plain = dict[str, Any]

MOST_PENDING = 500
"""of one connection; workerd takes 1024"""
LONGEST_ANSWER = 1 << 30
PATIENCE = 20.0
"""seconds without a daemon before its absence is an error"""
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 1.0


class Daemon:
    def __init__(self, path: str | None = None) -> None:
        self.path = wire.socket_path(path)
        self._lines: list[_Line] = []
        self._opening = asyncio.Lock()

    async def call(self, method: str, params: Plain) -> Plain:
        line = await self._line()
        result: Plain = await line.call(method, params)
        return result

    async def call_patiently(self, method: str, params: Plain) -> Plain:
        """Asked again through a restart of the daemon: only for what may be asked twice."""
        return await self.patiently(lambda: self.call(method, params))

    async def patiently(self, action: Callable[[], Awaitable[Plain]]) -> Plain:
        """`action`, until there has been no daemon for PATIENCE seconds."""
        loop, pause = asyncio.get_running_loop(), FIRST_PAUSE
        deadline = None
        while True:
            try:
                return await action()
            except (ConnectionFailed, Unavailable) as error:
                deadline = loop.time() + PATIENCE if deadline is None else deadline
                if isinstance(error, SocketForbidden) or loop.time() > deadline:
                    raise
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    def close(self) -> None:
        lines, self._lines = self._lines, []
        for line in lines:
            line.close()

    async def _line(self) -> _Line:
        async with self._opening:
            self._lines = [line for line in self._lines if line.open]
            for line in self._lines:
                if line.pending < MOST_PENDING:
                    return line
            line = await _Line.to(self.path)
            self._lines.append(line)
            return line


class _Line:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._numbers = itertools.count(1)
        self._answers: dict[int, asyncio.Future[Plain]] = {}
        self.open = True
        self._task = asyncio.get_running_loop().create_task(self._read())

    @classmethod
    async def to(cls, path: str) -> _Line:
        try:
            reader, writer = await asyncio.open_unix_connection(path, limit=LONGEST_ANSWER)
        except OSError as error:
            from workerctl.reach import explain

            raise explain(path, error) from error
        return cls(reader, writer)

    @property
    def pending(self) -> int:
        return len(self._answers)

    async def call(self, method: str, params: Plain) -> Plain:
        number = next(self._numbers)
        line = wire.request(number, method, params)
        if len(line) > wire.MAX_REQUEST:
            raise InvalidParams(
                f"the request is {len(line)} bytes long, more than the {wire.MAX_REQUEST} that workerd takes"
            )
        answer: asyncio.Future[Plain] = asyncio.get_running_loop().create_future()
        self._answers[number] = answer
        try:
            self._writer.write(line)
            return await answer
        finally:
            self._answers.pop(number, None)

    def close(self) -> None:
        self._task.cancel()

    async def _read(self) -> None:
        reason = "the connection to workerd was lost before it answered"
        try:
            while line := await self._reader.readline():
                self._take(msgspec.json.decode(line))
        except (OSError, ValueError, msgspec.DecodeError) as error:
            reason = f"the connection to workerd was lost: {error}"
        finally:
            self.open = False
            self._writer.close()
            for answer in self._answers.values():
                if not answer.done():
                    answer.set_exception(ConnectionFailed(reason))

    def _take(self, message: Plain) -> None:
        error = message.get("error")
        if message.get("id") is None:
            raise ValueError(error["message"] if error else "it answers nothing that was asked")
        answer = self._answers.get(message["id"])
        if answer is None or answer.done():
            return  # whoever asked does not wait any more
        if error is not None:
            answer.set_exception(error_of(error))
        else:
            answer.set_result(message["result"])


def error_of(answer: Plain) -> WorkerError:
    """From an answer's `error`."""
    data = dict(answer.get("data") or {})
    made = BY_KIND.get(str(data.pop("kind", "")), WorkerError)
    return made(str(answer.get("message", "")), **data)


def plain(error: WorkerError) -> Plain:
    """The other way round."""
    return {"code": error.code, "message": str(error), "data": {"kind": error.kind, **error.data}}
