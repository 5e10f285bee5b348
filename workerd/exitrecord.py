"""The exit record: what PID 1 of a job leaves behind (workerd/init/report.c).

workerd preallocates the file, PID 1 writes it with one checksummed write: when it is
about to run the command, when that has ended, and once more when all output is drained.
A record that is not whole is no record, and the outcome is then not known.
"""

from __future__ import annotations

import os
import struct
import zlib
from typing import NamedTuple

_LAYOUT = struct.Struct("<8sIIIIQQQQQ24s160s")
SIZE = _LAYOUT.size + 4
_MAGIC = b"WKEXIT01"
_ENDED, _NEVER_RAN, _STARTED = 1, 2, 3
_CLD_EXITED = 1


class Ended(NamedTuple):
    """The command ran and ended. Times in microseconds."""

    exit_code: int | None
    signal: int | None
    started: int
    finished: int
    duration: int
    """by the monotonic clock"""
    output_end: int
    output_lost: int
    """bytes that the log could not take"""


class NeverRan(NamedTuple):
    """A step of the launch failed."""

    step: str
    errno: int
    detail: str
    finished: int


class Started(NamedTuple):
    """PID 1 was about to run the command, and has not said more."""

    started: int


Ran = Started | Ended
"""of a command that may have run"""
Record = Ended | NeverRan | Started


def allocate(path: str) -> int:
    """An empty record, its space reserved; the fd to hand to PID 1. Raises OSError."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.posix_fallocate(fd, 0, SIZE)
    except BaseException:
        os.close(fd)
        raise
    return fd


def read(path: str) -> Record | None:
    """None where there is no whole record."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        return parse(os.pread(fd, SIZE, 0))
    finally:
        os.close(fd)


def parse(data: bytes) -> Record | None:
    if len(data) != SIZE or not data.startswith(_MAGIC):
        return None
    body, checksum = data[:-4], int.from_bytes(data[-4:], "little")
    if zlib.crc32(body) != checksum:
        return None
    _, kind, code, status, err, started, finished, duration, end, lost, step, detail = _LAYOUT.unpack(body)
    if kind == _NEVER_RAN:
        return NeverRan(_text(step), err, _text(detail), finished // 1000)
    if kind == _STARTED:
        return Started(started // 1000)
    if kind != _ENDED:
        return None
    exited = code == _CLD_EXITED
    return Ended(
        exit_code=status if exited else None,
        signal=None if exited else status,
        started=started // 1000,
        finished=finished // 1000,
        duration=duration // 1000,
        output_end=end,
        output_lost=lost,
    )


def _text(field: bytes) -> str:
    return field.split(b"\0", 1)[0].decode(errors="backslashreplace")
