"""A small workerd for workerctl's tests: the real protocol on a real socket, real logs.

It decodes requests as strictly as the daemon does and answers from a table of
jobs and functions; output.open gives real descriptors of real files.
"""

from __future__ import annotations

import io
import os
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import msgspec

from workerd import errors, fdpass, protocol
from workerd.job import Job, JobSpec, Reason, State

Answer = Callable[[Any], Any]
HEADER = struct.Struct("<8sQQQQ24x")
RECORD = struct.Struct("<QQQII")
INFO = protocol.InfoResult("1", 1, "boot", 1, "/s", "/d", "/c", ("memory",), (), 1, 2, 3, 0, True)


class LogWriter:
    """Writes a log and its index as worker-init does."""

    def __init__(self, directory: Path) -> None:
        self.log = os.open(directory / "output", os.O_RDWR | os.O_CREAT, 0o600)
        self.index = os.open(directory / "output.idx", os.O_RDWR | os.O_CREAT, 0o600)
        self.records: list[list[int]] = []
        self.end = self.kept_from = self.first_record = self.lost = 0
        self.complete = False
        self._header()

    def write(self, stream: int, data: bytes, *, merge: bool = True) -> None:
        os.pwrite(self.log, data, self.end)
        if merge and self.records and self.records[-1][3] == stream:
            self.records[-1][1] += len(data)
        else:
            self.records.append([self.end, len(data), 1_700_000_000_000_000_000, stream, 0])
        self.end += len(data)
        number = len(self.records) - 1
        os.pwrite(self.index, RECORD.pack(*self.records[-1]), HEADER.size + number * RECORD.size)

    def finish(self) -> None:
        self.complete = True
        self._header()

    def punch(self, kept_from: int) -> None:
        """Releases the oldest bytes and the records that are wholly in them."""
        self.kept_from = kept_from
        while self.first_record < len(self.records) and sum(self.records[self.first_record][:2]) <= kept_from:
            self.first_record += 1
        self._header()
        os.pwrite(self.log, bytes(kept_from), 0)
        os.pwrite(self.index, bytes(self.first_record * RECORD.size), HEADER.size)

    def close(self) -> None:
        os.close(self.log)
        os.close(self.index)

    def _header(self) -> None:
        flags = int(self.complete)
        os.pwrite(self.index, HEADER.pack(b"WKIDX001", self.kept_from, self.first_record, self.lost, flags), 0)


def make_job(**fields: Any) -> Job:
    values: dict[str, Any] = {
        "id": "k3v9q2m7xd",
        "uid": 0,
        "gid": 0,
        "groups": (0,),
        "spec": JobSpec(argv=("true",)),
        "state": State.FINISHED,
        "created": 1_700_000_000_000_000,
        "started": 1_700_000_000_100_000,
        "finished": 1_700_000_001_000_000,
        "reason": Reason.EXITED,
        "exit_code": 0,
    }
    if fields.get("state", State.FINISHED) is not State.FINISHED:
        values.update(finished=None, reason=None, exit_code=None)
    return Job(**{**values, **fields})


class FakeWorkerd:
    """Answers each connection in a thread; `requests` keeps (method, params) as they came."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self.requests: list[tuple[str, Any]] = []
        self.answers: dict[str, Answer] = {"daemon.info": lambda params: INFO}
        self.fds: dict[str, Callable[[], list[int]]] = {}
        self.received: list[int] = []
        self.raw: bytes | None = None
        """answered in place of everything, and then the connection is closed"""
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(self.path)
        self._listener.listen()
        self._connections: list[socket.socket] = []
        self._acceptor = threading.Thread(target=self._accept, daemon=True)
        self._acceptor.start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._acceptor.join()  # one that was just accepted is closed below as well
        for sock in (self._listener, *self._connections):
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            sock.close()
        fdpass.close_all(self.received)

    def asked(self, method: str) -> list[Any]:
        return [params for name, params in self.requests if name == method]

    def has_log(self, directory: Path) -> None:
        """output.open gives the log in this directory."""

        def fds() -> list[int]:
            return [os.open(directory / name, os.O_RDONLY) for name in ("output", "output.idx")]

        self.fds["output.open"] = fds
        self.answers["output.open"] = lambda params: protocol.OutputOpenResult(params.id, 0, 0, False)

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self._connections.append(sock)
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        rest = b""
        try:
            while True:
                data, fds = fdpass.receive(sock, 65536, protocol.MAX_FDS)
                self.received += fds
                if not data:
                    return
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    self._answer(sock, line)
        except OSError:
            return

    def _answer(self, sock: socket.socket, line: bytes) -> None:
        if self.raw is not None:
            sock.sendall(self.raw)
            sock.shutdown(socket.SHUT_RDWR)
            return
        request = protocol.decode_request(line)
        assert request.id is not msgspec.UNSET
        fds: list[int] = []
        try:
            params = protocol.decode_params(request)
            self.requests.append((request.method, params))
            result = self.answers[request.method](params)
            answer = protocol.encode_result(request.id, result)
            fds = self.fds.get(request.method, list)()
        except errors.WorkerError as error:
            answer = protocol.encode_error(request.id, error)
        try:
            sent = fdpass.send(sock, answer, fds)
            sock.sendall(answer[sent:])
        finally:
            fdpass.close_all(fds)


def drained(parts: Iterable[tuple[int, int, bytes]], stream: int | None = None) -> bytes:
    page = io.BytesIO()
    for _, kind, data in parts:
        if stream in (None, kind):
            page.write(data)
    return page.getvalue()


class Ran:
    def __init__(self, done: subprocess.CompletedProcess[bytes]) -> None:
        self.code, self.out, self.raw_err = done.returncode, done.stdout, done.stderr
        self.err = done.stderr.decode(errors="backslashreplace")


def environment(fake: FakeWorkerd | None) -> dict[str, str]:
    env = {name: value for name, value in os.environ.items() if not name.startswith(("WORKER", "LC_"))}
    env["PYTHONPATH"] = str(Path(__file__).parents[2])
    return {**env, "LANG": "C.UTF-8"} | ({"WORKERD_SOCKET": fake.path} if fake else {})


def ctl(fake: FakeWorkerd | None, *words: str, **more: Any) -> Ran:
    command = [sys.executable, "-m", "workerctl", *words]
    return Ran(subprocess.run(command, env=environment(fake), capture_output=True, timeout=60, **more))
