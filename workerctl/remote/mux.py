"""Many channels on one pair of pipes: the same for both ends of a link.

One thread reads frames and gives each to its channel's queues; one writes what is posted.
What must hold: nothing but these queues is shared, for the near end's main thread uses
channels in signal handlers too, and a lock held there would be held for ever
(`SimpleQueue` says of itself that it may be used so). And nobody sends DATA beyond the
credit granted, so neither end ever keeps more than a window of a stream.
"""

from __future__ import annotations

import itertools
import json
from _queue import Empty, SimpleQueue

from workerctl import threads
from workerctl.remote import frames
from workerctl.remote.frames import Frame

TYPE_CHECKING = False  # as typing has it, without its 9 ms
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import IO, Any


class Closed(Exception):
    """The channel is closed, or the whole link is."""


class Channel:
    """One of a mux's. Each of its queues is taken from by one thread."""

    def __init__(self, mux: Mux, number: int, params: dict[str, Any]) -> None:
        self._mux = mux
        self.number = number
        self.params = params
        """what OPEN said"""
        self.window = frames.SHORT_WINDOW if params.get("short") else frames.WINDOW
        self.inbox: SimpleQueue[Frame] = SimpleQueue()
        """DATA, EOF, FDS, SIZE, ASK as they came; CLOSE, once, is the last"""
        self.closed: dict[str, Any] | None = None
        """once it is closed: the error, or {}"""
        self._credit = self.window
        self._credits: SimpleQueue[int] = SimpleQueue()
        self._answers: SimpleQueue[bytes] = SimpleQueue()
        self._early: dict[int, tuple[int, memoryview]] = {}
        self._asked = itertools.count(1)
        self._over: SimpleQueue[None] = SimpleQueue()

    def post(self, kind: int, payload: bytes = b"", more: bytes | memoryview = b"") -> None:
        self._mux.post(Frame(kind, self.number, payload, more))

    def send(self, data: bytes) -> None:
        """As the other end takes it. Raises Closed."""
        view = memoryview(data)
        while view:
            while self._credit <= 0:
                self._credit += self._credits.get()
                if self.closed is not None:
                    raise Closed
            piece = view[: min(self._credit, frames.MOST_DATA)]
            self._credit -= len(piece)
            self.post(frames.DATA, more=piece)
            view = view[len(piece) :]
        if self.closed is not None:
            raise Closed

    def grant(self, size: int) -> None:
        """What was taken out of DATA is not under way any more."""
        self.post(frames.CREDIT, frames.WORD.pack(size))

    def ask(self, **question: Any) -> int:
        """`take` has its answer under this number."""
        number = next(self._asked)
        self.post(frames.ASK, frames.WORD.pack(number) + json.dumps(question).encode())
        return number

    def take(self, number: int) -> tuple[int, memoryview]:
        """(how it is meant: JSON, ERROR, BYTES; the answer). Raises Closed."""
        while number not in self._early:
            answer = self._answers.get()
            if not answer:
                self._answers.put(b"")  # whoever asks next is told as well
                raise Closed
            found, kind = frames.ANSWERED.unpack_from(answer)
            self._early[found] = kind, memoryview(answer)[frames.ANSWERED.size :]
        return self._early.pop(number)

    def close(self, error: dict[str, Any] | None = None) -> None:
        """May be called again."""
        if self._mux.channels.pop(self.number, None) is not None:
            self.post(frames.CLOSE, json.dumps(error or {}).encode())
            self.end(error or {})

    def end(self, error: dict[str, Any]) -> None:
        """It is closed: whoever waits is told."""
        self.closed = error
        self.inbox.put(Frame(frames.CLOSE, self.number))
        self._credits.put(0)
        self._answers.put(b"")
        self._over.put(None)

    def wait_closed(self, timeout: float | None = None) -> bool:
        """Until it is closed, or `timeout` seconds are over (False)."""
        try:
            self._over.get(timeout=timeout)
        except Empty:
            return False
        self._over.put(None)  # for whoever else waits
        return True

    def take_frame(self, frame: Frame) -> None:
        if frame.kind == frames.CREDIT:
            self._credits.put(frames.WORD.unpack(frame.payload)[0])
        elif frame.kind == frames.ANSWER:
            self._answers.put(frame.payload)
        else:
            self.inbox.put(frame)


class Mux:
    """`opened` is called, in the reading thread, with each channel that the other end
    opens, and `ended`, there too, when no more frames come."""

    def __init__(
        self, reading: IO[bytes], writing: IO[bytes], first: int, opened: Callable[[Channel], None],
        ended: Callable[[], dict[str, Any]],
    ) -> None:  # fmt: skip
        self._reading, self._writing = reading, writing
        self._opened, self._ended = opened, ended
        self._numbers = itertools.count(first, 2)
        self._out: SimpleQueue[Frame | None] = SimpleQueue()
        self.own = Channel(self, 0, {})
        self.channels: dict[int, Channel] = {0: self.own}
        self._over: dict[str, Any] | None = None
        """once no more frames come: why"""

    def begin(self) -> None:
        threads.begin(self._write)

    def post(self, frame: Frame) -> None:
        self._out.put(frame)

    def finish(self) -> None:
        """What was posted is still written, and then the end."""
        self._out.put(None)

    def open(self, **params: Any) -> Channel:
        channel = Channel(self, next(self._numbers), params)
        self.channels[channel.number] = channel
        channel.post(frames.OPEN, json.dumps(params).encode())
        if self._over is not None:  # looked at after the channel is among them, set before they are
            self._end(channel.number, self._over)
        return channel

    def read(self) -> None:
        """All frames to the end; then every channel is closed, and so is what was read."""
        try:
            while (frame := frames.read(self._reading)) is not None:
                self._take(frame)
        except (OSError, ValueError, frames.Broken):
            pass  # `ended` says what there is to say
        self._over = self._ended()
        for number in list(self.channels):
            self._end(number, self._over)
        self._reading.close()

    def _end(self, number: int, error: dict[str, Any]) -> None:
        if (channel := self.channels.pop(number, None)) is not None:
            channel.end(error)

    def _take(self, frame: Frame) -> None:
        if frame.kind == frames.OPEN:
            channel = Channel(self, frame.channel, json.loads(frame.payload))
            self.channels[frame.channel] = channel
            self._opened(channel)
        elif frame.kind == frames.CLOSE:
            self._end(frame.channel, json.loads(frame.payload))
        elif (found := self.channels.get(frame.channel)) is not None:  # else it was just closed
            found.take_frame(frame)

    def _write(self) -> None:
        try:
            while (frame := self._out.get()) is not None:
                for part in frame.encode():
                    data = memoryview(part)
                    while data:
                        data = data[self._writing.write(data) :]
        except OSError:
            return  # the reader finds the same end
        finally:
            self._close_writing()

    def _close_writing(self) -> None:
        try:
            self._writing.close()
        except OSError:
            return
