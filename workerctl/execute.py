"""`exec`: the life of one more command in a job, from here.

The leash is a socket to the command's supervisor inside the machine, not to the daemon:
its end is told through it, signals go through it, and closing it ends the command.
"""

from __future__ import annotations

import _socket
import os
import select
import struct

from workerctl import exitcode, stdio
from workerctl.wire import far

TYPE_CHECKING = False  # as typing has it, without its 9 ms
if TYPE_CHECKING:
    from workerctl.escape import Painter
    from workerctl.rawterm import RawTerminal

ENDING = struct.Struct("=II")
ORDER = struct.Struct("=BBHI")
SIGNAL = 1
SEND_FLAGS = getattr(_socket, "MSG_NOSIGNAL", 0) | getattr(_socket, "MSG_DONTWAIT", 0)
"""as far as there are such; where the command is on another machine this waits for nobody"""
CLD_EXITED = 1
CAN_POLL = hasattr(select, "poll")
"""not on Windows, where pipes cannot be waited for in any such way"""
PIECE = 1 << 16


class Leash:
    """Owns its descriptor."""

    def __init__(self, fd: int) -> None:
        self._sock = _socket.socket(fileno=fd)

    def fileno(self) -> int:
        return self._sock.fileno()

    def close(self) -> None:
        self._sock.close()

    def signal(self, number: int) -> None:
        """To the command's process group; nothing where it has ended."""
        try:
            self._sock.send(ORDER.pack(SIGNAL, number, 0, 0), SEND_FLAGS)
        except OSError:
            return

    def code(self) -> int:
        """Waits for the command's end; its exit code as a shell has it. Raises
        WorkerError where its end is not known."""
        data = self._sock.recv(ENDING.size)
        if len(data) != ENDING.size:
            if (link := far()) is not None and (lost := link.lost()) is not None:
                raise lost
            from workerd.errors import WorkerError

            raise WorkerError("the command's end is not known: its supervisor was killed, with its job or from outside")
        code, status = ENDING.unpack(data)
        return int(status) if code == CLD_EXITED else 128 + int(status)


class Outlet:
    """A pipe for the command in place of a terminal of ours, and its way to that."""

    def __init__(self, fd: int, painter: Painter) -> None:
        self.fd = fd
        self._painter = painter
        self.reading, self.writing = os.pipe()
        if CAN_POLL:
            os.set_blocking(self.reading, False)

    def started(self) -> None:
        os.close(self.writing)

    def bring(self) -> bool:
        """What there is now; False at the end."""
        try:
            data = os.read(self.reading, PIECE)
        except BlockingIOError:
            return True
        text = self._painter.paint(self.fd, data, final=not data)
        stdio.write_all(self.fd, text.encode(stdio.encoding(), "backslashreplace"))
        return bool(data)


def outlets() -> dict[int, Outlet]:
    """One for each of our standard descriptors that is a terminal."""
    terminals = [fd for fd in (stdio.STDOUT, stdio.STDERR) if stdio.is_terminal(fd)]
    if not terminals:
        return {}
    from workerctl.escape import Painter

    painter = Painter(colour=stdio.colour())
    return {fd: Outlet(fd, painter) for fd in terminals}


def attend(leash: Leash, outs: dict[int, Outlet]) -> int:
    """Until the command has ended, and what it wrote is here; its exit code."""
    if not CAN_POLL:
        return _attend_in_threads(leash, outs)
    poll = select.poll()
    poll.register(leash, select.POLLIN)
    reading = {out.reading: out for out in outs.values()}
    for fd in reading:
        poll.register(fd, select.POLLIN)
    while True:
        ready = {fd for fd, _ in poll.poll()}
        for fd in ready & set(reading):
            if not reading[fd].bring():
                poll.unregister(fd)
                del reading[fd]
        if leash.fileno() in ready:
            code = leash.code()
            for out in reading.values():
                drain(out)
            return code


def _attend_in_threads(leash: Leash, outs: dict[int, Outlet]) -> int:
    """The command is on another machine, whose link ends the pipes before it tells the end."""
    import threading

    def bring_all(out: Outlet) -> None:
        while out.bring():
            pass

    threads = [threading.Thread(target=bring_all, args=(out,), daemon=True) for out in outs.values()]
    for thread in threads:
        thread.start()
    code = leash.code()
    for thread in threads:
        thread.join()
    return code


def drain(out: Outlet) -> None:
    """What the command wrote until its end; what it left behind may write on unheard."""
    while select.select([out.reading], [], [], 0)[0] and out.bring():
        pass


def at_terminal(leash: Leash, master: int, terminal: RawTerminal) -> int:
    """The command's own terminal on ours, until it has ended; its exit code."""
    from workerctl.termmodes import Modes

    os.set_blocking(master, False)
    modes, pending = Modes(), b""
    try:
        while True:
            poll = select.poll()
            for fd in (leash.fileno(), terminal.wakeup):
                poll.register(fd, select.POLLIN)
            if len(pending) < PIECE:
                poll.register(stdio.STDIN, select.POLLIN)
            poll.register(master, select.POLLIN | (select.POLLOUT if pending else 0))
            ready = {fd for fd, _ in poll.poll()}
            if terminal.wakeup in ready:
                terminal.woken()
            if terminal.resized:
                terminal.resized = False
                resize(master, terminal.size())
            if stdio.STDIN in ready:
                typed = os.read(stdio.STDIN, 4096)
                if not typed:
                    return exitcode.FAILED  # our terminal is gone: the leash goes, and with it the command
                pending += typed
            pending = type_some(master, pending)
            if leash.fileno() in ready:
                code = leash.code()
                while show(master, modes):
                    pass
                return code
            if master in ready:
                show(master, modes)
    finally:
        stdio.write_all(stdio.STDOUT, modes.leave())


def type_some(master: int, pending: bytes) -> bytes:
    try:
        return pending[os.write(master, pending) :] if pending else pending
    except BlockingIOError:
        return pending
    except OSError:
        return b""  # hung up


def show(master: int, modes: object) -> bool:
    from workerctl.termmodes import Modes

    assert isinstance(modes, Modes)
    try:
        data = os.read(master, PIECE)
    except OSError:  # EAGAIN: nothing now; EIO: hung up
        return False
    modes.feed(data)
    stdio.write_all(stdio.STDOUT, data)
    return bool(data)


def resize(master: int, size: dict[str, int]) -> None:
    if (link := far()) is not None:
        link.resize(master, size)
        return
    import fcntl
    import termios

    fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("4H", size["rows"], size["columns"], 0, 0))
