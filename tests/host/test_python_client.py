"""The Python API against a real daemon and real jobs: the blocking client, and the one on asyncio."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.host.daemon import ROOT, Daemon
from workerctl import AsyncClient, Client, CommandExecutor, CommandFailed, JobSpec, Reason, State, errors

MIB = 1 << 20


@pytest.fixture
def client(daemon: Daemon) -> Iterator[Client]:
    with daemon.client() as made:
        yield made


@contextlib.asynccontextmanager
async def connected(daemon: Daemon, patience: float = 0.0) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(str(daemon.socket), patience=patience) as made:
        yield made


def open_fds() -> int:
    return len(os.listdir("/proc/self/fd"))


@contextlib.contextmanager
def no_fd_left() -> Iterator[None]:
    before = open_fds()
    yield
    assert open_fds() == before


class TestRun:
    def test_words_with_options(self, client: Client, tmp_path: Path) -> None:
        started = client.run(
            ["sh", "-c", 'echo "$PWD $GREETING"; cat; echo to stderr >&2; exit 3'],
            cwd="/usr/share",
            env={"PATH": os.environ["PATH"], "GREETING": "hello"},
            stdin=b"typed\n",
            name="all-of-it",
            labels={"of": "test"},
            timeout="1m",
            max_output="1M",
        )
        result = client.result("all-of-it")
        assert result.id == started.id and result.exit_code == 3 and not result.succeeded
        assert result.stdout == b"/usr/share hello\ntyped\n" and result.stderr == b"to stderr\n"
        assert sorted(result.output.splitlines()) == [b"/usr/share hello", b"to stderr", b"typed"]
        spec = result.job.spec
        assert (spec.timeout, spec.max_output, spec.labels) == (60_000_000, MIB, {"of": "test"})

    def test_a_command_that_is_not_there(self, client: Client) -> None:
        with pytest.raises(errors.CommandNotFound):
            client.run(["no-such-command-anywhere"])

    def test_check_says_what_happened(self, client: Client) -> None:
        result = client.result(client.run(["sh", "-c", "kill -SEGV $$"]))
        with pytest.raises(CommandFailed, match="SIGSEGV ended it") as caught:
            result.check()
        assert caught.value.verdict.kind == "crashed" and caught.value.result is result

    def test_every_deed(self, client: Client) -> None:
        job = client.run(JobSpec(argv=("sleep", "1000")))
        assert client.pause(job).state is State.PAUSED
        assert client.resume(job).state is State.RUNNING
        assert client.rename(job, "renamed").spec.name == "renamed"
        assert client.update(job, timeout="1h").spec.timeout == 3_600_000_000
        assert [one.id for one in client.list(states=["running"])] == [job.id]
        assert client.kill(job, 15).id == job.id
        assert client.wait(job).signal == 15
        again = client.rerun(job)
        assert client.stop(again, grace=0).reason is Reason.STOPPED
        assert client.remove(again).id == again.id
        with pytest.raises(errors.NoSuchJob):
            client.status(again)

    def test_waiting_has_a_time(self, client: Client) -> None:
        job = client.run(["sleep", "1000"])
        with pytest.raises(TimeoutError):
            client.wait(job, timeout=0.05)
        assert client.wait([job], timeout="50ms").pending == (job.id,)
        client.stop(job, grace=0)

    def test_waiting_tells_exactly_which_have_ended(self, client: Client) -> None:
        ended = [client.run(["true"]) for _ in range(20)]
        client.wait(ended)
        lives = client.run(["sleep", "1000"])
        asked = [*ended[:10], lives, *ended[10:]]
        for result in (client.wait(asked, any=True), client.wait(asked, timeout=0)):
            assert [job.id for job in result.finished] == [job.id for job in ended]
            assert result.pending == (lives.id,)
        client.stop(lives, grace=0)

    def test_exec_in_a_running_job(self, client: Client) -> None:
        job = client.run(["sleep", "1000"])
        read_end, write_end = os.pipe()
        with client.exec(job, ["sh", "-c", "echo inside; exit 7"], stdout=write_end) as command:
            assert command.wait() == 7 == command.wait()
        os.close(write_end)
        assert os.read(read_end, 100) == b"inside\n"
        os.close(read_end)
        client.stop(job, grace=0)

    def test_two_threads_at_once_are_told_so(self, client: Client) -> None:
        job = client.run(["sleep", "1000"])
        waiting = threading.Thread(target=client.wait, args=(job,))
        waiting.start()
        with pytest.raises(RuntimeError, match="one thread at a time"):
            while waiting.is_alive():
                client.info()
        with Client(client._path) as other:
            other.stop(job, grace=0)
        waiting.join()


class TestStream:
    def test_is_live_and_ends_after_the_last_byte(self, client: Client) -> None:
        begun = time.time()
        job = client.run(["sh", "-c", "echo first; read line; echo second >&2; sleep 0.2; printf third"], stdin=b"\n")
        pieces = list(client.stream(job))
        assert [(piece.stream, piece.data) for piece in pieces] == [
            ("stdout", b"first\n"), ("stderr", b"second\n"), ("stdout", b"third"),
        ]  # fmt: skip
        assert [piece.offset for piece in pieces] == [0, 6, 13]
        assert begun * 1e6 <= pieces[0].time < pieces[2].time <= time.time() * 1e6

    def test_of_a_job_that_waits_begins_when_it_does(self, client: Client) -> None:
        job = client.run(["echo", "late"], delay=0.3)
        assert job.state is State.QUEUED
        assert b"".join(piece.data for piece in client.stream(job)) == b"late\n"

    def test_may_be_told_where_to_begin(self, client: Client) -> None:
        job = client.run(["sh", "-c", "for n in 1 2 3 4; do echo $n; echo e$n >&2; done"])
        client.wait(job)
        whole = list(client.stream(job))
        assert b"".join(piece.data for piece in client.stream(job, start=whole[0].end)) == b"".join(
            piece.data for piece in whole[1:]
        )
        assert b"".join(piece.data for piece in client.stream(job, stream="stderr", tail=2)) == b"e3\ne4\n"

    def test_says_how_much_is_gone(self, client: Client) -> None:
        job = client.run(["seq", "-f", "%09.0f", "1", "300000"], max_output="1M")
        client.wait(job)
        first, *rest = client.stream(job)
        assert first.gone == first.offset > 0 and all(piece.gone == 0 for piece in rest)
        assert first.gone + sum(len(piece.data) for piece in (first, *rest)) == 3_000_000
        assert client.result(job).cut

    def test_other_calls_may_be_made_meanwhile(self, client: Client) -> None:
        job = client.run(["sh", "-c", "trap 'echo bye; exit' TERM; echo ready; while :; do sleep 0.05; done"])
        got = b""
        for piece in client.stream(job):
            got += piece.data
            if got == b"ready\n":
                client.kill(job, 15)
        assert got == b"ready\nbye\n" and client.wait(job).succeeded

    def test_fifty_mebibytes_come_as_they_were_written(self, daemon: Daemon, tmp_path: Path) -> None:
        data = random.Random(1).randbytes(MIB) * 50
        (tmp_path / "data").write_bytes(data)

        async def taken() -> tuple[bytes, bytes]:
            async with connected(daemon) as client:
                job = await client.run(["cat"], max_output="60M", stdin=source)
                got = b"".join([piece.data async for piece in client.stream(job)])
                return got, await client.output(job, most=len(data))

        with no_fd_left():
            source = os.open(tmp_path / "data", os.O_RDONLY)
            assert asyncio.run(taken()) == (data, data)
            os.lseek(source, 0, os.SEEK_SET)
            with daemon.client() as client:
                job = client.run(["cat"], max_output="60M", stdin=source)
                assert b"".join(piece.data for piece in client.stream(job)) == data
            os.close(source)


class TestManyAtOnce:
    def test_two_hundred_jobs_over_one_connection(self, daemon: Daemon) -> None:
        async def one(client: AsyncClient, number: int) -> None:
            job = await client.run(["sh", "-c", f"echo {number}; exit {number % 7}"])
            waiting = asyncio.create_task(client.wait(job))
            assert [piece.data async for piece in client.stream(job)] == [b"%d\n" % number]
            assert (await waiting).exit_code == number % 7

        async def main() -> None:
            async with connected(daemon) as client:
                async with asyncio.TaskGroup() as group:
                    for number in range(200):
                        group.create_task(one(client, number))
                assert len(client._connections) == 1

        with no_fd_left():
            asyncio.run(main())

    def test_a_storm_of_cancellations_mixes_up_nothing(self, daemon: Daemon) -> None:
        """Calls of every kind are cancelled at every moment; those left get their own answers."""
        dice = random.Random(7)

        async def hurried(client: AsyncClient, job: str) -> None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(dice.random() * 0.02):
                    if dice.random() < 0.5:
                        (await client.open_output(job)).close()
                    else:
                        await client.wait(job)

        async def patient(client: AsyncClient, job: str, data: bytes) -> None:
            assert (await client.status(job)).id == job
            assert await client.output(job) == data

        async def main() -> None:
            async with connected(daemon) as client:
                sleeper = (await client.run(["sleep", "1000"])).id
                jobs = {(await client.run(["echo", str(number)])).id: b"%d\n" % number for number in range(10)}
                for job in jobs:
                    await client.wait(job)
                async with asyncio.TaskGroup() as group:
                    for _ in range(100):
                        for job, data in jobs.items():
                            group.create_task(hurried(client, dice.choice([sleeper, job])))
                            group.create_task(patient(client, job, data))
                        await asyncio.sleep(0)
                assert (await client.stop(sleeper, grace=0)).reason is Reason.STOPPED

        with no_fd_left():
            asyncio.run(main())

    def test_waits_that_are_given_up_again_and_again_use_nothing_up(self, daemon: Daemon) -> None:
        """More than workerd lets a user have under way, beside one that goes on."""

        async def give_up(client: AsyncClient, job: str) -> None:
            async with asyncio.timeout(0.001):
                await client.wait(job)

        async def main() -> None:
            async with connected(daemon) as client:
                job = (await client.run(["sleep", "1000"])).id
                kept = asyncio.create_task(client.wait(job))
                for _ in range(20):
                    ends = await asyncio.gather(*[give_up(client, job) for _ in range(500)], return_exceptions=True)
                    assert {type(end) for end in ends} == {TimeoutError}
                    await client.info()
                assert not kept.done() and len(client._connections) <= 2
                await client.stop(job, grace=0)
                assert (await kept).reason is Reason.STOPPED

        with no_fd_left():
            asyncio.run(main())

    def test_a_command_inside_a_job(self, daemon: Daemon) -> None:
        async def main() -> None:
            async with connected(daemon) as client:
                job = await client.run(["sleep", "1000"])
                null = os.open(os.devnull, os.O_WRONLY)
                async with await client.exec(job, ["sh", "-c", "sleep 0.2; exit 7"], stdout=null) as command:
                    assert await asyncio.gather(command.wait(), client.info())
                    assert await command.wait() == 7
                async with await client.exec(job, ["sleep", "1000"], stdout=null) as command:
                    command.signal(15)
                    assert await command.wait() == 128 + 15
                os.close(null)
                await client.stop(job, grace=0)

        with no_fd_left():
            asyncio.run(main())


class TestDaemonsDeath:
    def test_is_told_to_all_who_wait_and_the_next_call_finds_the_new_one(self, own_daemon: Daemon) -> None:
        async def main() -> None:
            async with connected(own_daemon) as client:
                jobs = [(await client.run(["sh", "-c", "read x; echo done"], stdin=gate)).id for _ in range(5)]
                waits = [asyncio.create_task(client.wait(job)) for job in jobs]
                await client.info()
                own_daemon.kill()
                outcomes = await asyncio.gather(*waits, return_exceptions=True)
                assert {type(outcome) for outcome in outcomes} == {errors.ConnectionFailed}
                with pytest.raises(errors.NotRunning):
                    await client.info()
                own_daemon.start()
                os.write(opener, b"\n" * 5)
                assert [job.exit_code for job in (await client.wait(jobs)).finished] == [0] * 5

        gate, opener = os.pipe()
        asyncio.run(main())
        os.close(gate)
        os.close(opener)

    def test_is_waited_through_with_patience(self, own_daemon: Daemon) -> None:
        async def main() -> bytes:
            async with connected(own_daemon, patience=30) as client:
                job = await client.run(["sh", "-c", "echo before; read x; echo after"], stdin=gate)
                got = b""
                async for piece in client.stream(job):
                    got += piece.data
                    if got == b"before\n":
                        await asyncio.to_thread(own_daemon.restart)
                        os.write(opener, b"\n")
                return got

        gate, opener = os.pipe()
        assert asyncio.run(main()) == b"before\nafter\n"
        os.close(gate)
        os.close(opener)

    def test_the_blocking_client_connects_anew_as_well(self, own_daemon: Daemon) -> None:
        with own_daemon.client() as client:
            job = client.run(["true"])
            own_daemon.kill()
            with pytest.raises(errors.ConnectionFailed):
                client.status(job)
            own_daemon.start()
            assert client.wait(job).succeeded


class TestAnotherMachine:
    """Through a program in ssh's place that begins its command here."""

    @pytest.fixture
    def host(self, daemon: Daemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
        program = tmp_path / "ssh"
        program.write_text(f"#!/bin/sh\ncd {ROOT}\nexec {sys.executable} -m workerctl dial-stdio\n")
        program.chmod(0o755)
        monkeypatch.setenv("WORKER_SSH", str(program))
        return f"ssh://there{daemon.socket}"

    def test_runs_follows_and_reads(self, host: str) -> None:
        program = (
            "import sys\nfrom workerctl import Client\n"
            "with Client(host=sys.argv[1]) as client:\n"
            "    job = client.run(['sh', '-c', 'cat; echo bad >&2; exit 4'], stdin=b'far away\\n', cwd='/')\n"
            "    print(sorted((piece.stream, piece.data) for piece in client.stream(job)))\n"
            "    result = client.result(job)\n"
            "    print(result.exit_code, result.stdout, result.stderr)\n"
        )
        ran = subprocess.run(
            [sys.executable, "-c", program, host], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
        )
        assert ran.stdout.splitlines() == [
            r"[('stderr', b'bad\n'), ('stdout', b'far away\n')]",
            r"4 b'far away\n' b'bad\n'",
        ], ran.stderr

    def test_is_not_for_asyncio_which_says_so(self, host: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("WORKER_HOST", host)
        with pytest.raises(errors.ConnectionFailed, match="use a Client"):
            asyncio.run(AsyncClient().info())
        with CommandExecutor() as executor:
            assert isinstance(executor.submit(["true"]).exception(60), errors.ConnectionFailed)
