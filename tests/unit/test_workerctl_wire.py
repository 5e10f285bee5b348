"""The connection, the typed client, and what becomes of a daemon that is not there or goes away."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import workerctl
from tests.unit.workerctl_fakes import FakeWorkerd, LogWriter, drained, make_job
from workerctl import exitcode, patience, plainjson, reach, wire
from workerctl.client import Client
from workerctl.listing import list_jobs
from workerctl.wire import Connection
from workerd import errors, protocol
from workerd.job import JobSpec, Reason, StartError, State, shell_code


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[FakeWorkerd]:
    made = FakeWorkerd(tmp_path / "sock")
    yield made
    made.close()


@pytest.fixture
def client(fake: FakeWorkerd) -> Iterator[Client]:
    with Client(fake.path) as made:
        yield made


def plain(struct: Any) -> Any:
    return json.loads(protocol.encode(struct))


class TestConstants:
    def test_are_the_protocols(self) -> None:
        assert (wire.DEFAULT_SOCKET, wire.MAX_REQUEST) == (protocol.DEFAULT_SOCKET, protocol.MAX_REQUEST)

    def test_the_socket_is_the_one_given_or_the_environments(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("WORKERD_SOCKET", raising=False)
        assert wire.socket_path() == protocol.DEFAULT_SOCKET
        monkeypatch.setenv("WORKERD_SOCKET", "/env")
        assert (wire.socket_path(), wire.socket_path("/given")) == ("/env", "/given")


class TestExitCode:
    @pytest.mark.parametrize("reason", list(Reason))
    @pytest.mark.parametrize("signal", [None, 9, 15])
    @pytest.mark.parametrize("code", [None, 0, 3])
    @pytest.mark.parametrize(
        "error", [None, StartError("chdir", 2, "x"), StartError("exec", 2, "x"), StartError("exec", 13, "x")]
    )
    def test_is_shell_code(
        self, reason: Reason, signal: int | None, code: int | None, error: StartError | None
    ) -> None:
        job = make_job(reason=reason, signal=signal, exit_code=code, start_error=error)
        assert exitcode.of_job(plain(job)) == shell_code(job)


class TestPlainJson:
    VALUES: tuple[object, ...] = (
        None,
        True,
        0,
        -1,
        2**63,
        0.5,
        "",
        'a"\\\n\x00\x1f\x7f\u2028é😀',
        [],
        {},
        {"a": [1, {"b": None}], "é": "x" * 10_000},
    )

    @pytest.mark.parametrize("value", VALUES)
    def test_is_what_the_json_module_writes_and_reads(self, value: object) -> None:
        line = plainjson.dumps(value)
        assert line == json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
        assert plainjson.loads(b" " + line + b"\n") == value

    @pytest.mark.parametrize(
        "line", [b"", b"{", b"{}x", b"nul", b'"\xff"', b"NaN", b"[1,]", b'"\n"', b"[" * 100_000, b"'a'"]
    )
    def test_refuses_what_is_none(self, line: bytes) -> None:
        with pytest.raises(ValueError):
            plainjson.loads(line)

    def test_refuses_what_cannot_be_written(self) -> None:
        with pytest.raises(UnicodeEncodeError):
            plainjson.dumps("\udce9")
        with pytest.raises(TypeError):
            plainjson.dumps({"a": object()})


class TestConnection:
    def test_a_call_gives_the_result(self, fake: FakeWorkerd) -> None:
        fake.answers["job.run"] = lambda params: protocol.RunResult("abc", State.RUNNING)
        with Connection(fake.path) as connection:
            assert connection.call("job.run", {"spec": {"argv": ["true"]}}) == {"id": "abc", "state": "running"}
        assert fake.asked("job.run") == [protocol.RunParams(JobSpec(argv=("true",)))]

    def test_an_error_is_its_own_class_again(self, fake: FakeWorkerd) -> None:
        def fail(_: object) -> None:
            raise errors.CommandNotFound("command not found: x", id="abc", step="exec", errno=2)

        fake.answers["job.run"] = fail
        with Connection(fake.path) as connection, pytest.raises(errors.CommandNotFound) as caught:
            connection.call("job.run", {"spec": {"argv": ["x"]}})
        assert str(caught.value) == "command not found: x" and caught.value.data["id"] == "abc"

    def test_an_answer_may_be_large(self, fake: FakeWorkerd) -> None:
        job = make_job(spec=JobSpec(argv=("x" * (5 << 20),)))
        fake.answers["job.status"] = lambda params: job
        with Connection(fake.path) as connection:
            assert connection.call("job.status", {"id": "a"}) == plain(job)

    def test_a_request_that_is_too_large_is_not_sent(self, fake: FakeWorkerd) -> None:
        with Connection(fake.path) as connection, pytest.raises(errors.InvalidParams, match="in a file"):
            connection.call("job.run", {"spec": {"argv": ["x" * protocol.MAX_REQUEST]}})
        assert not fake.requests

    @pytest.mark.parametrize(
        "raw",
        [b"", b"hello\n", b"[]\n", b"{}\n", b'{"id":7,"jsonrpc":"2.0","result":{}}\n', b'{"id":1', b"\xff\n", b"[[\n"],
    )
    def test_what_is_no_answer_is_a_lost_connection(self, fake: FakeWorkerd, raw: bytes) -> None:
        fake.raw = raw
        with Connection(fake.path) as connection, pytest.raises(errors.ConnectionFailed):
            connection.call("daemon.info", {})
        with Client(fake.path) as client, pytest.raises(errors.ConnectionFailed):
            client.info()

    def test_an_error_without_an_id_is_an_answer(self, fake: FakeWorkerd) -> None:
        fake.raw = protocol.encode_error(None, errors.ParseError("not JSON"))
        with Connection(fake.path) as connection, pytest.raises(errors.ParseError):
            connection.call("daemon.info", {})

    def test_why_the_daemon_hung_up_is_told(self, tmp_path: Path) -> None:
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        connection = Connection(str(tmp_path / "s"))
        peer, _ = listener.accept()
        peer.sendall(protocol.encode_error(None, errors.Unavailable("workerd is stopping")))
        peer.close()
        with pytest.raises((errors.Unavailable, errors.ConnectionFailed)):
            connection.call("daemon.info", {})
        connection.close()
        listener.close()

    def test_many_calls_are_answered_in_their_order(self, fake: FakeWorkerd) -> None:
        def answer(params: protocol.JobParams) -> Any:
            if params.id == "3":
                raise errors.NoSuchJob("no such job: 3")
            return make_job(id=params.id)

        fake.answers["job.status"] = answer
        with Connection(fake.path) as connection:
            results = connection.call_many("job.status", [{"id": str(number)} for number in range(300)])
        assert isinstance(results[3], errors.NoSuchJob)
        assert [result["id"] for result in results if isinstance(result, dict)] == [
            str(n) for n in range(300) if n != 3
        ]

    def test_a_list_goes_on_where_an_answer_ends(self, fake: FakeWorkerd) -> None:
        pages = {None: ("a", "b"), "b": ("c",)}
        fake.answers["job.list"] = lambda params: protocol.ListResult(
            tuple(make_job(id=one) for one in pages[params.before]), None if params.before else "b"
        )
        with Connection(fake.path) as connection:
            assert [job["id"] for job in list_jobs(connection, all=True)] == ["a", "b", "c"]
        assert [params.all for params in fake.asked("job.list")] == [True, True]


class TestDescriptors:
    def test_come_with_the_answer_and_can_be_read(self, fake: FakeWorkerd, client: Client, tmp_path: Path) -> None:
        writer = LogWriter(tmp_path)
        writer.write(1, b"hello\n")
        fake.has_log(tmp_path)
        with client.open_output("a") as log:
            assert drained(log.pieces(0, log.end())) == b"hello\n"
            assert not os.get_inheritable(log.log_fd)
        writer.close()

    def test_are_closed_where_the_answer_is_an_error(self, fake: FakeWorkerd, client: Client) -> None:
        def fail(_: object) -> None:
            raise errors.NoSuchJob("no such job: a")

        fake.answers["output.open"] = fail
        for _ in range(2):  # the first one lets the fake accept the connection
            before = len(os.listdir("/proc/self/fd"))
            with pytest.raises(errors.NoSuchJob):
                client.open_output("a")
        assert len(os.listdir("/proc/self/fd")) == before

    def test_that_are_fewer_than_said_are_an_error(self, fake: FakeWorkerd, client: Client) -> None:
        fake.answers["output.open"] = lambda params: protocol.OutputOpenResult("a", 0, 0, True)
        with pytest.raises(errors.ConnectionFailed, match="descriptors"):
            client.open_output("a")

    def test_ride_on_a_request(self, fake: FakeWorkerd, client: Client) -> None:
        fake.answers["job.run"] = lambda params: protocol.RunResult("abc", State.RUNNING)
        read, write = os.pipe()
        client.run(JobSpec(argv=("cat",)), stdin=read)
        os.write(write, b"through")
        assert os.read(fake.received[0], 100) == b"through"
        assert fake.asked("job.run")[0].fds == 1
        os.close(read)
        os.close(write)


class TestClient:
    def test_is_what_the_package_offers(self) -> None:
        assert workerctl.Client is Client
        with pytest.raises(AttributeError):
            _ = workerctl.Nothing

    def test_calls_take_and_give_structs(self, fake: FakeWorkerd, client: Client) -> None:
        job = make_job(reason=Reason.OOM, exit_code=None, signal=9)
        fake.answers["job.status"] = lambda params: job
        fake.answers["job.stop"] = fake.answers["job.kill"] = fake.answers["job.status"]
        fake.answers["job.wait"] = lambda params: protocol.WaitResult((job,))
        fake.answers["job.list"] = lambda params: protocol.ListResult((job,))
        fake.answers["output.wait"] = lambda params: protocol.OutputWaitResult(0, 5, True)
        assert client.status("a") == client.stop("a", grace=0.000001) == client.kill("a", 15) == job
        assert client.wait(["a"], any=True, timeout="5us").finished == (job,)
        assert list(client.list(all=True, states=[State.FINISHED])) == [job]
        assert client.wait_output("a", 0).end == 5
        assert fake.asked("job.stop") == [protocol.StopParams("a", grace=1)]
        assert fake.asked("job.kill") == [protocol.KillParams("a", 15)]
        assert fake.asked("job.wait") == [protocol.WaitParams(("a",), any=True, timeout=5)]

    def test_errors_are_the_daemons(self, fake: FakeWorkerd, client: Client) -> None:
        def fail(_: object) -> None:
            raise errors.AmbiguousId("k is the beginning of 2 ids")

        fake.answers["job.status"] = fail
        with pytest.raises(errors.AmbiguousId, match="2 ids"):
            client.status("k")


class TestReach:
    def test_nobody_is_there(self, tmp_path: Path) -> None:
        with pytest.raises(errors.NotRunning, match="nobody listens on"):
            Connection(str(tmp_path / "none"))

    def test_nobody_listens_any_more(self, tmp_path: Path) -> None:
        sock = socket.socket(socket.AF_UNIX)
        sock.bind(str(tmp_path / "dead"))
        sock.close()
        with pytest.raises(errors.NotRunning):
            Client(str(tmp_path / "dead"))

    def test_at_the_usual_place_it_says_how_to_start_it(self) -> None:
        error = reach.explain(protocol.DEFAULT_SOCKET, FileNotFoundError(2, "No such file"))
        assert str(error) == "workerd is not running: systemctl start workerd"

    def test_a_path_that_is_too_long(self) -> None:
        with pytest.raises(errors.ConnectionFailed):
            Connection("/" + "x" * 200)

    def test_no_permission_names_the_group_and_how_to_join(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(reach, "_owning_group", lambda path: ("worker", False))
        error = reach.explain("/run/workerd/workerd.sock", PermissionError(13, "Permission denied"))
        assert isinstance(error, errors.SocketForbidden)
        assert (
            "group worker" in str(error) and "usermod -aG worker $USER" in str(error) and "log in again" in str(error)
        )

    def test_who_joined_since_is_told_to_log_in_again(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(reach, "_owning_group", lambda path: ("worker", True))
        assert "usermod" not in str(reach.explain("/s", PermissionError(13, "x")))

    def test_the_group_is_the_sockets(self, tmp_path: Path) -> None:
        sock = tmp_path / "s"
        sock.touch()
        found = reach._owning_group(str(sock))
        assert found is not None and found[0]
        assert reach._owning_group(str(tmp_path / "none")) is None


class TestPatience:
    def test_a_call_is_asked_again_through_a_restart(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(patience, "FIRST_PAUSE", 0.01)
        first = FakeWorkerd(tmp_path / "sock")
        first.raw = b""
        connection = Connection(first.path)
        again: list[FakeWorkerd] = []

        def restart() -> None:
            (tmp_path / "sock").unlink()
            first.close()
            again.append(FakeWorkerd(tmp_path / "sock"))
            again[0].answers["job.wait"] = lambda params: protocol.WaitResult((make_job(),))

        timer = threading.Timer(0.1, restart)
        timer.start()
        assert connection.call_patiently("job.wait", {"ids": ["a"]})["finished"]
        timer.join()
        connection.close()
        again[0].close()

    def test_it_ends_where_nobody_comes_back(self, fake: FakeWorkerd, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(patience, "FIRST_PAUSE", 0.01)
        monkeypatch.setattr(patience, "PATIENCE", 0.1)
        fake.raw = b""
        with Connection(fake.path) as connection, pytest.raises(errors.ConnectionFailed):
            connection.call_patiently("job.wait", {"ids": ["a"]})

    def test_an_answer_is_an_answer(self, fake: FakeWorkerd) -> None:
        def fail(_: object) -> None:
            raise errors.NoSuchJob("no such job: a")

        fake.answers["job.wait"] = fail
        with Connection(fake.path) as connection, pytest.raises(errors.NoSuchJob):
            connection.call_patiently("job.wait", {"ids": ["a"]})
        assert len(fake.requests) == 1
