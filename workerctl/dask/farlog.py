"""The caller's side of a job's log: the same to its readers as one that is here.

Each question goes to the machine that has the log, and its answer is one piece: the next
one is asked for when that was brought out, so whoever reads slowly is sent no more.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from workerd.output import Extent, Header, Log


class ClusterLog(Log):
    """`ask` takes a question of workerctl.dask.logs'. Raises what it raises."""

    def __init__(self, ask: Callable[[dict[str, Any]], Any]) -> None:
        super().__init__(-1, -1)
        self._ask = ask
        self.extent()  # whether there is such a log

    def header(self) -> Header:
        return Header(self._ask({"what": "header"}))

    def extent(self) -> Extent:
        start, end, lost, complete = self._ask({"what": "extent"})
        return Extent(start, end, lost, complete=complete)

    def read(self, offset: int, length: int) -> tuple[int, bytes]:
        begin, data = self._ask({"what": "read", "offset": offset, "length": length})
        return begin, data

    def block(self, number: int) -> tuple[bytes, int, bool]:
        block, after, more = self._ask({"what": "block", "number": number})
        return block, after, more

    def find(self, offset: int) -> int:
        return int(self._ask({"what": "find", "offset": offset}))

    def offset_at(self, time: int) -> int:
        return int(self._ask({"what": "offset-at", "time": time}))
