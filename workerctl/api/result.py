"""How a command ended, and what it wrote.

    result = client.result(job)          # waits for its end
    print(result.exit_code, result.stdout.decode())
    result.check()                       # raises CommandFailed, which says why and what to do
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cached_property
from typing import Any

import msgspec

from workerctl.api.pieces import StreamName
from workerctl.verdict import Verdict, explain
from workerd.errors import WorkerError
from workerd.job import Job, shell_code

MOST_OUTPUT = 16 << 20
"""bytes of a stream that are read into memory"""

ReadNewest = Callable[[str, StreamName | None, int], tuple[bytes, bool]]
"""(job, stream, most bytes) → what `workerctl.api.pieces.newest` gives of its log"""


class CommandFailed(WorkerError):
    """A command that was to succeed did not. `str()` says what happened and what to do."""

    kind = "command-failed"

    def __init__(self, result: JobResult) -> None:
        verdict = result.verdict
        advice = f"; {verdict.advice}" if verdict.advice else ""
        command = f": {verdict.command}" if verdict.command else ""
        name = result.job.spec.name or result.job.spec.argv[0]
        super().__init__(f"job {result.id} ({name}): {verdict.what}{advice}{command}", id=result.id)
        self.result = result
        self.verdict = verdict

    def __reduce__(self) -> tuple[Any, ...]:
        return CommandFailed, (self.result,)


class JobResult:
    """A finished job. Its output is read when it is first asked for, over a connection of
    its own, from any thread; it is there as long as the daemon keeps the job."""

    def __init__(self, job: Job, read: ReadNewest, most: int = MOST_OUTPUT) -> None:
        self.job = job
        self._read = read
        self._most = most

    def __repr__(self) -> str:
        return f"<JobResult {self.id} {self.job.reason} {self.exit_code}>"

    @property
    def id(self) -> str:
        return self.job.id

    @property
    def exit_code(self) -> int:
        """As a shell would give it: 128+N after signal N, 124 after a timeout, 126 or 127
        where the command could not be executed or found, 125 where its end is not known."""
        return shell_code(self.job)

    @property
    def succeeded(self) -> bool:
        return self.job.succeeded

    @cached_property
    def verdict(self) -> Verdict:
        """Why it ended as it did, on what facts, and what to do."""
        return explain(msgspec.to_builtins(self.job), time.time_ns() // 1000)

    def check(self) -> JobResult:
        """Itself, where the command exited with 0; raises CommandFailed where not."""
        if not self.succeeded:
            raise CommandFailed(self)
        return self

    @property
    def stdout(self) -> bytes:
        """Its last MOST_OUTPUT bytes (or as many as the executor was told)."""
        return self._stdout[0]

    @property
    def stderr(self) -> bytes:
        """As `stdout`."""
        return self._stderr[0]

    @property
    def output(self) -> bytes:
        """Both streams as they came; as `stdout`."""
        return self._output[0]

    @property
    def cut(self) -> bool:
        """Whether there was more output than `output` has: beyond that bound, or
        released because the job wrote more than is kept (max_output)."""
        return self._output[1]

    @cached_property
    def _stdout(self) -> tuple[bytes, bool]:
        return self._read(self.id, "stdout", self._most)

    @cached_property
    def _stderr(self) -> tuple[bytes, bool]:
        return self._read(self.id, "stderr", self._most)

    @cached_property
    def _output(self) -> tuple[bytes, bool]:
        return self._read(self.id, None, self._most)
