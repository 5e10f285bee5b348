"""The three standard descriptors: every byte written, notices, and what people see.

Data goes to stdout and notices to stderr, both as plain bytes on the descriptor:
nothing is left in a buffer to fail at exit. An error while writing is the
caller's to handle (BrokenPipeError ends workerctl quietly, in cli).
"""

from __future__ import annotations

import os
import sys

from workerctl import plainjson

STDIN = 0
STDOUT = 1
STDERR = 2

transient = b""
"""what wipes away the line that stands on the terminal for now (workerctl.progress), if one does"""


def keep_three_open() -> None:
    """Nothing that is opened later may become stdout: `workerctl … >&-` would
    write its answer into its own socket."""
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:
            # The wrong way round on purpose: using it fails, as on a closed one.
            os.open("/dev/null", os.O_RDONLY if fd else os.O_WRONLY)


def write_all(fd: int, data: bytes | memoryview) -> None:
    """Every byte. OSError as write(2) has it, named for a person."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:
            _wait_writable(fd)
        except OSError as error:
            error.filename = "standard output" if fd == STDOUT else "standard error"
            raise


def _wait_writable(fd: int) -> None:
    """Somebody else set the open file to non-blocking; it is not ours to change back."""
    import select

    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    poll.poll()


def put(text: str) -> None:
    """Text to stdout, in the terminal's encoding; what that lacks is shown as \\u…"""
    if not is_unicode():
        text = text.replace("…", "...")
    write_all(STDOUT, text.encode(encoding(), "backslashreplace"))


def note(sentence: str) -> None:
    """A notice or an error to stderr: `workerctl: sentence`. Never fails."""
    from workerctl.escape import visible

    try:
        write_all(STDERR, transient + f"workerctl: {visible(sentence)}\n".encode(encoding(), "backslashreplace"))
    except OSError:
        return  # nobody can be told


def encoding() -> str:
    """Of text that people read. Python writes UTF-8 where LC_ALL says C; a terminal whose
    person asked for that is spared it, while data in a pipe stays as it is."""
    if os.environ.get("LC_ALL") in ("C", "POSIX") and is_terminal(STDOUT):
        return "ascii"
    return (sys.stdout.encoding if sys.stdout else None) or "utf-8"


def is_unicode() -> bool:
    return encoding().lower().startswith("utf")


def is_terminal(fd: int) -> bool:
    return os.isatty(fd)


def width() -> int:
    """Columns of the terminal that stdout is; 80 where that is not known."""
    try:
        return os.get_terminal_size(STDOUT).columns or 80
    except OSError:
        return 80


def colour() -> bool:
    """Whether stdout may have colours (https://no-color.org)."""
    return is_terminal(STDOUT) and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def put_json(value: object) -> None:
    """One JSON value: indented for people, on one line for programs."""
    if is_terminal(STDOUT):
        import json

        # ASCII alone: escapes and bidi overrides in a job's arguments stay text.
        write_all(STDOUT, json.dumps(value, indent=2).encode() + b"\n")
    else:
        write_all(STDOUT, plainjson.dumps(value) + b"\n")
