"""Lines put together from pieces, the moments beside them, and patterns looked for in them."""

from __future__ import annotations

import json
import os
import random
import time
from pathlib import Path

import pytest

from tests.unit.workerctl_fakes import HEADER, RECORD
from workerctl import lines
from workerctl.lines import Lines
from workerctl.lineview import as_json
from workerctl.match import Search
from workerctl.moments import moment_of, shown
from workerctl.options import UsageError
from workerd.output import Log, tail_offset


class TestLines:
    def test_a_line_has_the_time_of_its_first_piece(self) -> None:
        made = Lines()
        assert list(made.feed(1, 10, b"a")) == []
        assert list(made.feed(2, 20, b"x\ny")) == [(2, 20, b"x\n")]
        assert list(made.feed(1, 30, b"b\n\nc")) == [(1, 10, b"ab\n"), (1, 30, b"\n")]
        assert list(made.rest()) == [(2, 20, b"y"), (1, 30, b"c")]
        assert list(made.rest()) == []

    def test_only_newlines_end_lines(self) -> None:
        assert [line for *_, line in Lines().feed(1, 0, b"a\rb\x0bc\r\n\n")] == [b"a\rb\x0bc\r\n", b"\n"]

    @pytest.mark.parametrize("seed", range(10))
    def test_every_byte_comes_out_however_it_went_in(self, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(lines, "LONGEST", 20)
        chance = random.Random(seed)
        whole = bytes(chance.choice(b"ab\n\r") for _ in range(2000))
        made, out, place = Lines(), b"", 0
        while place < len(whole):
            size = chance.randint(1, 50)
            out += b"".join(line for *_, line in made.feed(1, 0, whole[place : place + size]))
            place += size
        assert out + b"".join(line for *_, line in made.rest()) == whole


class TestJson:
    def test_on_a_terminal_nothing_but_ascii(self) -> None:
        line = "a\u202eb\x9b\x1b[1m\n".encode()
        assert as_json(terminal=True)(2, 5_000, line) == (
            b'{"time": 5, "stream": "stderr", "data": "a\\u202eb\\u009b\\u001b[1m\\n"}\n'
        )
        assert json.loads(as_json(terminal=False)(2, 5_000, line))["data"].encode() == line


class TestMoments:
    def test_absolute(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("TZ", "Asia/Kolkata")
        time.tzset()
        try:
            second = 1_000_000_000
            assert moment_of("2026-01-31T14:30:05.25Z", "--since") == 1769869805 * second + second // 4
            assert moment_of("2026-01-31 20:00:05", "--since") == 1769869805 * second
            assert moment_of("@1769869805.5", "--since") == 1769869805 * second + second // 2
            today = time.strftime("%Y-%m-%d")
            assert moment_of("14:30", "--since") == moment_of(f"{today} 14:30", "--since")
            assert shown(1769869805 * second + 7_999_999, utc=False) == "2026-01-31T20:00:05.007+05:30"
            assert shown(1769869805 * second + 7_999_999, utc=True) == "2026-01-31T14:30:05.007Z"
        finally:
            monkeypatch.undo()
            time.tzset()

    def test_ago(self) -> None:
        assert abs(time.time_ns() - moment_of("1h30m", "--since") - 5400e9) < 60e9

    @pytest.mark.parametrize("text", ["", "soon", "25:00", "2026-13-01", "@", "@nan", "@inf", "-5m", "٣"])
    def test_nonsense(self, text: str) -> None:
        with pytest.raises(UsageError, match=r"--since .*: write 10m \(ago\)"):
            moment_of(text, "--since")


class TestSearch:
    def test_across_pieces_and_not_across_lines(self) -> None:
        search = Search(r"^a.*z$")
        assert search.feed(1, 1, b"abc\nxyz\na") is None
        assert search.feed(2, 2, b"z\n") is None
        assert search.feed(1, 3, b"bz") is None  # what comes may still undo it
        assert search.feed(1, 4, b"\n") == (1, 1, b"abz")

    def test_what_has_no_newline_counts_at_the_end(self) -> None:
        search = Search("done$")
        assert search.feed(1, 1, b"all done") is None
        assert search.rest() == (1, 1, b"all done")


class TestMillionRecords:
    @pytest.fixture
    def log(self, tmp_path: Path) -> Log:
        """A line of 10 bytes each millisecond, by turns on stdout and stderr."""
        folder = tmp_path
        count = 1_000_000
        (folder / "log").write_bytes(b"".join(b"%09d\n" % number for number in range(count)))
        records = (RECORD.pack(10 * n, 10, n * 1_000_000, 1 + n % 2, 0) for n in range(count))
        (folder / "index").write_bytes(HEADER.pack(b"WKIDX001", 0, 0, 0, 1) + b"".join(records))
        return Log(*(os.open(folder / name, os.O_RDONLY) for name in ("log", "index")))

    def test_times_and_tails_are_found_without_a_scan(self, log: Log) -> None:
        with log:
            begin = time.process_time()
            assert log.offset_at(0) == 0
            assert log.offset_at(654_321_000_000) == 6_543_210
            assert log.offset_at(654_321_000_001) == 6_543_220
            assert log.offset_at(2**62) == log.end() == 10_000_000
            assert tail_offset(log, 3, None, 0, log.end()) == 9_999_970
            assert tail_offset(log, 3, 1, 0, 5_000_000) == 4_999_930  # right after the line before them
            assert time.process_time() - begin < 1.0  # a scan in Python takes more
