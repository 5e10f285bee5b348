"""Ctrl-C in the instant before workerctl waits: it is not lost, whatever it waits in."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.processes import killed_after
from tests.unit.workerctl_fakes import FakeWorkerd, LogWriter, environment, make_job
from workerd import protocol
from workerd.job import State

SOURCE = Path(__file__).with_name("earlysignal.c")
RUNS = make_job(id="runs000000", state=State.RUNNING)
NOTHING_MORE = 60.0
"""seconds for which nothing but the signal ends a wait"""

pytestmark = pytest.mark.skipif(not shutil.which("cc"), reason="no C compiler here")


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("shim") / "earlysignal.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-o", made, SOURCE], check=True)
    return made


class Waiting:
    """A workerd with which everything waits, but for a signal to the job: then `killed` is set."""

    def __init__(self, directory: Path) -> None:
        self.fake = FakeWorkerd(directory / "sock")
        self.killed, self._over = threading.Event(), threading.Event()
        log = LogWriter(directory)
        log.write(1, b"up\n")
        log.close()
        self.fake.has_log(directory)
        self.fake.answers |= {
            "job.run": lambda params: protocol.RunResult(RUNS.id, State.RUNNING),
            "job.status": lambda params: RUNS,
            "job.kill": self._kill,
            "job.wait": self._wait,
            "job.stop": self._wait,
            "output.wait": self._wait,
            "events.subscribe": self._subscribe,
            "job.exec": lambda params: protocol.ExecResult(RUNS.id),
        }
        self._leash, self._given = socket.socketpair()
        self.fake.fds["job.exec"] = lambda: [os.dup(self._given.fileno())]

    def _kill(self, params: Any) -> Any:
        self.killed.set()
        return RUNS

    def _wait(self, params: Any) -> Any:
        self._over.wait(NOTHING_MORE)
        return protocol.WaitResult(())

    def _subscribe(self, params: protocol.SubscribeParams) -> Any:
        if params.timeout is None:
            self._over.wait(NOTHING_MORE)
        return protocol.SubscribeResult((), "1:1")

    def signals(self) -> bytes:
        """What the leash of an exec brings; waits for it."""
        self._leash.settimeout(NOTHING_MORE / 2)
        return self._leash.recv(64)

    def close(self) -> None:
        self._over.set()
        self.fake.close()
        self._leash.close()
        self._given.close()


@pytest.fixture
def waiting(tmp_path: Path) -> Iterator[Waiting]:
    made = Waiting(tmp_path)
    yield made
    made.close()


def begin(waiting: Waiting, shim: Path, call: int, words: str) -> subprocess.Popen[bytes]:
    """The signal comes before this one of its calls of recv(2) and poll(2)."""
    early = {"LD_PRELOAD": str(shim), "WORKER_EARLY_SIGNAL": str(call)}
    command = [sys.executable, "-m", "workerctl", *words.split()]
    devnull = subprocess.DEVNULL
    return subprocess.Popen(command, env={**environment(waiting.fake), **early}, stdin=devnull, stdout=devnull)


@pytest.mark.parametrize(("call", "words"), [(2, "run --wait true"), (2, "run -f true")])
def test_of_one_who_stays_with_a_job_goes_to_the_job(waiting: Waiting, shim: Path, call: int, words: str) -> None:
    with killed_after(begin(waiting, shim, call, words)) as process:
        assert waiting.killed.wait(NOTHING_MORE / 2)
        assert waiting.fake.asked("job.kill") == [protocol.KillParams(RUNS.id, signal=2)]
        assert process.poll() is None  # it stays


def test_of_exec_goes_to_the_command(waiting: Waiting, shim: Path) -> None:
    with killed_after(begin(waiting, shim, 1, f"exec {RUNS.id} true")):
        assert waiting.signals() == bytes([1, 2, 0, 0, 0, 0, 0, 0])  # protocol.md: SIGNAL, SIGINT


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (1, "wait runs000000"),
        (1, "wait --match never runs000000"),
        (1, "out -f runs000000"),
        (2, "events"),
        (1, "stop runs000000"),
    ],
)
def test_of_one_who_only_waits_ends_it(waiting: Waiting, shim: Path, call: int, words: str) -> None:
    with killed_after(begin(waiting, shim, call, words)) as process:
        assert process.wait(NOTHING_MORE / 2) == -2
