"""Whole command lines against a small workerd: what comes out where, and with which code."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.workerctl_fakes import FakeWorkerd, ctl, environment, make_job
from workerd import errors, protocol
from workerd.job import Job, JobSpec, Limits, Reason, StartError, State, Usage

JOBS = {
    "done": make_job(id="done000000"),
    "three": make_job(id="three00000", exit_code=3),
    "oom": make_job(
        id="oom0000000",
        reason=Reason.OOM,
        exit_code=None,
        signal=9,
        spec=JobSpec(argv=("python3",), limits=Limits(memory=32 << 20)),
        usage=Usage(memory_peak=32 << 20),
    ),
    "lost": make_job(id="lost000000", reason=Reason.LOST, exit_code=None, detail="reboot"),
    "runs": make_job(id="runs000000", state=State.RUNNING, spec=JobSpec(argv=("sleep", "9"), name="sleeper")),
    "bad": make_job(
        id="bad0000000",
        reason=Reason.START_FAILED,
        exit_code=None,
        start_error=StartError("chdir", 2, "chdir: /nowhere: No such file or directory"),
    ),
}


def find(params: Any) -> Job:
    if params.id not in JOBS:
        raise errors.NoSuchJob(f"no such job: {params.id}")
    return JOBS[params.id]


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[FakeWorkerd]:
    made = FakeWorkerd(tmp_path / "sock")
    made.answers.update(
        {
            "job.run": lambda params: protocol.RunResult("done000000", State.RUNNING, ("io.max has no effect here",)),
            "job.wait": lambda params: protocol.WaitResult(tuple(JOBS.get(one, JOBS["done"]) for one in params.ids)),
            "job.status": find,
            "job.stop": find,
            "job.kill": find,
            "job.list": lambda params: protocol.ListResult(tuple(JOBS.values())),
            "output.wait": lambda params: protocol.OutputWaitResult(0, 0, True),
        }
    )
    yield made
    made.close()


class TestRun:
    def test_prints_the_id_and_nothing_else_and_warnings_apart(self, fake: FakeWorkerd) -> None:
        ran = ctl(fake, "run", "ls", "-l")
        assert (ran.code, ran.out) == (0, b"done000000\n")
        assert ran.err == "workerctl: warning: io.max has no effect here\n"
        assert fake.asked("job.run")[0].spec.argv == ("ls", "-l")

    def test_json_is_complete(self, fake: FakeWorkerd) -> None:
        assert json.loads(ctl(fake, "run", "--json", "true").out) == {
            "id": "done000000",
            "state": "running",
            "waits_for": None,
            "warnings": ["io.max has no effect here"],
        }

    def test_wait_says_nothing_and_gives_the_jobs_code(self, fake: FakeWorkerd) -> None:
        fake.answers["job.run"] = lambda params: protocol.RunResult("three", State.RUNNING)
        ran = ctl(fake, "r", "--wait", "true")
        assert (ran.code, ran.out, ran.err) == (3, b"", "")

    def test_an_end_that_is_a_riddle_is_explained(self, fake: FakeWorkerd) -> None:
        fake.answers["job.run"] = lambda params: protocol.RunResult("oom", State.RUNNING)
        ran = ctl(fake, "run", "--wait", "true")
        assert (ran.code, ran.out) == (137, b"")
        assert "out of memory (limit 32 MiB, peak 32 MiB)" in ran.err

    @pytest.mark.parametrize(
        ("error", "code"), [(errors.CommandNotFound, 127), (errors.CannotExecute, 126), (errors.StartFailed, 125)]
    )
    def test_a_command_that_never_ran(self, fake: FakeWorkerd, error: type[errors.WorkerError], code: int) -> None:
        def fail(_: object) -> None:
            raise error("what went wrong")

        fake.answers["job.run"] = fail
        ran = ctl(fake, "run", "--wait", "x")
        assert (ran.code, ran.out, ran.err) == (code, b"", "workerctl: what went wrong\n")


class TestInterrupt:
    @pytest.fixture
    def waiting(self, fake: FakeWorkerd) -> Iterator[subprocess.Popen[bytes]]:
        self.killed, self.stopped = threading.Event(), threading.Event()
        ended = threading.Event()

        def kill(params: protocol.KillParams) -> Job:
            self.killed.set()
            return JOBS["runs"]

        def stop(params: protocol.StopParams) -> Job:
            self.stopped.set()
            ended.set()
            return JOBS["done"]

        def wait(params: protocol.WaitParams) -> protocol.WaitResult:
            self.waits.set()
            ended.wait(30)
            return protocol.WaitResult((make_job(reason=Reason.STOPPED, exit_code=None, signal=15),))

        self.waits = threading.Event()
        fake.answers.update({"job.kill": kill, "job.stop": stop, "job.wait": wait})
        started = subprocess.Popen(
            [sys.executable, "-m", "workerctl", "run", "--wait", "true"], env=environment(fake), stderr=subprocess.PIPE
        )
        assert self.waits.wait(30)
        yield started
        ended.set()
        started.kill()
        started.communicate()

    def test_first_goes_to_the_job_then_stops_it(self, fake: FakeWorkerd, waiting: subprocess.Popen[bytes]) -> None:
        waiting.send_signal(signal.SIGINT)
        assert self.killed.wait(30) and not self.stopped.is_set()
        assert fake.asked("job.kill") == [protocol.KillParams("done000000", signal=2)]
        waiting.send_signal(signal.SIGINT)
        assert self.stopped.wait(30)
        _, err = waiting.communicate(timeout=30)
        assert waiting.returncode == 128 + 15
        assert b"sending SIGINT to job" in err and b"stopping job" in err and b"Traceback" not in err


class TestWait:
    @pytest.mark.parametrize(
        ("ids", "code"), [(["done"], 0), (["three"], 3), (["done", "three", "oom"], 3), (["lost"], 125), (["bad"], 125)]
    )
    def test_gives_the_first_code_that_is_not_zero(self, fake: FakeWorkerd, ids: list[str], code: int) -> None:
        ran = ctl(fake, "wait", *ids)
        assert (ran.code, ran.out, ran.err) == (code, b"", "")

    def test_any_says_which(self, fake: FakeWorkerd) -> None:
        fake.answers["job.wait"] = lambda params: protocol.WaitResult((JOBS["three"],), ("done",))
        ran = ctl(fake, "wait", "--any", "done", "three")
        assert (ran.code, ran.out) == (3, b"three00000\n")

    def test_time_over_is_124(self, fake: FakeWorkerd) -> None:
        fake.answers["job.wait"] = lambda params: protocol.WaitResult((), params.ids)
        ran = ctl(fake, "wait", "--timeout", "1.5s", "done")
        assert (ran.code, ran.out, ran.err) == (124, b"", "workerctl: not finished yet: done\n")
        assert fake.asked("job.wait")[0].timeout == 1_500_000

    def test_json(self, fake: FakeWorkerd) -> None:
        assert json.loads(ctl(fake, "wait", "--json", "three").out)["exit_code"] == 3
        assert [job["id"] for job in json.loads(ctl(fake, "wait", "--json", "done", "oom").out)] == [
            "done000000",
            "oom0000000",
        ]

    def test_an_interrupt_ends_it_as_a_signal_does(self, fake: FakeWorkerd) -> None:
        asked, release = threading.Event(), threading.Event()

        def hang(_: object) -> Any:
            asked.set()
            release.wait(30)
            return protocol.WaitResult(())

        fake.answers["job.wait"] = hang
        started = subprocess.Popen([sys.executable, "-m", "workerctl", "wait", "x"], env=environment(fake))
        assert asked.wait(30)
        started.send_signal(signal.SIGINT)
        assert started.wait(30) == -signal.SIGINT
        release.set()


class TestStopAndKill:
    def test_stop_passes_what_was_asked_for(self, fake: FakeWorkerd) -> None:
        ran = ctl(fake, "stop", "-t", "1m", "--signal", "INT", "runs", "done")
        assert (ran.code, ran.out, ran.err) == (0, b"", "")
        assert fake.asked("job.stop") == [
            protocol.StopParams(one, signal=2, grace=60_000_000) for one in ("runs", "done")
        ]

    def test_stop_all_stops_what_is_listed(self, fake: FakeWorkerd) -> None:
        fake.answers["job.stop"] = lambda params: JOBS["done"]
        assert ctl(fake, "stop", "--all").code == 0
        assert [params.id for params in fake.asked("job.stop")] == [job.id for job in JOBS.values()]

    def test_one_that_is_unknown_does_not_keep_the_others(self, fake: FakeWorkerd) -> None:
        ran = ctl(fake, "kill", "-s", "HUP", "--all", "none", "runs")
        assert (ran.code, ran.err) == (125, "workerctl: no such job: none\n")
        assert fake.asked("job.kill") == [protocol.KillParams(one, 1, all=True) for one in ("none", "runs")]


class TestShow:
    def test_status_tells_the_end_in_words(self, fake: FakeWorkerd) -> None:
        text = ctl(fake, "status", "oom", "bad").out.decode()
        assert "finished: killed by the kernel, out of memory (limit 32 MiB, peak 32 MiB)" in text
        assert "finished: could not start: chdir: /nowhere: No such file or directory" in text

    def test_status_json_has_every_field(self, fake: FakeWorkerd) -> None:
        one = json.loads(ctl(fake, "status", "--json", "done").out)
        assert set(one) == set(Job.__struct_fields__) and set(one["spec"]) == set(JobSpec.__struct_fields__)
        assert one["signal"] is None and one["spec"]["limits"]["memory"] is None
        several = json.loads(ctl(fake, "s", "--json", "done", "oom").out)
        assert [set(job) for job in several] == [set(one)] * 2

    def test_ps(self, fake: FakeWorkerd) -> None:
        ran = ctl(fake, "ps", "-a")
        lines = ran.out.decode().splitlines()
        assert len(lines) == len(JOBS) + 1 and not any(line.endswith(" ") for line in lines)
        assert fake.asked("job.list")[0].all and "sleeper" in ran.out.decode()

    def test_ps_ids_only(self, fake: FakeWorkerd) -> None:
        assert ctl(fake, "ls", "-q").out.decode().split() == [job.id for job in JOBS.values()]
        assert not fake.asked("job.list")[0].all

    def test_ps_json(self, fake: FakeWorkerd) -> None:
        assert [job["id"] for job in json.loads(ctl(fake, "list", "--json").out)] == [job.id for job in JOBS.values()]

    def test_nothing_is_cut_off_or_drawn_in_colour_in_a_pipe(self, fake: FakeWorkerd) -> None:
        long = make_job(spec=JobSpec(argv=("echo", "x" * 500)))
        fake.answers["job.list"] = lambda params: protocol.ListResult((long,))
        fake.answers["job.status"] = lambda params: long
        for words in (["ps"], ["status", "a"]):
            out = ctl(fake, *words).out
            assert b"x" * 500 in out and b"\x1b" not in out

    def test_version_with_and_without_a_daemon(self, fake: FakeWorkerd, tmp_path: Path) -> None:
        ran = ctl(None, "version", "--socket", str(tmp_path / "none"))
        assert ran.code == 0 and b"workerctl 0." in ran.out and "not running" in ran.err
        assert json.loads(ctl(None, "--version", "--json", "--socket", str(tmp_path / "none")).out)["workerd"] is None


class TestFailures:
    @pytest.mark.parametrize(
        ("words", "sentence"),
        [
            (["status", "zzz"], "no such job: zzz"),
            (["statu", "x"], "no verb 'statu'; did you mean status?"),
            (["--sokcet"], "no option '--sokcet'; see: workerctl help"),
            (["help", "rnu"], "no verb 'rnu'; did you mean run?"),
            (["run", "--meme", "1", "x"], "run has no option '--meme'; did you mean --mem?"),
            (["run", "--mem", "0", "x"], "--mem 0: nothing at all cannot work; for no limit, leave it out"),
            (["run"], "run what? Write: workerctl run [OPTIONS] [--] COMMAND [ARGUMENT…]"),
            (["kill"], "kill which job? Write: workerctl kill ID…"),
            (["stop"], "stop which job? Write: workerctl stop ID…, or stop --all"),
            (["stop", "--all", "x"], "--all stops every job: name none beside it"),
            (["wait"], "wait for which job? Write: workerctl wait ID…"),
            (["rename"], "rename which job, and how? Write: workerctl rename ID NAME"),
            (
                ["rename", "x"],
                "rename x to what? Write: workerctl rename x NAME; to take its name away: workerctl rename --remove x",
            ),
            (["rename", "--remove", "x", "y"], "--remove leaves no name: leave out 'y'"),
            (["rename", "x", "y", "z"], "rename takes one job and one name, and 'z' is more"),
            (["out"], "the output of which job? Write: workerctl out ID"),
            (["out", "--tail", "x", "y"], "--tail x: write how many lines, as --tail 20"),
            (["ps", "x"], "ps takes no argument 'x'; for one job: workerctl status x"),
            (["status", "a\x1b[31m\n"], r"no such job: a\x1b[31m\n"),
        ],
    )
    def test_are_one_sentence_and_125(self, fake: FakeWorkerd, words: list[str], sentence: str) -> None:
        ran = ctl(fake, *words)
        assert (ran.code, ran.out, ran.err) == (125, b"", f"workerctl: {sentence}\n")

    def test_an_argument_that_is_no_utf8(self, fake: FakeWorkerd) -> None:
        ran = ctl(fake, "run", "caf\udce9")
        assert (ran.code, ran.err) == (
            125,
            "workerctl: the command is not UTF-8, and workerd takes nothing else: caf\\xe9\n",
        )
        assert "not UTF-8" in ctl(fake, "status", "caf\udce9").err

    def test_no_daemon(self, tmp_path: Path) -> None:
        ran = ctl(None, "ps", "--socket", str(tmp_path / "none"))
        assert ran.code == 125 and ran.err.startswith("workerctl: workerd is not running: nobody listens on")
        assert ctl(None, "--socket", str(tmp_path / "none"), "ps").err == ran.err

    def test_our_own_are_told_without_a_traceback_unless_asked_for(self, fake: FakeWorkerd) -> None:
        fake.raw = b'{"id":1,"jsonrpc":"2.0","result":{"jobs":[{}]}}\n'
        ran = ctl(fake, "ps")
        assert ran.code == 125 and ran.err.startswith("workerctl: internal error: KeyError")
        assert "Traceback" not in ran.err
        env = {**environment(fake), "WORKERCTL_DEBUG": "1"}
        done = subprocess.run([sys.executable, "-m", "workerctl", "ps"], env=env, capture_output=True, check=False)
        assert b"Traceback" in done.stderr

    def test_alone_it_gives_an_overview(self) -> None:
        ran = ctl(None)
        assert ran.code == 0 and ran.out.startswith(b"workerctl runs commands as jobs") and not ran.err
        assert ctl(None, "--help").out == ctl(None, "help").out == ran.out

    def test_help_is_the_same_either_way(self) -> None:
        assert ctl(None, "help", "run").out == ctl(None, "run", "--help").out == ctl(None, "r", "-h").out


class TestStartUp:
    @pytest.mark.parametrize(
        ("words", "wanted"),
        [(["run", "true"], set()), (["run", "--wait", "true"], set()), (["wait", "x"], set()), (["ps", "-q"], set())],
    )
    def test_the_short_verbs_import_little(self, fake: FakeWorkerd, words: list[str], wanted: set[str]) -> None:
        heavy = {"re", "enum", "typing", "json", "socket", "msgspec", "rich", "argparse", "workerd.job", "signal"}
        code = f"import sys, workerctl.cli; workerctl.cli.main({words!r}); print(*{heavy!r} & set(sys.modules))"
        # -S: what the machine's site packages import at every start is not ours.
        done = subprocess.run(
            [sys.executable, "-S", "-c", code], env=environment(fake), capture_output=True, check=True, timeout=60
        )
        assert set(done.stdout.decode().splitlines()[-1].split()) == wanted

    @pytest.mark.parametrize(
        ("words", "wanted"),
        [
            (["ps"], {"rich.console", "rich.table"}),
            (["ps", "--json"], {"msgspec", "workerd.job"}),
            (["ps", "--format", "{id}"], {"msgspec", "workerd.job"}),
        ],
        ids=["ps", "json", "format"],
    )
    def test_ps_imports_what_it_draws_or_fills_with(
        self, fake: FakeWorkerd, words: list[str], wanted: set[str]
    ) -> None:
        """By python -X importtime, which is how to look at the whole of it."""
        heavy = {
            "msgspec",
            "workerd.job",
            "workerd.protocol",
            "rich.console",
            "rich.table",
            "rich.progress",
            "rich.live",
        }
        heavy |= {"asyncio", "pygments", "markdown_it", "argparse", "ctypes", "sqlite3", "pyroute2", "cgroupspy"}
        code = f"import workerctl.cli; workerctl.cli.main({words!r})"
        command = [sys.executable, "-X", "importtime", "-c", code]
        done = subprocess.run(command, env=environment(fake), capture_output=True, text=True, check=True, timeout=60)
        imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if "|" in line}
        assert imported & heavy == wanted
