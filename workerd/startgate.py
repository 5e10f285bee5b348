"""What lies between workerd and a PID 1 that is being made: the pipe on which that and its first
stage say how far they are (workerd.startstatus), and the socket at which it waits for the word to go
(workerd/init/go.c).

The word is given by who has what comes with it. That is the store's thread, which makes the job's
output once the job is recorded: a PID 1 that has told of itself by then need not wait until the
loop has its turn. So all of this can be called in either thread.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import threading

from workerd import startstatus
from workerd.jobfiles import OutputFiles, RuntimeFiles


class StatusPipe:
    """Both ends close-on-exec."""

    def __init__(self) -> None:
        self.read_end, self.write_end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._text = bytearray()
        self._lock = threading.Lock()

    @property
    def text(self) -> bytes:
        """All that was read."""
        return bytes(self._text)

    def close_write_end(self) -> None:
        if self.write_end >= 0:
            os.close(self.write_end)
            self.write_end = -1

    def close(self) -> None:
        """Can be repeated."""
        self.close_write_end()
        if self.read_end >= 0:
            os.close(self.read_end)
            self.read_end = -1

    def read(self) -> bool:
        """What is there; whether that is the end."""
        with self._lock:
            try:
                piece = os.read(self.read_end, 4096)
            except OSError:
                return False  # nothing is there, or not now
            self._text.extend(piece)
            return not piece

    def has_said(self) -> bool:
        """Whether there was or is anything, be it the end; what is not read yet stays for who waits for it."""
        poll = select.poll()
        poll.register(self.read_end, select.POLLIN)
        with self._lock:
            return bool(self._text or poll.poll(0))


class Gate:
    """Closed, it refuses."""

    def __init__(self) -> None:
        self.is_open = False
        self._ours, self._theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._lock = threading.RLock()

    @property
    def far_end(self) -> int:
        return self._theirs.fileno()

    def close_far_end(self) -> None:
        self._theirs.close()

    def open(self, output: OutputFiles, runtime: RuntimeFiles) -> None:
        """Where PID 1 is gone, the status pipe tells why. Raises OSError."""
        fds = [output.log, output.index, *runtime.fds()]
        with self._lock:
            with contextlib.suppress(ConnectionError):
                socket.send_fds(self._ours, [b"\n"], fds, socket.MSG_NOSIGNAL)
            self.is_open = True

    def open_early(self, status: StatusPipe, output: OutputFiles, runtime: RuntimeFiles) -> None:
        """For another thread than the loop's: only for a PID 1 that is known, and has met no error.
        Else, and where it cannot be, that is left to the loop."""
        with self._lock:
            if self._ours.fileno() < 0:
                return  # nobody wants it any more, and the descriptors may be gone
            status.read()
            pid, error = startstatus.parse(status.text, "")
            if pid and error is None:
                with contextlib.suppress(OSError):
                    self.open(output, runtime)

    def close(self) -> None:
        """Can be repeated."""
        with self._lock:
            self._ours.close()
            self._theirs.close()
