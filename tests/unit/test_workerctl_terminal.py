"""What people see: harmless text, words for ends and figures, tables on real (pseudo) terminals."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len

from tests.unit.workerctl_fakes import FakeWorkerd, LogWriter, ctl, environment, make_job
from workerctl import words
from workerctl.escape import Painter, quoted, visible
from workerd import errors, protocol
from workerd.job import IoLimit, Job, JobSpec, Limits, Reason, StartError, State, Usage

HOSTILE = "\x1b[2J\x1b]0;t\x07\r\n\x9b31m\u202eevil\u2066[red]x[/red]\u2028\x00\x7f"


def plain(job: Job) -> dict[str, Any]:
    found = json.loads(protocol.encode(job))
    assert isinstance(found, dict)
    return found


class TestVisible:
    @pytest.mark.parametrize(
        ("text", "shown"),
        [
            ("plain é 漢字 😀 [red]", "plain é 漢字 😀 [red]"),
            ("\x1b[31m", r"\x1b[31m"),
            ("a\nb\tc\r", r"a\nb\tc\r"),
            ("\x9b\x00\x7f", r"\x9b\x00\x7f"),
            ("\u202e\u2066\u200f\u061c", r"\u202e\u2066\u200f\u061c"),
            ("\u2028\u2029\ufeff\U000e0041", r"\u2028\u2029\ufeff\U000e0041"),
            ("\udce9", r"\xe9"),
        ],
    )
    def test_nothing_but_ink_is_left(self, text: str, shown: str) -> None:
        assert visible(text) == shown

    def test_of_any_character(self) -> None:
        for code in range(0x110000):
            assert visible(chr(code)).isprintable()

    @pytest.mark.parametrize(
        ("argv", "shown"),
        [
            (["ls", "-l"], "ls -l"),
            (["sh", "-c", "echo 'a b'"], """sh -c "echo 'a b'\""""),
            (["echo", "a b", "$x", ""], "echo 'a b' '$x' ''"),
            (["echo", "it's $x"], """echo 'it'"'"'s $x'"""),
            (["echo", "\x1b"], r"echo '\x1b'"),
        ],
    )
    def test_a_command_as_it_would_be_typed(self, argv: list[str], shown: str) -> None:
        assert quoted(argv) == shown


class TestPainter:
    def test_control_sequences_are_shown_and_newlines_and_tabs_kept(self) -> None:
        assert Painter(colour=True).paint(1, b"a\tb\n\x1b[31m\r\n") == "a\tb\n\\x1b[31m\n"

    def test_a_carriage_return_is_shown_but_for_those_before_a_newline(self) -> None:
        text = b"one\r\ntwo\r\r\n50%\r100%\r\nend\r"
        for size in (1, 2, 3, len(text)):
            painter = Painter(colour=False)
            pieces = [painter.paint(1, text[at : at + size]) for at in range(0, len(text), size)]
            assert "".join(pieces) + painter.finish() == "one\ntwo\n50%\\r100%\nend\\r"

    def test_no_control_character_gets_through(self) -> None:
        text = Painter(colour=False).paint(1, HOSTILE.encode() + bytes(range(256)), final=True)
        assert all(char.isprintable() or char in "\n\t" for char in text)

    def test_characters_that_are_cut_between_pieces_are_put_together(self) -> None:
        painter = Painter(colour=False)
        shown = "".join(painter.paint(1, bytes([byte])) for byte in "é漢😀".encode())
        assert shown == "é漢😀" and painter.finish() == ""

    def test_streams_are_put_together_each_for_itself(self) -> None:
        painter = Painter(colour=False)
        assert painter.paint(1, b"\xc3") + painter.paint(2, b"x") + painter.paint(1, b"\xa9") == "xé"

    def test_what_never_gets_its_last_byte_is_shown(self) -> None:
        painter = Painter(colour=False)
        assert painter.paint(1, b"a\xc3") + painter.finish() == "a\\xc3"

    def test_stderr_is_red_line_by_line(self) -> None:
        assert Painter(colour=True).paint(2, b"a\n\nb") == "\x1b[31ma\x1b[0m\n\n\x1b[31mb\x1b[0m"
        assert Painter(colour=False).paint(2, b"a\n") == "a\n"

    def test_joined_emoji_and_icons_stay_whole(self) -> None:
        text = "👩\u200d🔬 \ue0b0"
        assert Painter(colour=False).paint(1, text.encode()) == text


class TestWords:
    @pytest.mark.parametrize(
        ("fields", "sentence", "short"),
        [
            ({}, "finished: exited with 0", "done"),
            ({"exit_code": 3}, "finished: exited with 3", "exit 3"),
            ({"reason": Reason.SIGNALED, "exit_code": None, "signal": 15}, "finished: killed by SIGTERM", "SIGTERM"),
            (
                {"reason": Reason.OOM, "spec": JobSpec(("x",), limits=Limits(memory=32 << 20))},
                "finished: killed by the kernel, out of memory (limit 32 MiB)",
                "out of memory",
            ),
            ({"reason": Reason.OOM}, "finished: killed by the kernel, out of memory", "out of memory"),
            (
                {"reason": Reason.STOPPED, "exit_code": None, "signal": 9},
                "finished: stopped on request, killed by SIGKILL",
                "stopped",
            ),
            ({"reason": Reason.STOPPED}, "finished: stopped on request, exited with 0", "stopped"),
            ({"reason": Reason.TIMEOUT}, "finished: its time was over", "timed out"),
            (
                {"reason": Reason.LOST, "detail": "reboot"},
                "finished: lost (reboot): how it ended is not known",
                "lost",
            ),
            (
                {"reason": Reason.START_FAILED, "start_error": StartError("chdir", 2, "chdir: /x: No such file")},
                "finished: could not start: chdir: /x: No such file",
                "not started",
            ),
            ({"state": State.RUNNING}, "running", "running"),
            ({"state": State.STOPPING}, "stopping: asked to, not gone yet", "stopping"),
        ],
    )
    def test_states_and_ends(self, fields: dict[str, Any], sentence: str, short: str) -> None:
        job = plain(make_job(**fields))
        assert (words.state(job), words.short_state(job)) == (sentence, short)

    @pytest.mark.parametrize(("count", "text"), [(0, "0 B"), (1000, "1000 B"), (1536, "1.5 KiB"), (32 << 20, "32 MiB")])
    def test_sizes(self, count: int, text: str) -> None:
        assert words.size(count) == text

    @pytest.mark.parametrize(
        ("usec", "text"),
        [(0, "0s"), (1_234, "1ms"), (1_234_567, "1.2s"), (12_345_678, "12s"), (311_000_000, "5m11s"), (10**12, "11d")],
    )
    def test_durations(self, usec: int, text: str) -> None:
        assert words.brief(usec) == text

    def test_limits_that_differ_are_told(self) -> None:
        wanted = Limits(memory=256 << 20, cpus=0.5, pids=9, io=(IoLimit(write_bps=1 << 20),))
        real = Limits(memory=128 << 20, swap=0, cpus=0.5, io=(IoLimit(device="8:0", write_bps=1 << 20, read_iops=5),))
        assert words.limits_in_force(plain(make_job(spec=JobSpec(("x",), limits=wanted), effective=real))) == [
            "memory 128 MiB (asked for: 256 MiB)",
            "CPUs 0.5",
            "processes without limit (asked for: 9)",
            "swap 0 B (by default)",
            "IO of every disk: write 1 MiB/s (asked for)",
            "IO of 8:0: write 1 MiB/s, 5 reads/s",
        ]

    def test_limits_of_a_job_that_has_none_in_force_yet(self) -> None:
        job = plain(make_job(spec=JobSpec(("x",), limits=Limits(memory=1 << 20))))
        assert words.limits_in_force(job) == ["memory 1 MiB"]

    def test_what_was_not_counted_is_not_shown(self) -> None:
        assert words.usage(plain(make_job())) == []
        tiny = Usage(cpu_usec=1_400, cpu_user_usec=999, cpu_pressure_usec=24_000, io_pressure_usec=7, throttled_usec=1)
        assert words.usage(plain(make_job(usage=tiny))) == [("CPU", "1ms"), ("stalled", "24ms for CPU")]
        assert words.usage(plain(make_job(usage=Usage(cpu_usec=999, memory_peak=0)))) == []
        assert words.usage(plain(make_job(usage=Usage(cpu_usec=1_500_000, oom_kills=2)))) == [
            ("memory", "2 killed"),
            ("CPU", "1.5s"),
        ]


JOBS = (
    make_job(id="k3v9q2m7xd"),
    make_job(
        id="a1b2c3d4e5",
        state=State.RUNNING,
        spec=JobSpec(("sh", "-c", "x" * 200, HOSTILE), name="build", cwd="/" + HOSTILE, limits=Limits(memory=1 << 28)),
        usage=Usage(cpu_usec=12_345_678, memory_current=250 << 20),
        warnings=(HOSTILE,),
    ),
    make_job(id="wide000000", spec=JobSpec(("echo", "漢字" * 60, "😀" * 30)), uid=12345),
)


WAITING = make_job(
    id="q1w2e3r4t5",
    state=State.QUEUED,
    spec=JobSpec(("sh", "-c", "x" * 200), name="late", limits=Limits(memory=1 << 28)),
    started=None,
    finished=None,
    reason=None,
    exit_code=None,
    waits_for="memory 256M is more than the 32M left of your total of 2G" + HOSTILE,
)


def never_ran(params: object) -> None:
    raise errors.WrongState("it never ran")


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[FakeWorkerd]:
    made = FakeWorkerd(tmp_path / "sock")
    made.answers["job.list"] = lambda params: protocol.ListResult(JOBS)
    made.answers["job.status"] = lambda params: next(job for job in JOBS if job.id == params.id)
    made.answers["output.wait"] = never_ran
    yield made
    made.close()


def on_terminal(fake: FakeWorkerd, columns: int, *command: str, code: int = 0, stderr: bool = False, **env: str) -> str:
    """What workerctl writes to a terminal of that width; with `stderr` that too."""
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    started = subprocess.Popen(
        [sys.executable, "-m", "workerctl", *command],
        env={**environment(fake), "TERM": "xterm-256color", **env},
        stdin=follower,
        stdout=follower,
        stderr=follower if stderr else subprocess.DEVNULL,
    )
    os.close(follower)
    seen = b""
    try:
        while data := os.read(leader, 65536):
            seen += data
    except OSError:  # EIO: the other end is closed
        pass
    os.close(leader)
    assert started.wait(30) == code
    return seen.decode().replace("\r\n", "\n")


class TestTerminal:
    @pytest.mark.parametrize("columns", [20, 35, 50, 80, 200])
    @pytest.mark.parametrize("command", [["ps"], ["status", *(job.id for job in JOBS)], ["explain", JOBS[1].id]])
    def test_no_line_is_wider_and_nothing_hostile_gets_through(
        self, fake: FakeWorkerd, columns: int, command: list[str]
    ) -> None:
        text = on_terminal(fake, columns, *command, NO_COLOR="1")
        assert text.isascii() or all(char.isprintable() or char == "\n" for char in text)
        assert not set("\x1b\r\x07\x9b\u202e") & set(text)
        assert max(cell_len(line) for line in text.splitlines()) <= columns

    @pytest.mark.parametrize("columns", [35, 50, 80, 200])
    def test_the_id_and_state_are_there_at_any_width(self, fake: FakeWorkerd, columns: int) -> None:
        lines = on_terminal(fake, columns, "ps", NO_COLOR="1").splitlines()
        assert lines[0].startswith("ID") and "COMMAND" in lines[0] and "STATE" in lines[0]
        for job, line in zip(JOBS, lines[1:], strict=True):
            assert line.startswith(job.id) and words.short_state(plain(job)) in line

    @pytest.mark.parametrize("columns", [30, 80, 110])
    def test_what_a_job_waits_for_is_told_whole_and_costs_no_column(self, fake: FakeWorkerd, columns: int) -> None:
        fake.answers["job.list"] = lambda params: protocol.ListResult((JOBS[0], WAITING, JOBS[1]))
        text = on_terminal(fake, columns, "ps", NO_COLOR="1")
        lines = text.splitlines()
        assert max(map(cell_len, lines)) <= columns and not set("\x1b\x07\u202e") & set(text)
        assert [line.split()[0] for line in lines if not line.startswith(" ")] == ["ID", *(
            job.id for job in (JOBS[0], WAITING, JOBS[1])
        )]
        told = "".join(line.strip() for line in lines if line.startswith(" ")).replace(" ", "")
        assert told.startswith("waits:memory256Mismorethanthe32Mleftofyourtotalof2G")
        if columns >= 110:
            assert all(title in lines[0] for title in ("NAME", "USER", "AGE", "MEMORY"))

    def test_in_a_pipe_it_is_a_column_and_each_job_a_line(self, fake: FakeWorkerd) -> None:
        fake.answers["job.list"] = lambda params: protocol.ListResult((WAITING, JOBS[0]))
        lines = ctl(fake, "ps").out.decode().splitlines()
        assert len(lines) == 3 and "WAITS" in lines[0] and "left of your total" in lines[1]

    def test_explain_tears_no_word_and_keeps_the_command_on_one_line(self, fake: FakeWorkerd) -> None:
        spec = JobSpec(("sh", "-c", "a\n\x1b[2J" + "b" * 90), limits=Limits(memory=1 << 25))
        killed = make_job(reason=Reason.OOM, exit_code=None, signal=9, spec=spec)
        fake.answers["job.status"] = lambda params: killed
        lines = on_terminal(fake, 40, "explain", killed.id, NO_COLOR="1").splitlines()
        assert " ".join(lines).startswith(f"{killed.id}: the kernel killed it: it needed more memory than")
        assert lines[-1] == "\\x1b[2J" + "b" * 90 + "'" and lines[-2].endswith("-- sh -c 'a")
        piped = ctl(fake, "explain", killed.id).out.decode()
        assert "\x1b[2J" in piped and "\x1b[1m" not in piped

    def test_at_80_columns_long_names_give_way_before_memory_and_age(self, fake: FakeWorkerd) -> None:
        job = make_job(
            state=State.RUNNING,
            spec=JobSpec(("sleep", "x" * 90), name="n" * 64, limits=Limits(memory=1 << 28)),
            usage=Usage(memory_current=250 << 20),
        )
        killed = make_job(id="oom0000000", reason=Reason.OOM, exit_code=None, signal=9)
        fake.answers["job.list"] = lambda params: protocol.ListResult((job, killed))
        lines = on_terminal(fake, 80, "ps", NO_COLOR="1").splitlines()
        assert all(title in lines[0] for title in ("ID", "NAME", "COMMAND", "STATE", "AGE", "MEMORY"))
        assert "250M / 256M" in lines[1] and "out of memory" in lines[2]

    def test_markup_is_text(self, fake: FakeWorkerd) -> None:
        assert "[red]x[/red]" in on_terminal(fake, 3000, "ps")

    def test_colour_is_there_and_no_color_takes_it_away(self, fake: FakeWorkerd) -> None:
        assert "\x1b[" in on_terminal(fake, 80, "ps")
        assert "\x1b" not in on_terminal(fake, 80, "ps", NO_COLOR="1")
        assert "\x1b" not in on_terminal(fake, 80, "ps", TERM="dumb")

    @pytest.mark.parametrize("command", [["status", "a1b2c3d4e5"], ["ps"], ["help", "run"], ["help"]])
    @pytest.mark.parametrize(
        "locale",
        [{"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, {"LC_ALL": "C"}, {"LC_ALL": "POSIX"}],
        ids=["encoding", "C", "POSIX"],
    )
    def test_without_utf8_there_is_ascii_alone(
        self, fake: FakeWorkerd, command: list[str], locale: dict[str, Any]
    ) -> None:
        text = on_terminal(fake, 80, *command, **locale)
        assert text.isascii() and "\\u2026" not in text

    def test_data_in_a_pipe_is_utf8_in_every_locale(self, fake: FakeWorkerd) -> None:
        env = {**environment(fake), "LC_ALL": "C"}
        command = [sys.executable, "-m", "workerctl", "ps", "--format", "{command}"]
        fake.answers["job.list"] = lambda params: protocol.ListResult((make_job(spec=JobSpec(("漢字",))),))
        assert subprocess.run(command, env=env, capture_output=True, check=True).stdout == "'漢字'\n".encode()

    def test_what_the_terminal_lacks_breaks_no_frame(self, fake: FakeWorkerd) -> None:
        fake.answers["job.status"] = lambda params: make_job(spec=JobSpec(("漢字" * 9, "שלום")))
        lines = on_terminal(fake, 40, "status", "a1b2c3d4e5", LC_ALL="C", NO_COLOR="1").splitlines()
        assert {len(line) for line in lines} == {40} and "\\u6f22" in "".join(lines)

    def test_output_is_harmless_unless_raw(self, fake: FakeWorkerd, tmp_path: Path) -> None:
        log = LogWriter(tmp_path)
        log.write(1, b"\x1b[2J\n")
        log.write(2, b"bad\n")
        fake.has_log(tmp_path)
        assert on_terminal(fake, 80, "out", "x") == "\\x1b[2J\n\x1b[31mbad\x1b[0m\n"
        assert on_terminal(fake, 80, "out", "x", NO_COLOR="1") == "\\x1b[2J\nbad\n"
        assert on_terminal(fake, 80, "out", "--raw", "x") == "\x1b[2J\nbad\n"
        log.close()

    def test_json_is_indented_and_harmless(self, fake: FakeWorkerd) -> None:
        text = on_terminal(fake, 80, "status", "--json", "a1b2c3d4e5")
        assert text.startswith("{\n  ") and text.isascii() and "\x1b" not in text
        assert json.loads(text)["warnings"] == [HOSTILE]


class TestProgress:
    """What stands on a terminal while something lasts."""

    @pytest.fixture
    def slow(self, fake: FakeWorkerd) -> FakeWorkerd:
        def later(params: object) -> protocol.WaitResult:
            time.sleep(2.5)
            return protocol.WaitResult(finished=(JOBS[0],))

        fake.answers["job.wait"] = later
        return fake

    def test_tells_what_is_waited_for_and_wipes_it_away(self, slow: FakeWorkerd) -> None:
        seen = on_terminal(slow, 80, "wait", "k3\x1b[2J", stderr=True)
        assert seen == "\r\x1b[Kwaiting for job k3\\x1b[2J: 2s\r\x1b[K"

    def test_is_not_there_in_a_pipe_nor_on_a_dumb_terminal(self, slow: FakeWorkerd) -> None:
        assert on_terminal(slow, 80, "wait", "k3", stderr=True, TERM="dumb") == ""
        ran = ctl(slow, "wait", "k3")
        assert (ran.out, ran.err, ran.code) == (b"", "", 0)

    def test_an_error_stands_on_a_line_of_its_own(self, fake: FakeWorkerd) -> None:
        def fails(params: object) -> None:
            time.sleep(2.5)
            raise errors.NoSuchJob("no such job: k3")

        fake.answers["job.stop"] = fails
        seen = on_terminal(fake, 30, "stop", "k3", code=125, stderr=True)
        assert seen.endswith("\r\x1b[Kworkerctl: no such job: k3\n") and "stopping job k3: 2s" in seen

    def test_top_says_that_a_dumb_terminal_will_not_do(self, fake: FakeWorkerd) -> None:
        seen = on_terminal(fake, 80, "top", code=125, stderr=True, TERM="dumb")
        assert "see stats" in seen and "\x1b" not in seen

    @pytest.mark.parametrize("columns", [40, 60, 80])
    def test_doctor_breaks_between_words(self, fake: FakeWorkerd, columns: int) -> None:
        seen = on_terminal(fake, columns, "doctor", "--socket", "/nowhere/at all", code=2, NO_COLOR="1")
        lines = seen.splitlines()
        assert max(map(cell_len, lines)) <= columns
