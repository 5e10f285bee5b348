"""`top` and `stats`: rates, keys, what is chosen, lines that fit, and both on a real terminal."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyte
import pytest

from tests.unit.test_workerctl_terminal import HOSTILE, plain
from tests.unit.workerctl_fakes import FakeWorkerd, ctl, environment, make_job
from workerctl.cells import columns
from workerctl.rates import Rates
from workerctl.top.keys import keys_of
from workerctl.top.page import page
from workerctl.top.view import View
from workerd import protocol
from workerd.job import Job, JobSpec, Limits, State, Usage

MACHINE = {"clock": "12:00:00", "load": "1 2 3", "memory": (1 << 30, 1 << 32), "pressure": {"cpu": 1.5}, "cpus": 2}


def running(number: int, **fields: Any) -> Job:
    values: dict[str, Any] = {
        "id": f"job{number:07}",
        "state": State.RUNNING,
        "spec": JobSpec(("sleep", str(number)), limits=Limits(memory=1 << 28)),
        "usage": Usage(cpu_usec=number * 1000, memory_current=number << 20, pids_current=2),
    }
    return make_job(**{**values, **fields})


def rows(*jobs: Job) -> list[dict[str, Any]]:
    known = [plain(job) for job in jobs]
    return [{**row, "job": job, "user": "ada"} for row, job in zip(Rates().feed(known, 1.0), known, strict=True)]


class TestRates:
    def test_are_counters_by_time(self) -> None:
        rates = Rates()
        assert rates.feed([plain(running(1))], 10.0)[0]["cpu_percent"] is None
        usage = Usage(cpu_usec=1_001_000, io_read_bytes=5000, memory_pressure_usec=500_000, memory_current=7)
        row = rates.feed([plain(running(1, usage=usage))], 12.0)[0]
        assert (row["cpu_percent"], row["read_bps"], row["memory_stall_percent"]) == (50.0, 2500, 25.0)
        assert (row["memory"], row["memory_limit"], row["write_bps"]) == (7, 1 << 28, None)

    def test_are_not_known_of_a_job_that_began_again(self) -> None:
        rates = Rates()
        rates.feed([plain(running(5))], 1.0)
        assert rates.feed([plain(running(5, usage=Usage(cpu_usec=1)))], 2.0)[0]["cpu_percent"] is None


class TestKeys:
    @pytest.mark.parametrize(
        ("data", "keys"),
        [
            (b"q", ["q"]),
            (b"\x1b[A\x1bOB\r", ["up", "down", "enter"]),
            (b"\x1b", ["escape"]),
            (b"\x1b[15~x", ["x"]),
            (b"\x1b[1;5Cq", ["q"]),
            ("é漢".encode(), ["é", "漢"]),
            (b"\xff\x00\x9b", []),
            (b"\x03", ["ctrl-c"]),
        ],
    )
    def test_of_bytes(self, data: bytes, keys: list[str]) -> None:
        assert keys_of(data) == keys

    def test_any_bytes_give_no_more_than_keys(self) -> None:
        for first in range(256):
            for second in range(256):
                assert all(isinstance(key, str) for key in keys_of(bytes([first, second, 0x5B])))


class TestView:
    @pytest.fixture
    def view(self) -> View:
        made = View()
        made.feed(rows(*(running(number) for number in range(1, 21))))
        return made

    def test_sorts_and_the_same_key_again_turns_it_round(self, view: View) -> None:
        everything = list(view.rows)
        for key, first in (("m", "job0000020"), ("m", "job0000001")):
            assert view.key(key, 5) == "resort"
            view.feed(everything)
            assert view.rows[0]["id"] == first

    def test_the_selection_stays_on_its_job(self, view: View) -> None:
        everything = list(view.rows)
        view.key("down", 5)
        chosen = view.selected
        assert chosen == everything[1]["id"]
        view.feed([{**row, "cpu_percent": -row["job"]["created"] - len(row["id"])} for row in everything[::-1]])
        assert view.selected == chosen and chosen in [row["id"] for row in view.window(5)]
        view.key("m", 5)
        view.feed(everything)
        assert view.selected == view.rows[0]["id"]

    def test_what_was_asked_of_one_job_is_not_done_to_another(self, view: View) -> None:
        asked = view.selected
        view.key("s", 5)
        view.feed(view.rows[3:])
        assert view.key("y", 5) == "stop" and view.target == asked != view.selected

    def test_one_whose_job_is_gone_goes_on_with_a_neighbour(self, view: View) -> None:
        view.selected = "gone"
        view.feed(view.rows[5:])
        assert view.selected in [row["id"] for row in view.rows]
        view.feed([])
        assert view.selected is None and view.window(5) == [] and view.key("s", 5) is None and view.asked is None

    def test_moves_and_scrolls(self, view: View) -> None:
        for key, place in (("end", 19), ("up", 18), ("home", 0), ("page-down", 5), ("page-up", 0), ("up", 0)):
            view.key(key, 5)
            assert view.place == place and view.rows[place] in view.window(5) and len(view.window(5)) == 5

    def test_asks_before_it_stops(self, view: View) -> None:
        assert view.key("s", 5) is None and view.asked is not None
        assert view.key("n", 5) is None and view.asked is None
        view.key("s", 5)
        assert view.key("y", 5) == "stop"
        view.key("K", 5)
        assert view.key("y", 5) == "kill"

    def test_filters_by_words_and_escape_ends_it(self, view: View) -> None:
        everything = list(view.rows)
        for key in ("/", *"ADA sleep 7", "x", "backspace", "enter"):
            view.key(key, 5)
            view.feed(everything)
        assert [row["id"] for row in view.rows] == ["job0000007", "job0000017"]
        assert view.key("q", 5) == "quit"
        view.key("escape", 5)
        view.feed(everything)
        assert len(view.rows) == 20


class TestPage:
    @pytest.mark.parametrize("width", [1, 10, 30, 50, 80, 120, 250])
    @pytest.mark.parametrize("height", [7, 24])
    def test_is_exactly_as_high_and_never_wider_whatever_the_jobs_are_called(self, width: int, height: int) -> None:
        hostile = JobSpec(("sh", HOSTILE, "漢字" * 40), name="n" * 64)
        view = View()
        view.feed(rows(running(1, spec=hostile), running(2, uid=12345), running(3, usage=None)))
        for change in (None, "s", "n", "/", "x", "h"):
            if change:
                view.key(change, 5)
            lines = page(view, MACHINE, width, height, 1_700_000_100_000_000)
            assert len(lines) == height
            for text, _ in lines:
                assert columns(text) <= width and text.isprintable()

    def test_id_and_figures_are_there(self) -> None:
        view = View()
        view.feed(rows(running(64)))
        text = "\n".join(line for line, _ in page(view, MACHINE, 120, 24, 1_700_000_100_000_000))
        for part in ("job0000064", "64M / 256M", "██······", "sleep 64", "1 running", "CPU 1.5%", "1G of 4G", "1m40s"):
            assert part in text


    @pytest.fixture
    def mixed(self) -> View:
        view = View()
        spec = JobSpec(("sh", "-c", "sleep 1000"), name="nightly-build", limits=Limits(memory=1 << 30))
        view.feed(rows(running(1, spec=spec), running(2, state=State.PAUSED), running(3, state=State.STOPPING)))
        return view

    @pytest.mark.parametrize("width", [40, 41, 50, 60, 80])
    def test_narrow_terminals_have_whole_words_above_and_below(self, mixed: View, width: int) -> None:
        machine = {**MACHINE, "load": "12.25 11.50 10.75", "pressure": {"cpu": 100.0, "memory": 100.0, "io": 12.0}}
        lines = [text for text, _ in page(mixed, machine, width, 24, 1_700_000_100_000_000)]
        assert "1 paused, 1 running" in lines[0] or "3 jobs" in lines[0]
        assert "1G" in lines[1] and lines[1].endswith("4G")
        assert "CPU 100" in lines[2] and re.search(r"disks 12(\.0)?%$", lines[2])
        assert lines[-1].startswith("h help   q quit")
        assert lines[-1].rsplit("   ")[-1] in ("o output", "s stop", "p pause", "c m d w a n sort")

    @pytest.mark.parametrize("width", [30, 40, 50, 60, 80, 120])
    @pytest.mark.parametrize(("sort", "title"), [("c", "CPU%"), ("m", "MEM"), ("w", "STALL%"), ("a", "AGE")])
    def test_states_and_what_is_sorted_by_are_there_at_any_width(
        self, mixed: View, width: int, sort: str, title: str
    ) -> None:
        mixed.sort = sort
        lines = [text for text, _ in page(mixed, MACHINE, width, 24, 1_700_000_100_000_000)]
        assert lines[4].split()[0] == "ID" and "STATE" in lines[4]
        for line, state in zip(lines[5:8], ("running", "paused", "stopping"), strict=True):
            assert state in line
        assert title in lines[4] or width < 40

    def test_a_limit_goes_before_the_memory_does(self, mixed: View) -> None:
        def at(width: int) -> str:
            return page(mixed, MACHINE, width, 24, 1_700_000_100_000_000)[5][0]

        assert "1M / 1G" in at(80) and "1M / 1G" not in at(50) and " 1M " in at(50)

    @pytest.mark.parametrize("width", [40, 50, 60, 80])
    def test_the_help_is_whole(self, mixed: View, width: int) -> None:
        mixed.help = True
        lines = [text for text, _ in page(mixed, MACHINE, width, 28, 1_700_000_100_000_000)]
        told = " ".join(" ".join(lines).split())
        for words in ("choose a job", "again: the other way round", "state or command", "memory against its limit."):
            assert words in told
        assert not any("…" in line for line in lines)

    def test_of_a_long_filter_the_end_is_seen_while_it_is_typed(self, mixed: View) -> None:
        mixed.typing, mixed.filter = True, "x" * 50 + "the end"
        assert page(mixed, MACHINE, 40, 24, 1_700_000_100_000_000)[3][0].endswith("the end_")


class Watched:
    """workerctl on a pseudo terminal, as pyte sees it."""

    def __init__(self, fake: FakeWorkerd, *words: str, columns: int = 100, rows: int = 24) -> None:
        self.screen = pyte.Screen(columns, rows)
        self._stream = pyte.ByteStream(self.screen)
        self.written = 0
        self._leader, follower = pty.openpty()
        fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "workerctl", *words],
            env={**environment(fake), "TERM": "xterm-256color"},
            stdin=follower,
            stdout=follower,
            stderr=follower,
            start_new_session=True,
        )
        self.modes = termios.tcgetattr(follower)
        self.follower = follower

    def type(self, keys: str) -> None:
        os.write(self._leader, keys.encode())

    def resize(self, columns: int, rows: int) -> None:
        self.screen.resize(rows, columns)
        fcntl.ioctl(self.follower, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        os.kill(self.process.pid, 28)  # the terminal is not its controlling one

    def wait(self, seen: str | Callable[[str], bool], seconds: float = 30.0) -> str:
        deadline = time.monotonic() + seconds
        while True:
            shown = "\n".join(self.screen.display)
            if seen(shown) if callable(seen) else re.search(seen, shown):
                return shown
            assert time.monotonic() < deadline, f"no {seen!r} on the screen:\n{shown}"
            if select.select([self._leader], [], [], 0.1)[0]:
                with contextlib.suppress(OSError):
                    data = os.read(self._leader, 65536)
                    self.written += len(data)
                    self._stream.feed(data)

    def close(self) -> None:
        self.process.kill()
        self.process.wait(30)
        os.close(self._leader)
        os.close(self.follower)


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[FakeWorkerd]:
    made = FakeWorkerd(tmp_path / "sock")
    jobs = [running(number) for number in range(1, 501)]
    made.answers["job.list"] = lambda params: protocol.ListResult(tuple(jobs))
    made.answers["job.status"] = lambda params: next(job for job in jobs if job.id == params.id)
    yield made
    made.close()


@pytest.fixture
def top(fake: FakeWorkerd) -> Iterator[Watched]:
    made = Watched(fake, "top")
    yield made
    made.close()


class TestTop:
    def test_shows_sorts_filters_and_leaves_the_terminal_as_it_was(self, fake: FakeWorkerd, top: Watched) -> None:
        top.wait(r"500 running")
        top.type("m")
        top.wait(r"by memory(?s:.*)\njob0000500 ")
        top.type("/sleep 77\r")
        shown = top.wait(r" 5 running(?s:.*)filter: sleep 77  ")
        assert "job0000077" in shown and "job0000500" not in shown
        top.type("\x1b")
        top.wait(r"500 running")
        top.type("q")
        assert top.process.wait(30) == 0
        assert termios.tcgetattr(top.follower) == top.modes

    def test_stops_the_chosen_job_after_asking_and_waits_for_nothing(self, fake: FakeWorkerd, top: Watched) -> None:
        release, asked = threading.Event(), threading.Event()

        def stop(params: protocol.StopParams) -> Job:
            asked.set()
            release.wait(30)
            return running(500)

        fake.answers["job.stop"] = stop
        top.wait(r"500 running")
        top.type("m")
        top.wait(r"\njob0000500 ")
        top.type("\x1b[H")
        top.type("s")
        top.wait(r"stop job job0000500\? y/n")
        top.type("y")
        assert asked.wait(30)
        top.type("h")
        top.wait(r"choose a job")  # while the stop is still under way
        release.set()
        top.wait(r"job job0000500 stopped")

    def test_keys_are_answered_while_a_sample_is_under_way(self, fake: FakeWorkerd, top: Watched) -> None:
        top.wait(r"500 running")
        whole, release, asked = fake.answers["job.list"], threading.Event(), threading.Event()

        def slowly(params: protocol.ListParams) -> protocol.ListResult:
            asked.set()
            release.wait(30)
            found: protocol.ListResult = whole(params)
            return found

        fake.answers["job.list"] = slowly
        assert asked.wait(30)
        top.type("h")
        top.wait("choose a job")
        top.type("x")
        top.type("m")
        top.wait(r"by memory(?s:.*)\njob0000500 ")
        fake.answers["job.list"] = lambda params: protocol.ListResult((running(7),))
        release.set()
        top.wait(r" 1 running")

    def test_writes_only_what_changed(self, top: Watched) -> None:
        top.wait(r"500 running")
        top.type("h")
        top.wait("choose a job")
        before = top.written
        top.type("x")
        top.wait(lambda shown: "choose a job" not in shown)
        for _ in range(5):
            top.type("\x1b[B")
        top.type("/y")
        top.wait(r"filter: y_")
        assert top.written - before < 12_000

    def test_fits_itself_to_another_size(self, top: Watched) -> None:
        top.wait(r"500 running")
        top.resize(50, 12)
        shown = top.wait(lambda text: text.count("\n") == 11 and "COMMAND" in text and "h help" in text)
        assert "job0000006" in shown

    def test_a_daemon_that_goes_away_is_told_of_and_tried_again(self, tmp_path: Path) -> None:
        fake = FakeWorkerd(tmp_path / "sock")
        fake.answers["job.list"] = lambda params: protocol.ListResult((running(1),))
        top = Watched(fake, "top", "-i", "200ms")
        try:
            top.wait("1 running")
            fake.close()
            os.unlink(fake.path)
            top.wait("trying again")
            fake = FakeWorkerd(tmp_path / "sock")
            fake.answers["job.list"] = lambda params: protocol.ListResult((running(1), running(2)))
            top.wait("2 running")
        finally:
            top.close()
            fake.close()

    def test_needs_a_terminal(self, fake: FakeWorkerd) -> None:
        ran = ctl(fake, "top")
        assert ran.code == 125 and "stats --json" in ran.err


class TestStats:
    def test_json_is_an_object_a_line(self, fake: FakeWorkerd) -> None:
        ran = ctl(fake, "stats", "--json", "--count", "2", "--interval", "100ms", "--filter", "id=job00004")
        shown = [json.loads(line) for line in ran.out.splitlines()]
        assert len(shown) == 200 and ran.err == ""
        assert (shown[0]["id"], shown[0]["memory"], shown[0]["pids"]) == ("job0000400", 400 << 20, 2)
        assert {"id", "name", "time", "cpu_percent", "read_bps", "memory_limit"} <= set(shown[0])
        assert shown[0]["cpu_percent"] == 0

    def test_is_one_table_in_a_pipe(self, fake: FakeWorkerd) -> None:
        ran = ctl(fake, "stats", "-i", "100ms", "job0000007", "job0000008")
        lines = ran.out.decode().splitlines()
        assert lines[0].split()[:4] == ["ID", "NAME", "USER", "CPU%"] and len(lines) == 3
        assert "7M / 256M" in lines[1]

    def test_format(self, fake: FakeWorkerd) -> None:
        ran = ctl(fake, "stats", "--no-stream", "-i", "0.1", "--format", "{id} {pids}", "job0000007")
        assert ran.out == b"job0000007 2\n"

    def test_goes_on_over_its_own_lines_on_a_terminal(self, fake: FakeWorkerd) -> None:
        watched = Watched(fake, "stats", "-i", "100ms", columns=60)
        try:
            watched.wait(r"^ID +NAME(?s:.*)job0000002")
            assert watched.process.poll() is None
            assert all(line.startswith(("ID", "job", " ")) for line in watched.screen.display)
        finally:
            watched.close()
