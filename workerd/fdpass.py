"""File descriptors over a Unix socket (unix(7), SCM_RIGHTS; cmsg(3)).

Used by the daemon (non-blocking) and by the client (blocking): whether a call
waits is the socket's own setting. What must hold: every descriptor that
arrives is close-on-exec, and on every path but the return it is closed here.
"""

from __future__ import annotations

import array
import os
import socket
from collections.abc import Callable, Iterable, Sequence

from workerd.errors import InvalidRequest

FD_SIZE = array.array("i").itemsize
_MOST_FDS = 253
"""on one message (SCM_MAX_FD, unix(7))"""
# As plain numbers: to combine two of the module's own takes longer than the rest of a call.
# Systems that lack them import this, for a client of other machines' daemons, and call none of it.
_NOSIGNAL, _CLOEXEC, _CTRUNC = (
    int(getattr(socket, name, 0)) for name in ("MSG_NOSIGNAL", "MSG_CMSG_CLOEXEC", "MSG_CTRUNC")
)
# Room for all that can come: what has none the kernel closes, within recvmsg.
_SPACE = socket.CMSG_SPACE(_MOST_FDS * FD_SIZE) if hasattr(socket, "CMSG_SPACE") else 0


def close_all(fds: Iterable[int]) -> None:
    """Close each of them; one that fails does not keep the others open."""
    for fd in fds:
        try:
            os.close(fd)
        except OSError:
            # EBADF is somebody's bug, EIO a file system's; the descriptor is gone either way (close(2)).
            continue


def send(sock: socket.socket, data: bytes | memoryview, fds: Sequence[int] = ()) -> int:
    """Send what the socket takes of `data`; the bytes sent. `fds` ride on the
    first byte: once this has returned they are gone, and stay the caller's to close.

    Raises ValueError where there is no byte for them to ride on; OSError as
    sendmsg(2) does (BlockingIOError: nothing was sent, fds neither).
    """
    if not fds:
        return sock.send(data, _NOSIGNAL)
    if not data:
        raise ValueError("descriptors need a byte to ride on")
    rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))
    return sock.sendmsg([data], [rights], _NOSIGNAL)


def receive(
    sock: socket.socket, bufsize: int, max_fds: int, close: Callable[[Iterable[int]], None] = close_all
) -> tuple[bytes, list[int]]:
    """One read: up to `bufsize` bytes (none at the end of the stream) and the
    descriptors that came with them, now the caller's to close. Raises as `receive_into`."""
    buffer = memoryview(bytearray(bufsize))
    count, fds = receive_into(sock, buffer, max_fds, close)
    return buffer[:count].tobytes(), fds


def receive_into(
    sock: socket.socket, buffer: memoryview, max_fds: int, close: Callable[[Iterable[int]], None] = close_all
) -> tuple[int, list[int]]:
    """As `receive`, the bytes to the buffer's beginning; how many they are.

    Raises InvalidRequest where more than `max_fds` came or some were lost (the
    process is out of them): the bytes are gone as well, so the connection is of
    no more use. What came is closed by `close`. OSError as recvmsg(2) does.
    """
    count, ancillary, flags, _ = sock.recvmsg_into((buffer,), _SPACE if max_fds else 0, _CLOEXEC)
    fds: list[int] = []
    if not ancillary and not flags & _CTRUNC:
        return count, fds
    try:
        for level, kind, content in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                fds += _descriptors(content)
        if flags & _CTRUNC or len(fds) > max_fds:
            raise InvalidRequest(f"more than {max_fds} file descriptors on one message, or some were lost")
    except BaseException:
        close(fds)
        raise
    return count, fds


def _descriptors(content: bytes) -> list[int]:
    whole = len(content) - len(content) % FD_SIZE
    return array.array("i", content[:whole]).tolist()
