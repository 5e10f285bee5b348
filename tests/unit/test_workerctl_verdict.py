"""Each kind of end, and of delay, has its verdict, and a command line that can be run."""

from __future__ import annotations

import shlex
from typing import Any

import pytest

from workerctl.asked import DEFAULT_OUTPUT
from workerctl.commandline import command_line
from workerctl.options import parse
from workerctl.spec import run_params
from workerctl.verbs import run as run_verb
from workerctl.verdict import Verdict, explain
from workerd.config import Policy

NOW = 100_000_000


def job(reason: str | None = None, spec: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
    state = "running" if reason is None else "finished"
    made = {"id": "abc", "state": state, "started": 1, "spec": {"argv": ["make", "-j4"], "cwd": "/src", **(spec or {})}}
    return {**made, **({} if reason is None else {"reason": reason, "finished": NOW}), **fields}


def verdict(*arguments: Any, **fields: Any) -> Verdict:
    return explain(job(*arguments, **fields), NOW)


SENT = {"number": 15, "sent": 5, "uid": 0}


class TestEnded:
    @pytest.mark.parametrize(
        ("fields", "kind", "words"),
        [
            ({"reason": "exited", "exit_code": 0}, "success", "reported success"),
            ({"reason": "exited", "exit_code": 3}, "failure", "exit code 3"),
            ({"reason": "exited", "exit_code": 127}, "failure", "command not found"),
            ({"reason": "exited", "exit_code": 137}, "failure", "SIGKILL ended its command"),
            ({"reason": "signaled", "signal": 11}, "crashed", "memory that is not its own"),
            ({"reason": "signaled", "signal": 31}, "crashed", "system call"),
            ({"reason": "signaled", "signal": 9}, "signaled", "counted no kill"),
            ({"reason": "signaled", "signal": 15}, "signaled", "not by workerctl"),
            ({"reason": "signaled", "signal": 15, "signaled": SENT}, "signaled", "sent by workerctl kill, by root"),
            ({"reason": "signaled", "signal": 9, "signaled": SENT}, "signaled", "not by workerctl"),
            ({"reason": "signaled", "signal": 11, "signaled": {**SENT, "number": 11}}, "signaled", "workerctl kill"),
            ({"reason": "stopped", "exit_code": 0}, "stopped", "exit code 0"),
            ({"reason": "oom", "signal": 9}, "machine-out-of-memory", "not by a limit of its own"),
            ({"reason": "lost", "detail": "reboot"}, "lost", "machine went down"),
            ({"reason": "lost", "detail": "its PID 1 was killed from outside"}, "lost", "from outside"),
            ({"reason": "skipped", "detail": "x was to succeed"}, "skipped", "x was to succeed"),
        ],
    )
    def test_kind_and_words(self, fields: dict[str, Any], kind: str, words: str) -> None:
        found = verdict(**fields)
        assert found.kind == kind
        assert words in found.what

    def test_out_of_memory_gives_the_line_with_more(self) -> None:
        limits = {"memory": 256 << 20}
        found = verdict("oom", {"limits": limits}, signal=9, usage={"memory_max_hits": 7, "memory_peak": 256 << 20})
        assert found.kind == "out-of-memory"
        assert "limit of 256 MiB" in found.what
        assert found.command == "workerctl run --workdir /src --mem 512M -- make -j4"

    def test_the_line_leaves_out_what_is_so_by_default(self) -> None:
        assert DEFAULT_OUTPUT == Policy().defaults.max_output
        spec = {"timeout": 60_000_000, "max_output": DEFAULT_OUTPUT}
        ended = job("timeout", spec, timed_out="timeout", signal=15)
        assert "--max-output" not in explain(ended, NOW).command
        assert "--max-output 64M" in explain(ended, NOW, (), 1 << 20).command

    def test_time_over_gives_the_line_with_more(self) -> None:
        found = verdict("timeout", {"timeout": 60_000_000}, timed_out="timeout", signal=15)
        assert (found.kind, "--timeout 120s" in found.command) == ("timeout", True)
        found = verdict("timeout", {"cpu_time": 5_000_000}, timed_out="cpu-time", signal=15)
        assert "CPU time of 5s" in found.what
        assert "--cpu-time 10s" in found.command

    def test_time_over_because_it_was_held_back_gives_the_line_with_more_cpu(self) -> None:
        spec = {"timeout": 60_000_000, "limits": {"cpus": 0.5}}
        usage = {"throttled_usec": 30_000_000}
        found = verdict("timeout", spec, timed_out="timeout", signal=15, duration=60_000_000, usage=usage)
        assert found.kind == "timeout-throttled" and "held it back 50%" in found.what
        assert "--cpus 1 " in found.command and "--timeout 60s" in found.command

    @pytest.mark.parametrize(
        ("fields", "sender"),
        [
            ({"reason": "stopped", "signal": 15}, "workerd"),
            ({"reason": "timeout", "signal": 9}, "workerd, after the grace"),
            ({"reason": "oom", "signal": 9}, "the kernel, for want of memory"),
            ({"reason": "signaled", "signal": 11}, "the kernel, for what the command did"),
            ({"reason": "signaled", "signal": 6}, "the command itself"),
            ({"reason": "signaled", "signal": 15, "signaled": SENT}, "workerctl kill, by root"),
        ],
    )
    def test_a_signal_s_sender_is_a_fact(self, fields: dict[str, Any], sender: str) -> None:
        assert next(fact for fact in verdict(**fields).facts if fact.startswith("signal: ")).endswith(f"by {sender}")

    def test_killed_after_its_grace(self) -> None:
        found = verdict("stopped", {"grace": 2_000_000}, signal=9)
        assert found.kind == "stopped-hard"
        assert "--grace 6s" in found.command

    def test_failed_for_want_of_processes_or_of_a_part_of_its_memory(self) -> None:
        found = verdict("exited", {"limits": {"pids": 10}}, exit_code=2, usage={"pids_max_hits": 4})
        assert (found.kind, "--pids 20" in found.command) == ("out-of-processes", True)
        found = verdict("exited", {"limits": {"memory": 1 << 20}}, exit_code=2, usage={"oom_kills": 1})
        assert (found.kind, "--mem 2M" in found.command) == ("partly-out-of-memory", True)

    def test_a_command_that_never_ran(self) -> None:
        error = {"step": "exec", "errno": 2, "message": "command not found: mkae"}
        found = verdict("start-failed", start_error=error)
        assert "command not found: mkae" in found.what
        assert "PATH" in found.advice


class TestLive:
    def test_throttled(self) -> None:
        found = verdict(spec={"limits": {"cpus": 0.5}}, usage={"throttled_usec": NOW * 8 // 10})
        assert found.kind == "throttled"
        assert "80%" in found.what
        assert found.command == "workerctl update abc --cpus 1"

    def test_short_of_memory_processes_or_disk(self) -> None:
        found = verdict(spec={"limits": {"memory": 64 << 20}}, usage={"memory_pressure_usec": NOW // 2})
        assert (found.kind, found.command) == ("short-of-memory", "workerctl update abc --mem 128M")
        found = verdict(spec={"limits": {"pids": 5}}, usage={"pids_max_hits": 1})
        assert (found.kind, found.command) == ("out-of-processes", "workerctl update abc --pids 10")
        assert verdict(usage={"io_pressure_usec": NOW // 2}).kind == "slow-disk"

    def test_nothing_is_wrong(self) -> None:
        assert verdict().kind == "running"

    @pytest.mark.parametrize("state", ["starting", "paused", "stopping"])
    def test_other_states(self, state: str) -> None:
        assert verdict(state=state).kind == state

    def test_waiting_says_what_for(self) -> None:
        found = verdict(state="queued", started=None, waits_for="room: 2 jobs of yours run")
        assert (found.kind, found.what) == ("waiting", "it waits: room: 2 jobs of yours run")

    def test_facts_end_with_the_last_lines_of_stderr(self) -> None:
        assert explain(job(), NOW, ["a", "b"]).facts[-2:] == ["stderr: a", "stderr: b"]


class TestCommandLine:
    @pytest.mark.parametrize(
        "line",
        [
            "-- make -j4",
            "--mem 256M --cpus 0.5 --pids 10 --swap 1G --cpu-weight 7 --cpuset 0-1 --io-weight 3 -- a 'b c'",
            "--mem 1000 --max-output 3K --timeout 90s --cpu-time 1500ms --on-timeout pause --grace 3s -- a",
            "--io-read-bps /:10M --io-write-iops 100 -- a",
            "--name x --label a=b --label c --hostname h --priority 3 --rm --restart on-failure:3 -- a",
            "--rw /tmp --ro /usr --bind /etc:/mnt:ro --tmpfs /opt:64M --read-only --stop-signal INT -- a",
            "--net bridge --publish 8080:80 --publish 53:53/udp -- a",
        ],
    )
    def test_asks_for_the_same_again(self, line: str) -> None:
        def spec(words: list[str]) -> Any:
            return run_params(parse(run_verb.VERB, words))["spec"]

        asked = spec(shlex.split(line))
        words = shlex.split(command_line(asked))
        assert words[:2] == ["workerctl", "run"]
        assert spec(words[2:]) == asked
