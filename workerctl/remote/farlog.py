"""A job's log that is read over there: the same to its readers as one that is here.

Each question is answered from the files themselves. Whoever reads on from where the last
piece ended is ahead of the wire by AHEAD bytes, so the way there and back costs nothing;
that many bytes, and no more, are ever under way or kept.
"""

from __future__ import annotations

import json
from collections import deque

from workerctl.remote import frames
from workerd.output import Extent, Header, Log

TYPE_CHECKING = False  # as typing has it, without its 9 ms
if TYPE_CHECKING:
    from typing import Any

    from workerctl.remote.link import Link
    from workerctl.remote.mux import Channel

PIECE = 1 << 18
AHEAD = 1 << 22


class FarLog(Log):
    """Raises HostUnreachable once the link is lost, beside what a Log raises."""

    def __init__(self, link: Link, channel: Channel) -> None:
        super().__init__(-1, -1)
        self._link = link
        self._channel = channel
        self._known_end = 0
        self._place = 0
        """where the bytes begin that are there or asked for"""
        self._rest = memoryview(b"")
        self._asked: deque[tuple[int, int, int]] = deque()
        """(number, offset, length): questions whose answers follow `_rest`"""
        try:
            self.job_id = str(json.loads(self._answer(what="id")))  # also says whether there is such a log
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._channel.close()

    def header(self) -> Header:
        return Header(self._answer(what="header"))

    def extent(self) -> Extent:
        found = json.loads(self._answer(what="extent"))
        self._known_end = found["end"]
        return Extent(found["start"], found["end"], found["lost"], complete=found["complete"])

    def offset_at(self, time: int) -> int:
        return int(json.loads(self._answer(what="offset-at", time=time)))

    def read(self, offset: int, length: int) -> tuple[int, bytes]:
        goes_on = offset == self._place
        if not goes_on:
            self._forget(offset)
        begin, parts = offset, list[memoryview]()
        while length > 0:
            place, piece = self._next(length)
            if place > self._place and parts:  # bytes are gone in between: they begin the next piece
                self._place, self._rest = place, memoryview(b"".join((piece, self._rest)))
                break
            begin = begin if parts else place
            self._place = place + len(piece)
            length -= len(piece)
            parts.append(piece)
            if not piece:
                break
        if goes_on:
            self._ask_ahead()
        return begin, b"".join(parts)

    def _next(self, length: int) -> tuple[int, memoryview]:
        """(where it begins, up to `length` bytes); none where there are none."""
        if not self._rest:
            if not self._asked:
                self._ask(self._place, min(length, PIECE))
            number, offset, asked = self._asked.popleft()
            content = self._link.answer(self._channel, number)
            (begin,) = frames.BLOCK.unpack_from(content)
            data = content[frames.BLOCK.size :]
            if begin + len(data) != offset + asked:
                self._forget(self._place)  # what was asked behind it is somewhere else
            if len(data) <= length:
                return begin, data
            self._rest = data[length:]
            return begin, data[:length]
        piece, self._rest = self._rest[:length], self._rest[length:]
        return self._place, piece

    def _ask(self, offset: int, length: int) -> None:
        self._asked.append((self._channel.ask(what="read", offset=offset, length=length), offset, length))

    def _ask_ahead(self) -> None:
        last = self._asked[-1] if self._asked else (0, self._place + len(self._rest), 0)
        offset = last[1] + last[2]
        while (length := min(PIECE, self._known_end - offset)) > 0 and offset + length <= self._place + AHEAD:
            self._ask(offset, length)
            offset += length

    def _forget(self, place: int) -> None:
        for number, _, _ in self._asked:
            self._link.answer(self._channel, number)
        self._asked.clear()
        self._place, self._rest = place, memoryview(b"")

    def block(self, number: int) -> tuple[bytes, int, bool]:
        content = self._answer(what="block", number=number)
        (after,) = frames.BLOCK.unpack_from(content)
        return content[frames.BLOCK.size + 1 :], after, content[frames.BLOCK.size] != 0

    def find(self, offset: int) -> int:
        return int(json.loads(self._answer(what="find", offset=offset)))

    def _answer(self, **question: Any) -> bytes:
        return bytes(self._link.answer(self._channel, self._channel.ask(**question)))
