"""CommandExecutor: what concurrent.futures promises, kept with jobs of a real daemon."""

from __future__ import annotations

import concurrent.futures
import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.host.daemon import Daemon, running
from workerctl import CommandExecutor, CommandFailed, JobSpec, Reason, errors

SECONDS = 60


@pytest.fixture
def executor(daemon: Daemon) -> Iterator[CommandExecutor]:
    with CommandExecutor(socket_path=str(daemon.socket)) as made:
        yield made


@pytest.fixture(scope="module")
def narrow() -> Iterator[Daemon]:
    """One where a job of the user's runs at a time, and the others wait."""
    with running(config="[user]\nmax_running = 1\n[machine]\nmax_running = 1\n") as made:
        yield made


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


class Gate:
    """A command that waits until it is opened."""

    def __init__(self) -> None:
        self.read_end, self._write_end = os.pipe()
        self.command = ["sh", "-c", "read line; echo opened"]

    def open(self, times: int = 1) -> None:
        os.write(self._write_end, b"\n" * times)

    def close(self) -> None:
        os.close(self.read_end)
        os.close(self._write_end)


@pytest.fixture
def gate() -> Iterator[Gate]:
    made = Gate()
    yield made
    made.close()


class TestResults:
    def test_carry_job_exit_code_and_output(self, executor: CommandExecutor) -> None:
        future = executor.submit(["sh", "-c", "echo out; echo err >&2; cat; exit 3"], stdin=b"in", name="named")
        result = future.result(SECONDS)
        assert (result.exit_code, result.stdout, result.stderr) == (3, b"out\nin", b"err\n")
        assert result.job.reason is Reason.EXITED and result.job.spec.name == "named" and result.id == future.job_id

    def test_limits_are_the_executors_and_the_calls(self, daemon: Daemon) -> None:
        with CommandExecutor(socket_path=str(daemon.socket), timeout="1h", labels={"a": "b"}) as executor:
            mine = executor.submit(["true"], timeout="5m").result(SECONDS).job.spec
            whole = executor.submit(JobSpec(argv=("true",), timeout=7_000_000)).result(SECONDS).job.spec
        assert (mine.timeout, mine.labels, whole.timeout, whole.labels) == (300_000_000, {"a": "b"}, 7_000_000, {})

    def test_are_bounded_in_memory(self, daemon: Daemon) -> None:
        with CommandExecutor(socket_path=str(daemon.socket), most_output=10) as executor:
            result = executor.submit(["seq", "1000"]).result(SECONDS)
        assert result.stdout == b"\n999\n1000\n"[-10:] and result.cut

    def test_check_raises_with_a_verdict(self, executor: CommandExecutor) -> None:
        future = executor.submit(["false"], check=True)
        with pytest.raises(CommandFailed, match="exit code 1") as caught:
            future.result(SECONDS)
        assert future.exception() is caught.value and caught.value.result.job.exit_code == 1
        assert executor.submit(["true"], check=True).result(SECONDS).succeeded

    def test_what_workerd_refuses_is_the_futures_exception(self, executor: CommandExecutor) -> None:
        assert isinstance(executor.submit(["no-such-command-anywhere"]).exception(SECONDS), errors.CommandNotFound)
        assert isinstance(executor.submit(["true"], cwd="/nowhere").exception(SECONDS), errors.StartFailed)

    def test_what_cannot_be_meant_is_told_at_once(self, executor: CommandExecutor) -> None:
        with pytest.raises(errors.InvalidParams, match="mem: not a size"):
            executor.submit(["true"], mem="much")
        with pytest.raises(TypeError, match="a list of words"):
            executor.submit("true")
        with pytest.raises(TypeError, match="colour"):
            executor.submit(["true"], colour="red")  # type: ignore[call-overload]


class TestAsConcurrentFuturesHasIt:
    """The same is asked of both executors: what one thing does for callables, the other does for commands."""

    @pytest.fixture(params=["threads", "commands"])
    def begin(self, request: pytest.FixtureRequest, daemon: Daemon) -> Iterator[Callable[[int], Any]]:
        """Begin something that gives this number (negative: raises), one at a time."""
        if request.param == "threads":
            with concurrent.futures.ThreadPoolExecutor(1) as pool:
                yield lambda number: pool.submit(give, number)
        else:
            with CommandExecutor(1, socket_path=str(daemon.socket), check=True) as executor:
                yield lambda number: executor.submit(["sh", "-c", f"sleep 0.05; echo {number}; exit {int(number < 0)}"])

    def test_as_completed_gives_each_once(self, begin: Callable[[int], Any]) -> None:
        futures = [begin(number) for number in (1, -1, 2)]
        done = list(concurrent.futures.as_completed(futures, timeout=SECONDS))
        assert sorted(map(id, done)) == sorted(map(id, futures)) and all(future.done() for future in done)

    def test_wait_knows_the_first_exception(self, begin: Callable[[int], Any]) -> None:
        futures = [begin(number) for number in (1, -1, 2)]
        done, _ = concurrent.futures.wait(futures, SECONDS, concurrent.futures.FIRST_EXCEPTION)
        assert futures[1] in done and futures[1].exception() is not None
        done, left = concurrent.futures.wait(futures, SECONDS)
        assert done == set(futures) and not left
        assert [future.exception() is None for future in futures] == [True, False, True]

    def test_what_waits_can_be_cancelled_and_those_who_wait_for_it_are_told(self, begin: Callable[[int], Any]) -> None:
        first, second = begin(1), begin(2)
        assert second.cancel() and second.cancelled() and second.cancel()
        with pytest.raises(concurrent.futures.CancelledError):
            second.result(SECONDS)
        done, _ = concurrent.futures.wait([first, second], SECONDS)
        assert done == {first, second}
        assert not first.cancel() and not first.cancelled()

    def test_a_result_may_be_waited_for_for_a_time(self, begin: Callable[[int], Any]) -> None:
        future = begin(1)
        with pytest.raises(TimeoutError):
            future.result(0)
        future.result(SECONDS)

    def test_callbacks_are_called_once(self, begin: Callable[[int], Any]) -> None:
        called, seen = threading.Event(), []

        def note(done: object) -> None:
            seen.append(done)
            called.set()

        future = begin(1)
        future.add_done_callback(note)
        assert called.wait(SECONDS) and seen == [future]


def give(number: int) -> int:
    time.sleep(0.05)
    if number < 0:
        raise ValueError(number)
    return number


class TestMap:
    def test_keeps_the_order(self, executor: CommandExecutor) -> None:
        commands = [["sh", "-c", f"sleep 0.{3 - number}; echo {number}"] for number in range(3)]
        assert [result.stdout for result in executor.map(commands)] == [b"0\n", b"1\n", b"2\n"]

    def test_raises_where_one_fails_and_cancels_what_has_not_begun(self, daemon: Daemon) -> None:
        with CommandExecutor(1, socket_path=str(daemon.socket)) as executor:
            results = executor.map([["false"], ["sh", "-c", "exit 9"], *[["sleep", "1000"]] * 3], check=True)
            with pytest.raises(CommandFailed, match="exit code 1"):
                next(results)

    def test_has_a_time(self, daemon: Daemon) -> None:
        with CommandExecutor(socket_path=str(daemon.socket)) as executor:
            with pytest.raises(TimeoutError):
                next(executor.map([["sleep", "0.5"]], timeout=0.01))


class TestJobsInFlight:
    def test_are_no_more_than_max_workers(self, daemon: Daemon, gate: Gate) -> None:
        with CommandExecutor(2, socket_path=str(daemon.socket)) as executor:
            futures = [executor.submit(gate.command, stdin=gate.read_end, labels={"in": "flight"}) for _ in range(5)]
            until(lambda: sum(future.running() for future in futures) == 2)
            with daemon.client() as client:
                assert len(list(client.list(labels={"in": "flight"}))) == 2
            assert [future.job_id is None for future in futures] == [False, False, True, True, True]
            gate.open(5)
            assert [future.result(SECONDS).stdout for future in futures] == [b"opened\n"] * 5

    def test_need_one_thread_and_one_connection(self, daemon: Daemon) -> None:
        before, fds = threading.active_count(), len(os.listdir("/proc/self/fd"))
        with CommandExecutor(socket_path=str(daemon.socket)) as executor:
            executor.submit(["true"]).result(SECONDS)  # a thread that connected waits for more to do
            base = threading.active_count()
            futures = [executor.submit(["sleep", "0.5"]) for _ in range(50)]
            until(lambda: all(future.job_id for future in futures))
            assert threading.active_count() == base <= before + 2
            assert len(executor._client._connections) == 1
        assert all(future.result().succeeded for future in futures)
        assert (threading.active_count(), len(os.listdir("/proc/self/fd"))) == (before, fds)

    def test_that_wait_in_workerds_queue_are_pending_and_can_be_cancelled(self, narrow: Daemon) -> None:
        with CommandExecutor(socket_path=str(narrow.socket)) as executor:
            first, second, third = (executor.submit(["sleep", "1000"]) for _ in range(3))
            until(lambda: all(future.job_id for future in (first, second, third)))
            assert first.running() and not second.running() and not second.done()
            assert third.cancel() and third.cancelled()
            with narrow.client() as client:
                assert client.wait(third.job_id or "", timeout=SECONDS).started is None
            first.stop(grace=0)
            until(second.running)
            assert not second.cancel()
            second.stop(grace=0)
            ends = [future.result(SECONDS).job.reason for future in (first, second)]
            assert ends == [Reason.STOPPED, Reason.STOPPED]


class TestStop:
    def test_ends_one_that_runs_and_its_result_says_so(self, executor: CommandExecutor) -> None:
        future = executor.submit(["sleep", "1000"])
        until(future.running)
        assert not future.cancel()
        future.stop(grace=1)
        assert future.result(SECONDS).job.reason is Reason.STOPPED

    def test_cancels_one_that_does_not(self, daemon: Daemon, gate: Gate) -> None:
        with CommandExecutor(1, socket_path=str(daemon.socket)) as executor:
            executor.submit(gate.command, stdin=gate.read_end)
            second = executor.submit(["true"])
            second.stop()
            assert second.cancelled()
            gate.open()


class TestShutdown:
    def test_waits_for_all_and_takes_no_more(self, daemon: Daemon) -> None:
        executor = CommandExecutor(1, socket_path=str(daemon.socket))
        futures = [executor.submit(["sleep", "0.1"]) for _ in range(3)]
        executor.shutdown()
        assert all(future.done() and future.result().succeeded for future in futures)
        with pytest.raises(RuntimeError, match="after shutdown"):
            executor.submit(["true"])
        executor.shutdown()

    def test_can_leave_what_runs_and_cancel_the_rest(self, daemon: Daemon, gate: Gate) -> None:
        executor = CommandExecutor(1, socket_path=str(daemon.socket))
        first, second = (executor.submit(gate.command, stdin=gate.read_end) for _ in range(2))
        until(first.running)
        executor.shutdown(wait=False, cancel_futures=True)
        assert second.cancelled() and not first.done()
        gate.open()
        assert first.result(SECONDS).succeeded
        executor.shutdown()


class TestDaemonsDeath:
    def test_a_restart_is_waited_through(self, own_daemon: Daemon, gate: Gate) -> None:
        with CommandExecutor(socket_path=str(own_daemon.socket)) as executor:
            futures = [executor.submit(gate.command, stdin=gate.read_end) for _ in range(5)]
            until(lambda: all(future.running() for future in futures))
            own_daemon.restart()
            gate.open(5)
            assert [future.result(SECONDS).stdout for future in futures] == [b"opened\n"] * 5
            assert executor.submit(["true"]).result(SECONDS).succeeded

    def test_for_good_is_told_to_every_future_and_the_job_can_be_found_again(
        self, own_daemon: Daemon, gate: Gate
    ) -> None:
        with CommandExecutor(socket_path=str(own_daemon.socket), patience=0) as executor:
            futures = [executor.submit(gate.command, stdin=gate.read_end) for _ in range(3)]
            until(lambda: all(future.running() for future in futures))
            own_daemon.kill()
            assert {type(future.exception(SECONDS)) for future in futures} == {errors.ConnectionFailed}
        own_daemon.start()
        gate.open(3)
        with own_daemon.client() as client:
            assert all(client.wait(future.job_id or "").succeeded for future in futures)
