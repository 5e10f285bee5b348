"""A job's standard input: the caller's descriptor, or bytes in a file in memory.

Either way what is handed over is a descriptor of our own, so that the caller may close
his at once, also while the request still waits to be sent.
"""

from __future__ import annotations

import os


def opened(given: bytes | int | None) -> tuple[int, ...]:
    """None or one descriptor, the caller's to close. Raises OSError."""
    if given is None:
        return ()
    if isinstance(given, int):
        return (os.dup(given),)
    fd = _file()
    try:
        rest = memoryview(given)
        while rest:
            rest = rest[os.write(fd, rest) :]
        os.lseek(fd, 0, os.SEEK_SET)
    except BaseException:
        os.close(fd)
        raise
    return (fd,)


def _file() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("stdin", os.MFD_CLOEXEC)
    import tempfile  # macOS and Windows, whose jobs run on another machine

    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
