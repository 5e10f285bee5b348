"""A job's two directories, and the names in them.

    <state>/jobs/<id>/job                    its record (workerd.jobrecord)
    <state>/jobs/<id>/output, output.idx     kept as long as the record
    <runtime>/jobs/<id>/exit, control, …     gone once the outcome is recorded
"""

from __future__ import annotations

import contextlib
import errno
import os
import struct
from collections.abc import Iterable

from msgspec import Struct

from workerd import exitrecord, jobrecord
from workerd.output import HEADER, MAGIC

LOG, INDEX = "output", "output.idx"
_EXIT, _CONTROL = "exit", "control"

_ORDER = struct.Struct("<BBHI")
_SIGNAL, _SIGNAL_ALL, _WINDOW = 1, 2, 3


class JobFiles:
    """The paths of one job's files; nothing is open here. Making and removing can
    each be repeated."""

    __slots__ = ("_id", "_runtime_dir", "_state_dir")

    def __init__(self, state_dir: str, runtime_dir: str, job_id: str) -> None:
        self._state_dir, self._runtime_dir, self._id = state_dir, runtime_dir, job_id

    @property
    def state(self) -> str:
        return f"{self._state_dir}/jobs/{self._id}"

    @property
    def runtime(self) -> str:
        return f"{self._runtime_dir}/jobs/{self._id}"

    @property
    def log(self) -> str:
        return f"{self.state}/{LOG}"

    @property
    def index(self) -> str:
        return f"{self.state}/{INDEX}"

    @property
    def exit(self) -> str:
        return f"{self.runtime}/{_EXIT}"

    @property
    def control(self) -> str:
        return f"{self.runtime}/{_CONTROL}"

    @property
    def resolv_conf(self) -> str:
        return f"{self.runtime}/resolv.conf"

    @property
    def hosts(self) -> str:
        return f"{self.runtime}/hosts"

    @property
    def tty(self) -> str:
        """A FIFO: what is typed into the job's terminal, where it has one."""
        return f"{self.runtime}/tty"

    def make_runtime(self) -> None:
        """Before there may be a PID 1: as long as there is no exit record in it, none has had
        the word to go. Raises OSError."""
        os.mkdir(self.runtime, 0o700)

    def never_had_the_word(self) -> bool:
        """Whether no PID 1 of the job can have had it."""
        return os.path.isdir(self.runtime) and not os.path.exists(self.exit)

    def remove_runtime(self) -> None:
        _remove_directory(self.runtime, (_EXIT, _CONTROL))

    def remove_output(self) -> None:
        _unlink((self.log, self.index))

    def remove_state(self) -> None:
        _remove_directory(self.state, (jobrecord.NAME, LOG, INDEX))

    def write_names(self, resolv_conf: str, hosts: str) -> None:
        """What the job sees in /etc, where it has a network. Raises OSError."""
        for path, text in ((self.resolv_conf, resolv_conf), (self.hosts, hosts)):
            with open(path, "w") as file:
                file.write(text)
                os.fchmod(file.fileno(), 0o644)

    def signal(self, number: int, *, everyone: bool) -> bool:
        """Have PID 1 send it to the command, or to every process of the job. False
        where nobody listens: the job is over. Raises BlockingIOError where PID 1,
        paused, has not taken thousands of earlier ones."""
        return self._order(_SIGNAL_ALL if everyone else _SIGNAL, number, 0)

    def resize(self, rows: int, columns: int) -> bool:
        """Have PID 1 give the job's terminal this size; as `signal`."""
        return self._order(_WINDOW, 0, rows << 16 | columns)

    def open_typing(self) -> int | None:
        """The writing end of the terminal's FIFO, non-blocking; None where there is no
        terminal, or nobody reads it any more."""
        return _open_fifo(self.tty)

    def _order(self, kind: int, number: int, argument: int) -> bool:
        fd = _open_fifo(self.control)
        if fd is None:
            return False
        try:
            os.write(fd, _ORDER.pack(kind, number, 0, argument))
        finally:
            os.close(fd)
        return True


class RuntimeFiles(Struct, frozen=True):
    """What PID 1 is given of them; the daemon closes its own once PID 1 has them."""

    exit: int
    control: int
    tty: int | None = None

    def fds(self) -> list[int]:
        return [fd for fd in (self.exit, self.control, self.tty) if fd is not None]

    def close(self) -> None:
        for fd in self.fds():
            os.close(fd)


class OutputFiles(Struct, frozen=True):
    """As RuntimeFiles."""

    log: int
    index: int

    def close(self) -> None:
        os.close(self.log)
        os.close(self.index)


def _begin_index(fd: int) -> None:
    """A new index gets its header: from then on its first block is there, so that a disk
    that fills up can neither keep the job from starting nor what it lost from being told.
    Raises OSError."""
    if os.fstat(fd).st_size == 0:
        os.pwrite(fd, HEADER.pack(MAGIC, 0, 0, 0, 0), 0)


def _open_or_make(path: str, made: list[str]) -> int:
    """Its descriptor; what was not there is added to `made`. Raises OSError."""
    flags = os.O_RDWR | os.O_CLOEXEC
    try:
        fd = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return os.open(path, flags)
    made.append(path)
    return fd


def _open_fifo(path: str) -> int | None:
    """Its writing end, or None where nobody reads."""
    try:
        return os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENXIO):
            return None
        raise


def _remove_directory(path: str, usual: Iterable[str]) -> None:
    """A flat one; nothing where it is gone. It is looked into only where more than the usual is
    there. All of it goes, even where somebody else is about to remove it too: what he has not
    come to yet, he may not live to do."""
    with contextlib.suppress(FileNotFoundError):
        try:
            _remove_with(path, usual)
        except OSError as error:
            if error.errno != errno.ENOTEMPTY:
                raise
            _remove_with(path, os.listdir(path))


def _remove_with(path: str, names: Iterable[str]) -> None:
    _unlink(f"{path}/{name}" for name in names)
    os.rmdir(path)


def _unlink(paths: Iterable[str]) -> None:
    """Those that are there."""
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)


def open_output(files: JobFiles) -> OutputFiles:
    """The log and the index, made where they are not there: one that waited, or is tried
    again, has them. For a thread, since the disk may take its time. Raises OSError, and
    then none of them is left that was not there."""
    try:
        return _open_output(files)
    except FileNotFoundError:  # somebody removed the directory of a job that waits
        os.mkdir(files.state, 0o700)
        return _open_output(files)


def _open_output(files: JobFiles) -> OutputFiles:
    opened: list[int] = []
    made: list[str] = []
    try:
        for path in (files.log, files.index):
            opened.append(_open_or_make(path, made))
        _begin_index(opened[-1])
    except BaseException:
        for fd in opened:
            os.close(fd)
        _unlink(made)
        raise
    return OutputFiles(*opened)


def create_runtime(files: JobFiles, *, tty: bool) -> RuntimeFiles:
    """The run-time files of a job that is to start, in their directory. Raises OSError, and
    then nothing of them is left."""
    opened: list[int] = []
    try:
        opened.append(exitrecord.allocate(files.exit))
        for path in (files.control, files.tty) if tty else (files.control,):
            os.mkfifo(path, 0o600)
            opened.append(os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC))
    except BaseException:
        for fd in opened:
            os.close(fd)
        _unlink((files.exit, files.control, files.tty))  # not the directory: a PID 1 may be there
        raise
    return RuntimeFiles(*opened)
