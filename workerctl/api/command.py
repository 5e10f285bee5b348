"""One more command inside a running job (`exec`), held by its leash.

The leash is a socket to the command's supervisor: when it is closed before the command
has ended, that gets SIGHUP, and SIGKILL later.
"""

from __future__ import annotations

from workerctl.execute import Leash


class Held:
    """The command's leash, and its exit code once that is known."""

    def __init__(self, leash_fd: int) -> None:
        self._leash = Leash(leash_fd)
        self._code: int | None = None

    def fileno(self) -> int:
        """Readable when the command has ended."""
        return self._leash.fileno()

    def signal(self, number: int) -> None:
        """To the command's process group; nothing where it has ended."""
        self._leash.signal(number)

    def close(self) -> None:
        self._leash.close()

    def ended(self) -> int:
        """Waits for the end; the exit code."""
        if self._code is None:
            self._code = self._leash.code()
        return self._code


class Command(Held):
    """Close it, or use it as a context manager."""

    def __enter__(self) -> Command:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def wait(self) -> int:
        """Until it has ended: its exit code as a shell gives it. Raises WorkerError where
        its end is not known."""
        return self.ended()
