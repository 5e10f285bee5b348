"""What a job that is starting has on the disk, which its PID 1 gets with the word to go: it is made
while that builds what the job sees. Its log and index in the store's thread, behind the commit of
its record; its run-time files in the loop."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable

from workerd import jobfiles, trylog
from workerd.errors import WorkerError, as_worker_error
from workerd.job import Restart
from workerd.registry import Live

Made = Callable[[jobfiles.OutputFiles], None]
"""what is to be called with them as soon as they are there, in the thread that made them; must not raise"""


class ComingOutput:
    """Owns them, once they are there. `begin` has the job recorded and them opened; it is
    called by who asks first, which the launcher does when it has handed its plan on: before
    that the store's thread would take its turns with all that the loop has to do for it."""

    def __init__(self, begin: Callable[[Made], Awaitable[jobfiles.OutputFiles]]) -> None:
        self._begin = begin
        self._files: jobfiles.OutputFiles | None = None
        self._error: WorkerError | OSError | None = None
        self._closed = False

    async def files(self, made: Made = lambda files: None) -> jobfiles.OutputFiles:
        """Once the job is recorded. `made` is called where they were not asked for before. Raises why
        it could not be recorded (WorkerError), or why they cannot be had (OSError)."""
        if self._error is not None:
            raise self._error
        if self._files is None:
            try:
                self._files = await self._begin(made)
            except (WorkerError, OSError) as error:
                self._error = error
                raise
        return self._files

    async def is_recorded(self) -> bool:
        """Once that is known."""
        with contextlib.suppress(WorkerError, OSError):
            await self.files()
        return self._files is not None

    def close(self) -> None:
        """Can be called twice."""
        if self._files is not None and not self._closed:
            self._closed = True
            self._files.close()


def open_output(live: Live, made: Made) -> jobfiles.OutputFiles:
    """For the store's thread. Raises OSError."""
    opened = jobfiles.open_output(live.files)
    try:
        if live.job.spec.restart.when is not Restart.NEVER:
            trylog.begin(opened.index)
    except BaseException:
        opened.close()
        raise
    made(opened)
    return opened


class ComingRuntime:
    """Owns its run-time files, once somebody has asked for them."""

    def __init__(self, files: jobfiles.JobFiles, *, tty: bool) -> None:
        self._paths, self._tty = files, tty
        self._files: jobfiles.RuntimeFiles | None = None

    def files(self) -> jobfiles.RuntimeFiles:
        """Raises WorkerError."""
        if self._files is None:
            try:
                self._files = jobfiles.create_runtime(self._paths, tty=self._tty)
            except OSError as error:
                raise as_worker_error(error) from error
        return self._files

    def close(self) -> None:
        if self._files is not None:
            self._files.close()
