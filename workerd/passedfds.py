"""What a client may hand to a job as its standard input, output or error."""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Iterable

from workerd.errors import InvalidParams

_O_PATH = 0o10000000


def check(fds: Iterable[int]) -> None:
    """Raises InvalidParams for what would lead out of the job.

    A directory is a way to every file beside and below it (openat(2)), whatever the
    job's own view. A terminal cannot be taken back: the job could go on reading what is
    typed there, and whatever it writes there is obeyed; a client that sits on one copies
    from and to it, or asks for a terminal for the job.
    """
    for fd in fds:
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            raise InvalidParams("a directory cannot be a job's standard input or output", field="fds")
        if fcntl.fcntl(fd, fcntl.F_GETFL) & _O_PATH:
            raise InvalidParams("this descriptor is not open for reading or writing (O_PATH)", field="fds")
        if os.isatty(fd):
            raise InvalidParams("a terminal cannot be handed to a job: give it a pipe, or ask for a tty", field="fds")
