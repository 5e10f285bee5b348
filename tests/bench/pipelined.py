"""A client that keeps many requests under way on one connection, and measures each."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterable, Iterator

import msgspec

from workerd import protocol


class _Answer(msgspec.Struct):
    id: int
    result: msgspec.Raw = msgspec.Raw()
    error: protocol.ErrorObject | None = None


_decoder = msgspec.json.Decoder(_Answer)


class Pipeline:
    """Requests are numbered as they are sent; answers come in any order."""

    def __init__(self, path: os.PathLike[str]) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(os.fspath(path))
        self._rest = b""
        self._id = 0

    def close(self) -> None:
        self._socket.close()

    def send(self, *requests: tuple[str, protocol.Params]) -> range:
        """All in one write; the ids they got."""
        first = self._id + 1
        lines = []
        for method, params in requests:
            self._id += 1
            lines.append(protocol.encode({"jsonrpc": "2.0", "id": self._id, "method": method, "params": params}))
        self._socket.sendall(b"".join(lines))
        return range(first, self._id + 1)

    def answers(self) -> Iterator[tuple[int, msgspec.Raw]]:
        """Those that have come by now, at least one. Raises the error of a failed request."""
        while b"\n" not in self._rest:
            data = self._socket.recv(1 << 18)
            assert data, "workerd hung up"
            self._rest += data
        *lines, self._rest = self._rest.split(b"\n")
        for line in lines:
            answer = _decoder.decode(line)
            if answer.error is not None:
                raise protocol.error_from(answer.error)
            yield answer.id, answer.result

    def each(self, requests: Iterable[tuple[str, protocol.Params]], depth: int) -> Iterator[float]:
        """Milliseconds from each request to its answer, `depth` of them under way."""
        waiting: dict[int, float] = {}
        source = iter(requests)
        more = True
        while more or waiting:
            while more and len(waiting) < depth:
                request = next(source, None)
                if request is None:
                    more = False
                    break
                waiting[self.send(request)[0]] = time.perf_counter()
            if not waiting:
                break
            for number, _ in self.answers():
                yield (time.perf_counter() - waiting.pop(number)) * 1000
