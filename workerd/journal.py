"""Log records to systemd's journal with fields: `journalctl JOB_ID=…`, `UID=…`.

The journal's native protocol: one datagram a record to its socket (systemd.io,
JOURNAL_NATIVE_PROTOCOL). Nothing here ever blocks: what the journal does not take at
once goes to stderr, with its priority, as sd-daemon(3) has it.
What must hold: a message that begins with `job %s` has the job's id as its first
argument; beside that a record's fields are those of its attribute `fields`.
"""

from __future__ import annotations

import logging
import os
import socket
import sys

SOCKET = "/run/systemd/journal/socket"
LARGEST = 48 << 10
"""bytes of a message; a datagram holds some 200 KiB"""
PRIORITIES = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))


def is_stderr(stream: str | None, fd: int = 2) -> bool:
    """Whether the descriptor leads to the journal: `stream` is $JOURNAL_STREAM, its device
    and inode (systemd.exec(5))."""
    try:
        status = os.fstat(fd)
    except OSError:
        return False
    return stream == f"{status.st_dev}:{status.st_ino}"


def priority(level: int) -> int:
    """syslog(3)'s number for a level of logging."""
    return next((number for least, number in PRIORITIES if level >= least), 7)


def fields_of(record: logging.LogRecord) -> dict[str, str]:
    """The fields of a record beside its message: of the job that it is about, if of one."""
    fields = dict(getattr(record, "fields", {}))
    if "JOB_ID" not in fields and isinstance(record.args, tuple) and str(record.msg).startswith("job %s"):
        fields["JOB_ID"] = str(record.args[0])
    return fields


def datagram(fields: dict[str, str]) -> bytes:
    """Values of one line as NAME=value, others with their length before them."""
    parts = []
    for name, value in fields.items():
        data = value.encode(errors="backslashreplace")[:LARGEST]
        if b"\n" in data:
            parts.append(name.encode() + b"\n" + len(data).to_bytes(8, "little") + data + b"\n")
        else:
            parts.append(name.encode() + b"=" + data + b"\n")
    return b"".join(parts)


class JournalHandler(logging.Handler):
    """Sends records to the journal's socket; to stderr where that does not work."""

    def __init__(self, path: str = SOCKET) -> None:
        super().__init__()
        self.setFormatter(logging.Formatter("%(message)s"))  # the rest are fields
        self._path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)

    def close(self) -> None:
        self._socket.close()
        super().close()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            message = self.format(record)
            fields = {
                "MESSAGE": message,
                "PRIORITY": str(priority(record.levelno)),
                "SYSLOG_IDENTIFIER": "workerd",
                "CODE_FILE": record.pathname,
                "CODE_LINE": str(record.lineno),
                **fields_of(record),
            }
            try:
                self._socket.sendto(datagram(fields), self._path)
            except OSError:
                lines = (f"<{priority(record.levelno)}>{line}\n" for line in message.splitlines())
                sys.stderr.write("".join(lines))
        except Exception:
            self.handleError(record)
