"""Reading logs and indexes as worker-init writes them, while it writes and releases."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.workerctl_fakes import LogWriter, drained
from workerd import output
from workerd.errors import WorkerError
from workerd.output import STDERR, STDOUT, Log, tail_offset


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[LogWriter]:
    made = LogWriter(tmp_path)
    yield made
    made.close()


@pytest.fixture
def log(writer: LogWriter, tmp_path: Path) -> Iterator[Log]:
    with Log(*(os.open(tmp_path / name, os.O_RDONLY) for name in ("output", "output.idx"))) as opened:
        yield opened


class TestHeader:
    def test_of_a_job_that_never_began(self, tmp_path: Path) -> None:
        for name in ("a", "b"):
            (tmp_path / name).touch()
        with Log(*(os.open(tmp_path / name, os.O_RDONLY) for name in ("a", "b"))) as empty:
            assert (empty.end(), empty.header().complete, list(empty.runs(0))) == (0, False, [])

    def test_of_something_else(self, tmp_path: Path) -> None:
        (tmp_path / "a").write_bytes(b"x" * 100)
        with Log(*(os.open(tmp_path / "a", os.O_RDONLY) for _ in range(2))) as other:
            with pytest.raises(WorkerError, match="damaged"):
                other.header()

    def test_says_what_is_complete(self, writer: LogWriter, log: Log) -> None:
        assert not log.header().complete
        writer.finish()
        assert log.header().complete

    def test_closing_twice_is_once(self, tmp_path: Path) -> None:
        (tmp_path / "a").touch()
        opened = Log(*(os.open(tmp_path / "a", os.O_RDONLY) for _ in range(2)))
        opened.close()
        opened.close()


class TestRuns:
    def test_neighbours_of_one_stream_are_joined(self, writer: LogWriter, log: Log) -> None:
        for stream, data in ((1, b"ab"), (1, b"cd"), (2, b"e"), (1, b"f")):
            writer.write(stream, data, merge=False)
        assert [run[:3] for run in log.runs(0)] == [(0, 4, 1), (4, 5, 2), (5, 6, 1)]

    @pytest.mark.parametrize("start", range(7))
    def test_begin_in_the_middle_of_a_record(self, writer: LogWriter, log: Log, start: int) -> None:
        writer.write(1, b"abc")
        writer.write(2, b"def")
        whole = [(begin, stream, data) for begin, stream, data in log.pieces(start, 6)]
        assert b"".join(data for *_, data in whole) == b"abcdef"[start:]

    def test_a_record_that_has_grown_is_seen_whole(self, writer: LogWriter, log: Log) -> None:
        writer.write(1, b"abc")
        assert [run[:3] for run in log.runs(0)] == [(0, 3, 1)]
        writer.write(1, b"def")
        assert [run[:3] for run in log.runs(3)] == [(3, 6, 1)]
        assert log.end() == 6


class TestPieces:
    @pytest.mark.parametrize("seed", range(20))
    def test_each_stream_is_what_was_written(
        self, writer: LogWriter, log: Log, seed: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(output, "WINDOW", 64)
        monkeypatch.setattr(output, "RECORDS_AT_ONCE", 7)
        chance = random.Random(seed)
        written = {1: b"", 2: b""}
        order = b""
        for _ in range(200):
            stream, data = chance.choice((1, 2)), chance.randbytes(chance.randint(1, 100))
            writer.write(stream, data, merge=chance.random() < 0.5)
            written[stream] += data
            order += data
        assert drained(log.pieces(0, log.end())) == order
        for stream, data in written.items():
            assert drained(log.pieces(0, log.end(), stream)) == data
        start = chance.randrange(len(order))
        assert drained(log.pieces(start, log.end())) == order[start:]

    @pytest.mark.parametrize("seed", range(20))
    def test_what_is_released_meanwhile_is_left_out_and_nothing_else(
        self, writer: LogWriter, log: Log, seed: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(output, "WINDOW", 64)
        monkeypatch.setattr(output, "RECORDS_AT_ONCE", 7)
        chance = random.Random(seed)
        order = b""
        for _ in range(100):
            data = chance.randbytes(chance.randint(1, 50))
            writer.write(chance.choice((1, 2)), data, merge=False)
            order += data
        offset = 0
        for begin, _, data in log.pieces(0, log.end()):
            assert begin >= offset and order[begin : begin + len(data)] == data
            if begin > offset:
                assert writer.kept_from > offset, "a gap, though nothing was released there"
            offset = begin + len(data)
            if chance.random() < 0.2:
                writer.punch(max(writer.kept_from, min(len(order), offset + chance.randint(0, 400))))
        assert offset == len(order) or writer.kept_from == len(order)

    def test_a_log_that_is_shorter_than_its_index_ends(self, writer: LogWriter, log: Log) -> None:
        writer.write(1, b"abcdef")
        os.truncate(writer.log, 3)
        assert drained(log.pieces(0, 6)) == b"abc"

    def test_begin_where_the_log_is_kept(self, writer: LogWriter, log: Log) -> None:
        for _ in range(10):
            writer.write(1, b"0123456789", merge=False)
        writer.punch(35)
        assert log.read(0, 100) == (35, b"56789" + b"0123456789" * 6)
        assert drained(log.pieces(0, log.end())) == b"56789" + b"0123456789" * 6
        assert log.end() == 100


class TestTail:
    @pytest.mark.parametrize(
        ("lines", "wanted"),
        [(0, b""), (1, b"five"), (2, b"four\nfive"), (3, b"\nfour\nfive"), (99, b"one\ntwo\n\nfour\nfive")],
    )
    def test_without_a_last_newline(self, writer: LogWriter, log: Log, lines: int, wanted: bytes) -> None:
        writer.write(1, b"one\ntwo\n\nfour\nfive")
        assert drained(log.pieces(tail_offset(log, lines, None, 0, log.end()), log.end())) == wanted

    @pytest.mark.parametrize(("lines", "wanted"), [(1, b"two\n"), (2, b"one\ntwo\n"), (3, b"one\ntwo\n")])
    def test_with_one(self, writer: LogWriter, log: Log, lines: int, wanted: bytes) -> None:
        writer.write(1, b"one\ntwo\n")
        assert drained(log.pieces(tail_offset(log, lines, None, 0, log.end()), log.end())) == wanted

    @pytest.mark.parametrize("stream", [STDOUT, STDERR])
    @pytest.mark.parametrize("lines", [1, 2, 5, 50, 1000])
    @pytest.mark.parametrize("window", [7, 64, 1 << 20])
    def test_of_one_stream(
        self, writer: LogWriter, log: Log, stream: int, lines: int, window: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(output, "WINDOW", window)
        chance = random.Random(lines)
        written = {1: b"", 2: b""}
        for _ in range(100):
            kind = chance.choice((1, 2))
            data = chance.choice((b"a\n", b"bb", b"\n\n", b"c\nd"))
            writer.write(kind, data, merge=False)
            written[kind] += data
        wanted = b"".join(written[stream].splitlines(keepends=True)[-lines:])
        assert drained(log.pieces(tail_offset(log, lines, stream, 0, log.end()), log.end(), stream)) == wanted

    def test_of_nothing(self, writer: LogWriter, log: Log) -> None:
        assert tail_offset(log, 5, None, 0, log.end()) == 0
