"""workerd where its standard descriptors are closed, as some supervisors start it."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence

import pytest

from tests.host.daemon import ROOT, Daemon, until
from workerd.errors import ConnectionFailed


class Closed(Daemon):
    """Started without some of them. Where 2 is one, it has no log."""

    def __init__(self, closed: Sequence[int]) -> None:
        super().__init__()
        self.closed = closed

    def command(self) -> list[str]:
        return without(self.closed, super().command())

    def start(self) -> None:  # type: ignore[override]
        self.begin()
        until(self.answers)

    def answers(self) -> bool:
        with contextlib.suppress(ConnectionFailed), self.client() as client:
            client.info()
            return True
        return False


def without(closed: Sequence[int], command: list[str]) -> list[str]:
    return ["sh", "-c", f'exec "$@" {" ".join(f"{fd}<&-" for fd in closed)}', "sh", *command]


def access_mode(pid: int, fd: int) -> int:
    with open(f"/proc/{pid}/fdinfo/{fd}") as file:
        flags = next(line.split()[1] for line in file if line.startswith("flags:"))
    return int(flags, 8) & os.O_ACCMODE


@pytest.fixture(params=[(0, 1, 2), (1, 2), (0,), (2,)], ids=str)
def closed(request: pytest.FixtureRequest) -> Iterator[Closed]:
    made = Closed(request.param)
    try:
        made.start()
        yield made
    finally:
        made.close()


def test_a_job_runs_and_gives_its_output(closed: Closed) -> None:
    job, output = closed.shell("echo out; echo err >&2")
    assert (job.exit_code, output) == (0, "out\nerr\n")
    assert closed.process is not None
    pid = closed.process.pid
    for fd in closed.closed:
        assert os.readlink(f"/proc/{pid}/fd/{fd}") == os.devnull
        assert access_mode(pid, fd) == (os.O_RDONLY if fd == 0 else os.O_WRONLY)


@pytest.mark.parametrize(
    ("arguments", "status"), [("--check-config", 0), ("--state-dir=/dev/null/x", 1), ("--what", 2)]
)
def test_what_it_cannot_say_changes_nothing(arguments: str, status: int) -> None:
    command = without((0, 1, 2), [sys.executable, "-m", "workerd", *arguments.split()])
    assert subprocess.run(command, cwd=ROOT, check=False).returncode == status
