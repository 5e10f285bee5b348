"""The guest's serial console: kept in a file, watched for a line, typed into."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from pathlib import Path

TAIL_BYTES = 4000
KEPT_BYTES = 1 << 20


class Serial:
    """Reads the console for as long as qemu lives; `log` gets every byte of it."""

    def __init__(self, port: socket.socket, log: Path, tee: Callable[[bytes], object] | None = None) -> None:
        self.port = port
        self.log = log
        self.tee = tee
        self.seen = bytearray()
        self.over = False
        self.changed = threading.Condition()
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()

    def read(self) -> None:
        with self.log.open("ab", buffering=0) as log, contextlib.suppress(OSError):
            while data := self.port.recv(65536):
                log.write(data)
                if self.tee is not None:
                    self.tee(data)
                with self.changed:
                    self.seen = (self.seen + data)[-KEPT_BYTES:]
                    self.changed.notify_all()
        with self.changed:
            self.over = True
            self.changed.notify_all()

    def wait_for(self, needle: bytes, seconds: float) -> bool:
        """Wait until the console has shown `needle`; whether it has."""
        with self.changed:
            self.changed.wait_for(lambda: needle in self.seen or self.over, timeout=seconds)
            return needle in self.seen

    def write(self, data: bytes) -> None:
        """Type into the console."""
        with contextlib.suppress(OSError):  # the guest is gone; its user will see that
            self.port.sendall(data)

    def tail(self) -> str:
        """The last of it, as text that is safe for a terminal."""
        text = bytes(self.seen[-TAIL_BYTES:]).decode(errors="replace").replace("\r", "")
        return "".join(c for c in text if c.isprintable() or c in "\n\t").strip()
