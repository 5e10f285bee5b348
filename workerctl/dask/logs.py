"""A job's log, read in pieces for somebody who is not here.

The logs that were asked for last stay open, so that whoever follows one does not open it
for every piece. A question is one of workerd.output.Log's own; the answer is small, or one
piece of bytes of at most MOST_BYTES: whoever reads on asks for the next when it has room.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import Any

from workerctl.client import Client
from workerd.output import HEADER, MAGIC, Log

MOST_BYTES = 1 << 20
MOST_OPEN = 32


class Logs:
    def __init__(self, socket_path: str) -> None:
        self._path = socket_path
        self._open: OrderedDict[str, Log] = OrderedDict()
        self._busy = asyncio.Lock()

    async def answer(self, job: str, question: dict[str, Any]) -> Any:
        """Raises WorkerError, OSError."""
        async with self._busy:
            log = self._open.get(job)
            if log is None:
                log = self._open[job] = await asyncio.to_thread(self._fetch, job)
            self._open.move_to_end(job)
            while len(self._open) > MOST_OPEN:
                self._open.popitem(last=False)[1].close()
            return await asyncio.to_thread(answer, log, question)

    def close(self) -> None:
        while self._open:
            self._open.popitem()[1].close()

    def _fetch(self, job: str) -> Log:
        with Client(self._path) as client:
            return client.open_output(job)


def answer(log: Log, question: dict[str, Any]) -> Any:
    """Raises WorkerError where the log is damaged, OSError."""
    what = question["what"]
    if what == "read":
        begin, data = log.read(question["offset"], min(question["length"], MOST_BYTES))
        return [begin, data]
    if what == "block":
        block, after, more = log.block(question["number"])
        return [block, after, more]
    if what == "header":
        header = log.header()
        return HEADER.pack(MAGIC, header.kept_from, header.first_record, header.lost, int(header.complete))
    if what == "extent":
        now = log.extent()
        return [now.start, now.end, now.lost, now.complete]
    if what == "find":
        return log.find(question["offset"])
    return log.offset_at(question["time"])
