"""worker-init as it is executed: a sealed copy in memory.

A job's first process runs our program, and a job of root could reach its file through
/proc/<pid>/exe, wait for the process to end, and write to it (CVE-2019-5736). Nobody can
write to a sealed memfd (memfd_create(2), F_ADD_SEALS in fcntl(2)); all jobs share it, and
a copy stays for as long as a process runs from it, whatever is installed meanwhile.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
from collections.abc import Mapping, Sequence

log = logging.getLogger("workerd")

_MFD_EXEC = 0x10
"""linux/memfd.h, since Linux 6.3; older kernels refuse the flag and need none"""
_LOWEST_FD = 16
_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


class SealedProgram:
    """Owns the descriptor that it is executed through."""

    def __init__(self, program: str) -> None:
        """Raises OSError where `program` cannot be read. Where the system allows no
        program in memory (vm.memfd_noexec), the file itself is used, and the log says so."""
        self._program = program
        self._fd = -1
        self._path = program
        self._renew()

    def spawn(self, words: Sequence[str], env: Mapping[str, str], fds: Mapping[int, int]) -> int:
        """The pid of a child that runs it with these arguments and with `fds`, from the
        number there to the number here. Raises OSError."""
        # Duplicated onto itself, an fd loses close-on-exec in the child alone (posix_spawn(3)).
        actions = [(os.POSIX_SPAWN_DUP2, here, there) for there, here in fds.items()]
        argv = ["worker-init", *words]
        try:
            return os.posix_spawn(self._path, argv, env, file_actions=actions)
        except OSError as error:
            if error.errno != errno.ETXTBSY:
                raise
        # Somebody (root, in a job of root's) holds our copy open for writing.
        self._renew()
        return os.posix_spawn(self._path, argv, env, file_actions=actions)

    def _renew(self) -> None:
        """Another copy in place of this one. Raises OSError, and then keeps this one."""
        try:
            writable = _memfd()
        except OSError as error:
            log.warning("%s runs from its file, unsealed: %s", self._program, error)
            return
        try:
            _fill(writable, self._program)
            fcntl.fcntl(writable, fcntl.F_ADD_SEALS, _SEALS)
            # What anybody has open for writing cannot be executed (execve(2), ETXTBSY).
            readable = os.open(f"/proc/self/fd/{writable}", os.O_RDONLY | os.O_CLOEXEC)
        finally:
            os.close(writable)
        fd = out_of_the_way(readable)
        os.close(readable)
        self.close()
        self._fd, self._path = fd, f"/proc/self/fd/{fd}"

    def close(self) -> None:
        """Can be called twice; what runs from it runs on."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def out_of_the_way(fd: int) -> int:
    """A copy above the numbers that a child's descriptors are put at before it executes. Raises OSError."""
    return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _LOWEST_FD)


def _memfd() -> int:
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        return os.memfd_create("worker-init", flags | _MFD_EXEC)
    except OSError:
        return os.memfd_create("worker-init", flags)


def _fill(fd: int, program: str) -> None:
    with open(program, "rb") as source:
        while data := source.read(1 << 20):
            os.write(fd, data)
    os.fchmod(fd, 0o555)
