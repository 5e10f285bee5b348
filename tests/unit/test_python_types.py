"""What a user's type checker sees of the Python API: mypy --strict over a program of theirs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

PROGRAM = '''
import asyncio
from concurrent.futures import as_completed
from typing import assert_type

from workerctl import AsyncClient, Client, CommandExecutor, CommandFailed, Event, Job, JobResult, JobSpec, Piece
from workerd.protocol import RunResult, WaitResult


def blocking() -> None:
    with Client() as client:
        started = client.run(["make", "-j4"], mem="1G", cpus=2, timeout="10m", labels={"a": "b"})
        assert_type(started, RunResult)
        client.run(JobSpec(argv=("true",)), env={"A": "b"})
        assert_type(client.wait(started), Job)
        assert_type(client.wait("id", timeout=1.5), Job)
        assert_type(client.wait([started.id]), WaitResult)
        assert_type(client.wait((started, client.status("x")), any=True), WaitResult)
        assert_type(client.result(started), JobResult)
        for piece in client.stream(started, stream="stderr"):
            assert_type(piece, Piece)
        for event in client.events(jobs=[started]):
            assert_type(event, Event)
        for job in client.list(states=["running"], labels={"a": None}):
            assert_type(job, Job)
        client.update(job, mem="2G")

        client.run(["make"], memory="1G")  # type: ignore[call-overload]
        client.run(JobSpec(argv=("true",)), mem="1G")  # type: ignore[call-overload]
        client.stream(started, stream="both")  # type: ignore[arg-type]
        client.wait("id", any=True)  # type: ignore[arg-type]
        client.update(job, cwd="/")  # type: ignore[call-arg]


async def concurrent() -> None:
    async with AsyncClient(patience=20) as client, asyncio.TaskGroup() as group:
        started = await client.run(["true"], cpus=0.5)
        waiting = group.create_task(client.wait(started))
        assert_type(await waiting, Job)
        assert_type(await client.wait(["a", "b"], any=True), WaitResult)
        async for piece in client.stream(started):
            assert_type(piece, Piece)
        async for event in client.events():
            assert_type(event, Event)
        async for job in client.list(all=True):
            assert_type(job, Job)


def futures() -> None:
    with CommandExecutor(4, mem="1G") as executor:
        submitted = [executor.submit(["true"], cpus=1, check=True)]
        for future in as_completed(submitted):
            try:
                assert_type(future.result(), JobResult)
            except CommandFailed as error:
                assert_type(error.result.stdout, bytes)
        for result in executor.map([["true"]], timeout=5):
            assert_type(result.exit_code, int)
        executor.submit(["true"], memory=5)  # type: ignore[call-overload]
'''


def test_a_users_program_and_the_examples_pass_mypy_strict(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    examples = sorted(str(path) for path in (ROOT / "examples").glob("*.py"))
    assert examples
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file", "/dev/null", str(program), *examples]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=110)
    assert done.returncode == 0, done.stdout + done.stderr
