"""The near end's descriptors: ours that go along with a request, and those that come
with an answer. Each is a channel, copied by threads that may wait; so Windows can too.

What must hold: bytes in order and all of them, and the word that a command has ended
(its leash's) not before all that it wrote.
"""

from __future__ import annotations

import os
import socket

from workerctl import threads
from workerctl.remote import frames
from workerctl.remote.mux import Channel, Closed, Mux

TYPE_CHECKING = False  # as typing has it, without its 9 ms
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

PIECE = 1 << 16


def give(mux: Mux, fd: int, *, reads: bool) -> Channel:
    """A channel for our descriptor, which stays the caller's; `reads`: the command reads
    it, else it writes there."""
    own = os.dup(fd)
    channel = mux.open(kind="stream", reads=reads)
    if reads:
        threads.begin(_source, channel, lambda: os.read(own, PIECE), lambda: _end_source(channel, own))
    else:
        threads.begin(_sink, channel, lambda data: _write_all(own, data), lambda: os.close(own))
    return channel


def take(mux: Mux, channel: Channel) -> int:
    """A descriptor, the caller's to close, for a channel that came with an answer."""
    if channel.params["kind"] == "typing":
        read_end, write_end = os.pipe()
        os.set_blocking(write_end, False)
        threads.begin(_source, channel, lambda: os.read(read_end, PIECE), lambda: _end_source(channel, read_end))
        return write_end
    ours, near = socket.socketpair()
    other = near.dup()  # each thread has its own to close
    after = [mux.channels[number] for number in channel.params.get("after", ()) if number in mux.channels]
    threads.begin(_sink, channel, lambda data: _deliver(near, data, after), lambda: _hang_up(near))
    threads.begin(_source, channel, lambda: other.recv(PIECE), lambda: _end_both(channel, other))
    return ours.detach()


def _source(channel: Channel, read: Callable[[], bytes], end: Callable[[], None]) -> None:
    """From here to there, up to the end of file, or until nobody wants it."""
    try:
        while data := read():
            channel.send(data)
    except (OSError, Closed):
        pass  # the same end
    end()


def _sink(channel: Channel, write: Callable[[bytes], None], end: Callable[[], None]) -> None:
    """From there to here, up to the end of file, or until nobody takes it."""
    try:
        while (frame := channel.inbox.get()).kind == frames.DATA:
            write(frame.payload)
            channel.grant(len(frame.payload))
    except OSError:
        pass  # the reader is gone, as the other end now learns
    end()
    channel.close()


def _end_source(channel: Channel, fd: int) -> None:
    os.close(fd)
    channel.post(frames.EOF)


def _end_both(channel: Channel, sock: socket.socket) -> None:
    sock.close()
    channel.close()


def _hang_up(sock: socket.socket) -> None:
    try:
        sock.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass  # the other end did
    sock.close()


def _write_all(fd: int, data: bytes) -> None:
    from workerctl import stdio

    stdio.write_all(fd, data)


def _deliver(sock: socket.socket, data: bytes, after: Sequence[Channel]) -> None:
    for channel in after:
        channel.wait_closed()
    sock.sendall(data)
