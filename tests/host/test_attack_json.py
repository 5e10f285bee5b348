"""Requests made to break the reader: each gets an error, and the daemon serves on."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.host.daemon import Daemon
from tests.processes import killed_after
from workerd import fdpass, protocol

DEEP = 100_000
PARSE_ERROR, INVALID_REQUEST, INVALID_PARAMS, NO_SUCH_JOB = -32700, -32600, -32602, -32000


def status(job_id: str) -> str:
    return f'{{"jsonrpc":"2.0","id":1,"method":"job.status","params":{{"id":{job_id}}}}}'


def run(spec: str, env: str = "{}") -> str:
    params = f'{{"spec":{spec},"env":{env}}}'
    return f'{{"jsonrpc":"2.0","id":1,"method":"job.run","params":{params}}}'


def info(number: str) -> str:
    return f'{{"jsonrpc":"2.0","id":{number},"method":"daemon.info"}}'


ATTACKS = {
    "open brackets": ("[" * DEEP, PARSE_ERROR),
    "brackets": ("[" * DEEP + "]" * DEEP, PARSE_ERROR),
    "brackets in params": (status("[" * DEEP + "]" * DEEP), PARSE_ERROR),
    "braces": ('{"a":' * DEEP + "1" + "}" * DEEP, INVALID_REQUEST),
    "braces in params": (status('{"a":' * DEEP + "1" + "}" * DEEP), PARSE_ERROR),
    "NaN": (status("NaN"), PARSE_ERROR),
    "Infinity": (status("-Infinity"), PARSE_ERROR),
    "1e999": (status("1e999"), INVALID_PARAMS),
    "number of 5000 digits": (status("9" * 5000), INVALID_PARAMS),
    "id of 5000 digits": (info("9" * 5000), INVALID_REQUEST),
    "fraction for an id": (info("1.5"), INVALID_REQUEST),
    "truth for an id": (info("true"), INVALID_REQUEST),
    "object for an id": (info("{}"), INVALID_REQUEST),
    "lone surrogate": (status('"\\ud800"'), PARSE_ERROR),
    "lone surrogate, reversed": (status('"\\udc00\\ud800"'), PARSE_ERROR),
    "lone surrogate in argv": (run('{"argv":["true","\\ud800"]}'), PARSE_ERROR),
    "lone surrogate in env": (run('{"argv":["true"]}', '{"A":"\\udfff"}'), PARSE_ERROR),
    "NUL in argv": (run('{"argv":["true","a\\u0000b"]}'), INVALID_PARAMS),
    "NUL in env": (run('{"argv":["true"]}', '{"A":"a\\u0000b"}'), INVALID_PARAMS),
    "NUL in cwd": (run('{"argv":["true"],"cwd":"/\\u0000"}'), INVALID_PARAMS),
    "NUL in a name": (run('{"argv":["true"],"name":"a\\u0000b"}'), INVALID_PARAMS),
    "NUL in a user": (run('{"argv":["true"],"user":"a\\u0000b"}'), INVALID_PARAMS),
    "NUL in a mount": (run('{"argv":["true"],"mounts":[{"kind":"rw","target":"/\\u0000"}]}'), INVALID_PARAMS),
    "NUL in an id": (status('"a\\u0000b"'), NO_SUCH_JOB),
    "raw NUL": ("\0", PARSE_ERROR),
    "byte order mark": ("\ufeff" + info("1"), PARSE_ERROR),
    "no object": ("1", INVALID_REQUEST),
    "empty batch": ("[]", INVALID_REQUEST),
    "400,000 members": ("[" + "1," * 400_000 + "1]", INVALID_REQUEST),
    "version 1": ('{"jsonrpc":"1.0","id":1,"method":"daemon.info"}', INVALID_REQUEST),
    "control character": (status('"a\nb"'.replace("\n", "\x01")), PARSE_ERROR),
    "wildcard for an id": (status('"%"'), NO_SUCH_JOB),
    "SQL for an id": (status('"\' OR 1=1 --"'), NO_SUCH_JOB),
    "empty id": (status('""'), INVALID_PARAMS),
}


class Raw:
    """A bare connection."""

    def __init__(self, daemon: Daemon) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(30)
        self.socket.connect(str(daemon.socket))
        self.reader = self.socket.makefile("rb")

    def ask(self, line: bytes) -> Any:
        self.socket.sendall(line + b"\n")
        return json.loads(self.reader.readline())

    def close(self) -> None:
        self.reader.close()
        self.socket.close()


@pytest.fixture
def raw(daemon: Daemon) -> Iterator[Raw]:
    connection = Raw(daemon)
    yield connection
    connection.close()


class TestRequests:
    @pytest.mark.parametrize("name", ATTACKS)
    def test_gets_its_error_and_the_connection_lives_on(self, raw: Raw, name: str) -> None:
        line, code = ATTACKS[name]
        answer = raw.ask(line.encode())
        assert answer["error"]["code"] == code, answer
        assert raw.ask(info("77").encode())["id"] == 77

    @pytest.mark.parametrize("line", [b'{"jsonrpc":"2.0","id":1,"method":"\xff\xfe"}', b"\xff", b'{"\xc0\xaf":1}'])
    def test_bytes_that_are_no_utf8(self, raw: Raw, line: bytes) -> None:
        assert raw.ask(line)["error"]["code"] in (PARSE_ERROR, INVALID_REQUEST)
        assert raw.ask(info("77").encode())["id"] == 77

    def test_of_a_key_given_twice_one_counts_for_all(self, raw: Raw) -> None:
        """What is checked is what is done: there is one decoder."""
        line = '{"jsonrpc":"2.0","id":1,"id":2,"method":"job.run","method":"job.list","params":{"x":1},"params":{}}'
        answer = raw.ask(line.encode())
        assert (answer["id"], "jobs" in answer["result"]) == (2, True)

    def test_a_long_line_is_refused_before_it_is_all_there(self, raw: Raw) -> None:
        sent = 0
        with pytest.raises(OSError):
            while sent < 1 << 30:
                sent += raw.socket.send(b"x" * 65536)
        assert sent < 64 << 20
        assert b"more than 1048576 bytes" in raw.reader.readline()

    def test_a_full_batch_is_answered_soon(self, raw: Raw) -> None:
        line = "[" + ",".join(info(str(number)) for number in range(protocol.MAX_BATCH)) + "]"
        begun = time.monotonic()
        assert {answer["id"] for answer in raw.ask(line.encode())} == set(range(protocol.MAX_BATCH))
        assert time.monotonic() - begun < 10


class TestDescriptors:
    def open_files(self, daemon: Daemon) -> int:
        assert daemon.process is not None
        return len(os.listdir(f"/proc/{daemon.process.pid}/fd"))

    def test_those_that_nobody_asked_for_are_closed(self, daemon: Daemon) -> None:
        before = self.open_files(daemon)
        for line in (info("1"), status('"x"'), "[", '{"jsonrpc":"2.0","id":1,"method":"no.such"}', info('"a"') * 2):
            connection = Raw(daemon)
            for _ in range(3):
                fdpass.send(connection.socket, memoryview(line.encode() + b"\n"), (0, 1, 2))
                connection.reader.readline()
            connection.close()
        deadline = time.monotonic() + 10
        while self.open_files(daemon) > before and time.monotonic() < deadline:
            time.sleep(0.02)
        assert self.open_files(daemon) <= before

    def test_on_every_message_the_connection_ends(self, daemon: Daemon) -> None:
        connection = Raw(daemon)
        with pytest.raises(OSError):
            for _ in range(200):
                fdpass.send(connection.socket, memoryview(info("1").encode() + b"\n"), tuple([0] * 16))
        connection.close()

    def test_more_than_were_sent_cannot_be_claimed(self, raw: Raw) -> None:
        params = {"spec": {"argv": ["true"]}, "env": {}, "stdin": True, "fds": 1}
        request = {"jsonrpc": "2.0", "id": 1, "method": "job.run", "params": params}
        assert raw.ask(json.dumps(request).encode())["error"]["code"] == INVALID_PARAMS


class TestEscapes:
    """Text that a job or a caller chose does not reach a terminal as it is."""

    EVIL = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202e\r"

    def test_on_a_terminal_nothing_of_it_is_raw(self, daemon: Daemon, tmp_path: Path) -> None:
        evil = self.EVIL
        job_id = daemon.run("sh", "-c", f"printf '%s' '{evil}'; printf '%s' '{evil}' >&2; exit 3", evil)
        daemon.wait(job_id)
        for words in (["out", job_id], ["status", job_id], ["ps", "-a"], ["status", evil], ["run", "--", f"./{evil}"]):
            shown = on_terminal(daemon, words)
            assert shown.strip(), words
            for bad in ("\x1b]", "\x07", "\x1b[2J", "\x9b", "\u202e"):
                assert bad not in shown, (words, bad)

    def test_piped_the_output_is_as_it_came(self, daemon: Daemon) -> None:
        job_id = daemon.run("printf", "%s", self.EVIL)
        daemon.wait(job_id)
        assert daemon.ctl("out", job_id).stdout == self.EVIL.encode()


def on_terminal(daemon: Daemon, words: list[str]) -> str:
    """What workerctl writes to a terminal of its own."""
    import pty
    import subprocess
    import sys

    from tests.host.daemon import ROOT

    master, slave = pty.openpty()
    command = [sys.executable, "-m", "workerctl", "--socket", str(daemon.socket), *words]
    with killed_after(subprocess.Popen(command, cwd=ROOT, stdin=slave, stdout=slave, stderr=slave)) as process:
        os.close(slave)
        data = b""
        while True:
            try:
                piece = os.read(master, 65536)
            except OSError:  # EIO: the other end is closed
                break
            if not piece:
                break
            data += piece
        process.wait(60)
    os.close(master)
    return data.decode(errors="replace")
