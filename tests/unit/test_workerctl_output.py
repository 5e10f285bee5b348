"""Output through whole command lines: every byte, where it belongs, and what is said of the rest."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.workerctl_fakes import FakeWorkerd, LogWriter, ctl, environment, make_job
from workerd import protocol
from workerd.job import State


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[FakeWorkerd]:
    made = FakeWorkerd(tmp_path / "sock")
    made.answers["job.run"] = lambda params: protocol.RunResult("k3v9q2m7xd", State.RUNNING)
    made.answers["job.wait"] = lambda params: protocol.WaitResult((make_job(),))
    made.answers["output.wait"] = lambda params: protocol.OutputWaitResult(0, 0, True)
    yield made
    made.close()


@pytest.fixture
def log(fake: FakeWorkerd, tmp_path: Path) -> Iterator[LogWriter]:
    (tmp_path / "job").mkdir()
    writer = LogWriter(tmp_path / "job")
    fake.has_log(tmp_path / "job")
    yield writer
    writer.close()


class TestFollow:
    def test_follow_keeps_the_streams_apart_to_the_byte(self, fake: FakeWorkerd, log: LogWriter) -> None:
        for number in range(1000):
            log.write(1 + number % 2, bytes([number % 256]) * (number % 7 + 1), merge=False)
        log.finish()
        ran = ctl(fake, "run", "-f", "true")
        assert ran.out == b"".join(bytes([n % 256]) * (n % 7 + 1) for n in range(0, 1000, 2))
        assert ran.raw_err == b"".join(bytes([n % 256]) * (n % 7 + 1) for n in range(1, 1000, 2))

    def test_follow_goes_on_until_the_last_byte(self, fake: FakeWorkerd, log: LogWriter) -> None:
        log.write(1, b"early ")
        arrived = threading.Event()

        def more(params: protocol.OutputWaitParams) -> Any:
            if params.offset == 6:
                log.write(1, b"late ")
                arrived.set()
                return protocol.OutputWaitResult(0, log.end, False)
            if params.offset == 11:
                log.write(2, b"last")
                return protocol.OutputWaitResult(0, log.end, True)
            return protocol.OutputWaitResult(0, log.end, True)

        fake.answers["output.wait"] = more
        ran = ctl(fake, "run", "-f", "true")
        assert arrived.is_set() and (ran.out, ran.code) == (b"early late ", 0)
        assert ran.err.endswith("last")

    def test_both_into_one_pipe_come_in_order(self, fake: FakeWorkerd, log: LogWriter) -> None:
        for number in range(100):
            log.write(1 + number % 2, b"%d\n" % number, merge=False)
        log.finish()
        done = subprocess.run(
            [sys.executable, "-m", "workerctl", "run", "-f", "true"],
            env=environment(fake),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=60,
            check=False,
        )
        assert done.stdout.splitlines() == [b"%d" % number for number in range(100)]


class TestOut:
    def test_a_pipe_gets_the_jobs_bytes_and_nothing_else(self, fake: FakeWorkerd, log: LogWriter) -> None:
        data = os.urandom(3_000_000)
        log.write(1, data[:1_000_000])
        log.write(2, data[1_000_000:])
        ran = ctl(fake, "out", "x")
        assert (ran.out, ran.err, ran.code) == (data, "", 0)
        assert ctl(fake, "o", "--stderr", "x").out == data[1_000_000:]
        assert ctl(fake, "logs", "--stdout", "x").out == data[:1_000_000]
        assert ctl(fake, "out", "--stdout", "--stderr", "x").out == data

    def test_what_is_gone_is_counted(self, fake: FakeWorkerd, log: LogWriter) -> None:
        log.write(1, b"0123456789" * 10)
        log.lost = 7
        log.punch(35)
        ran = ctl(fake, "out", "x")
        assert ran.out == b"56789" + b"0123456789" * 6
        assert "35 bytes of output are gone" in ran.err and "7 bytes of output could not be stored" in ran.err

    def test_tail(self, fake: FakeWorkerd, log: LogWriter) -> None:
        log.write(1, b"a\nb\nc\n")
        assert ctl(fake, "out", "-n2", "x").out == b"b\nc\n"

    def test_follow_ends_with_the_output(self, fake: FakeWorkerd, log: LogWriter) -> None:
        log.write(1, b"one\n")

        def more(params: protocol.OutputWaitParams) -> Any:
            log.write(2, b"two\n")
            log.finish()
            return protocol.OutputWaitResult(0, log.end, False)

        fake.answers["output.wait"] = more
        assert ctl(fake, "out", "-f", "x").out == b"one\ntwo\n"

    def test_of_a_job_that_wrote_nothing(self, fake: FakeWorkerd, log: LogWriter) -> None:
        ran = ctl(fake, "out", "-f", "x")
        assert (ran.out, ran.err, ran.code) == (b"", "", 0)

    def test_a_reader_that_has_enough_ends_it_quietly(self, fake: FakeWorkerd, log: LogWriter) -> None:
        log.write(1, b"x" * 5_000_000)
        started = subprocess.Popen(
            [sys.executable, "-m", "workerctl", "out", "x"],
            env=environment(fake),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert started.stdout is not None and started.stderr is not None
        started.stdout.read(10)
        started.stdout.close()
        assert started.stderr.read() == b"" and started.wait(30) == 141
        started.stderr.close()

    def test_a_full_disk_is_told(self, fake: FakeWorkerd, log: LogWriter) -> None:
        log.write(1, b"x")
        with open("/dev/full", "wb") as full:
            done = subprocess.run(
                [sys.executable, "-m", "workerctl", "out", "x"],
                env=environment(fake),
                stdout=full,
                stderr=subprocess.PIPE,
                timeout=60,
                check=False,
            )
        assert (done.returncode, done.stderr) == (125, b"workerctl: standard output: No space left on device\n")

    def test_a_closed_stdout_is_no_place_for_the_socket(self, fake: FakeWorkerd, log: LogWriter) -> None:
        log.write(1, b"x")
        ran = ctl(fake, "out", "x", preexec_fn=lambda: os.close(1))
        assert ran.code == 125 and "Bad file descriptor" in ran.err and fake.asked("output.open")
