"""The far end's descriptors: pipes that a command gets in place of the near end's own,
and what the daemon hands out for it. Linux only, as the daemon is.

What must hold: all that a command wrote before its end is on its way before the word of
that end (its leash's); and a command whose reader or writer over there is gone finds its
pipe closed, as it would here.
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import socket
import stat
import struct
import termios
from _queue import SimpleQueue

from workerctl import stdio, threads
from workerctl.remote import frames
from workerctl.remote.mux import Channel, Closed, Mux

TYPE_CHECKING = False  # as typing has it, without its 9 ms
if TYPE_CHECKING:
    from collections.abc import Sequence

PIECE = 1 << 16
ORDER = 8
"""bytes of one message to a leash (protocol.ExecResult)"""


def give_input(channel: Channel) -> int:
    """The reading end of a pipe that the channel fills; to be closed once it is given."""
    read_end, write_end = os.pipe()
    threads.begin(_fill, channel, write_end)
    return read_end


def _fill(channel: Channel, write_end: int) -> None:
    watched, watching = os.pipe()
    threads.begin(_watch, channel, os.dup(write_end), watched)
    try:
        while (frame := channel.inbox.get()).kind == frames.DATA:
            stdio.write_all(write_end, frame.payload)
            channel.grant(len(frame.payload))
    except OSError:
        pass  # nobody reads it any more
    os.close(write_end)
    os.close(watching)
    channel.close()


def _watch(channel: Channel, write_end: int, watched: int) -> None:
    """Closes the channel when nobody reads the pipe, whether or not anything comes."""
    poll = select.poll()
    poll.register(write_end, 0)  # POLLERR alone
    poll.register(watched, 0)
    ready = [fd for fd, _ in poll.poll()]
    os.close(write_end)
    os.close(watched)
    if write_end in ready:
        channel.close()


class Source:
    """What comes out of a descriptor, on its way over there. Owns the descriptor."""

    def __init__(self, channel: Channel, fd: int) -> None:
        self.channel = channel
        self._fd = fd
        self._enough, enough_end = os.pipe()
        self._enough_ends = [enough_end]
        self._brought: SimpleQueue[None] = SimpleQueue()
        os.set_blocking(fd, False)
        threads.begin(self._bring)
        threads.begin(self._heed)

    def finish(self) -> None:
        """The command has ended: returns when all that it wrote is on its way. Once."""
        self._stop()
        self._brought.get()

    def _stop(self) -> None:
        try:
            os.close(self._enough_ends.pop())
        except IndexError:
            return  # it was already

    def _bring(self) -> None:
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        poll.register(self._enough, select.POLLIN)
        try:
            over = False
            while not over:
                over = self._enough in [fd for fd, _ in poll.poll()]
                over = not self._read() or over
        except (OSError, Closed):
            pass  # hung up, or nobody over there takes it: the same end
        os.close(self._fd)
        self._stop()
        os.close(self._enough)
        self.channel.post(frames.EOF)
        self._brought.put(None)

    def _read(self) -> bool:
        """Sends what there is now; False at the end."""
        try:
            while data := os.read(self._fd, PIECE):
                self.channel.send(data)
        except BlockingIOError:
            return True
        return False

    def _heed(self) -> None:
        self.channel.wait_closed()
        self._stop()


class Output(Source):
    """A pipe for the command to write to."""

    def __init__(self, channel: Channel) -> None:
        reading, self.writing = os.pipe()
        """`writing` is to be closed once it is given"""
        super().__init__(channel, reading)


class Terminal(Source):
    """A command's own terminal, of which this is the master."""

    def __init__(self, channel: Channel, fd: int) -> None:
        threads.begin(self._type, channel, os.dup(fd))
        super().__init__(channel, fd)

    def _type(self, channel: Channel, fd: int) -> None:
        try:
            while (frame := channel.inbox.get()).kind in (frames.DATA, frames.SIZE):
                if frame.kind == frames.SIZE:
                    size = json.loads(frame.payload)
                    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("4H", size["rows"], size["columns"], 0, 0))
                    continue
                stdio.write_all(fd, frame.payload)
                channel.grant(len(frame.payload))
        except OSError:
            pass  # hung up
        os.close(fd)


def take(mux: Mux, fds: Sequence[int], outputs: Sequence[Source]) -> list[Channel]:
    """Channels for what the daemon gave; the descriptors are theirs. `outputs` are those of
    the command whose leash is among them."""
    terminals = {fd: Terminal(mux.open(kind="pty", short=True), fd) for fd in fds if os.isatty(fd)}
    wrote = [*outputs, *terminals.values()]
    return [terminals[fd].channel if fd in terminals else _taken(mux, fd, wrote) for fd in fds]


def _taken(mux: Mux, fd: int, wrote: Sequence[Source]) -> Channel:
    if stat.S_ISSOCK(os.fstat(fd).st_mode):
        channel = mux.open(kind="leash", short=True, after=[one.channel.number for one in wrote])
        sock = socket.socket(fileno=fd)
        threads.begin(_tell_end, channel, sock.dup(), wrote)
        threads.begin(_hold, channel, sock)
        return channel
    channel = mux.open(kind="typing", short=True)
    threads.begin(_type, channel, fd)
    return channel


def _tell_end(channel: Channel, leash: socket.socket, wrote: Sequence[Source]) -> None:
    """The command's end goes over there, behind all that it wrote."""
    try:
        data = leash.recv(PIECE)
        for one in wrote:
            one.finish()
        channel.send(data)
        channel.post(frames.EOF)
    except (OSError, Closed):
        pass  # it was let go
    leash.close()


def _hold(channel: Channel, leash: socket.socket) -> None:
    """Orders come from there; when it lets go, so does this."""
    rest = b""
    try:
        while (frame := channel.inbox.get()).kind == frames.DATA:
            rest += frame.payload
            while len(rest) >= ORDER:
                leash.send(rest[:ORDER], socket.MSG_NOSIGNAL)
                rest = rest[ORDER:]
            channel.grant(len(frame.payload))
    except OSError:
        channel.wait_closed()  # the command has ended, which is told there
    try:
        leash.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass  # its other end is gone
    leash.close()


def _type(channel: Channel, fd: int) -> None:
    """What is typed into a job's terminal."""
    try:
        while (frame := channel.inbox.get()).kind == frames.DATA:
            stdio.write_all(fd, frame.payload)
            channel.grant(len(frame.payload))
    except OSError:
        pass  # the job has just ended
    os.close(fd)
    channel.close()
