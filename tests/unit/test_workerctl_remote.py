"""-H without another machine: what it may be, the frames, the far end beside us, and clients
that are no Linux. Real processes and pipes; in place of ssh a program that starts the far
end here. (tests/host/test_remote.py has a real sshd.)
"""

from __future__ import annotations

import io
import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.workerctl_fakes import FakeWorkerd, LogWriter, Ran, ctl, environment, make_job
from workerctl import signals
from workerctl.client import Client
from workerctl.options import UsageError
from workerctl.remote import dialrpc, frames
from workerctl.remote.address import parse, settle
from workerctl.remote.frames import MAGIC, Broken, Frame
from workerd import protocol
from workerd.errors import HostUnreachable, NotRunning
from workerd.job import Job, State

ROOT = Path(__file__).parents[2]
ELSEWHERE = Path(__file__).with_name("elsewhere.py")
NEAR = sorted(
    f"workerctl.{'.'.join(path.relative_to(ROOT / 'workerctl').with_suffix('').parts).removesuffix('.__init__')}"
    for path in (ROOT / "workerctl").rglob("*.py")
    if not path.name.startswith("dial")
    and not {"dask", "doctor", "top"} & set(path.parts)
    and path.name != "__main__.py"
)
"""all that may run where there is no workerd"""


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[FakeWorkerd]:
    made = FakeWorkerd(tmp_path / "sock")
    yield made
    made.close()


def ssh_of(tmp_path: Path, script: str) -> str:
    """For WORKER_SSH: a program in place of ssh; $command is what it is to run there."""
    path = tmp_path / "ssh"
    path.write_text(f"#!/bin/sh\nfor command; do :; done\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


@pytest.fixture
def ssh(tmp_path: Path) -> str:
    return ssh_of(tmp_path, f"exec {sys.executable} -m ${{command}}")


def far(fake: FakeWorkerd, ssh: str, *words: str, python: tuple[str, ...] = ("-m", "workerctl"), **more: Any) -> Ran:
    command = [sys.executable, *python, "-H", f"ssh://there{fake.path}", *words]
    env = {**environment(None), "WORKER_SSH": ssh}
    return Ran(subprocess.run(command, env=env, capture_output=True, timeout=60, **more))


def answers_run(fake: FakeWorkerd) -> None:
    fake.answers["job.run"] = lambda params: protocol.RunResult("k3v9q2m7xd", State.RUNNING)
    fake.answers["job.wait"] = lambda params: protocol.WaitResult((make_job(exit_code=3),))
    fake.answers["job.status"] = lambda params: make_job()


class TestAddress:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("ssh://h", ("h", None, None, None)),
            ("ssh://ada@h.example:2222", ("h.example", "ada", 2222, None)),
            ("ssh://ada@h/run/x.sock", ("h", "ada", None, "/run/x.sock")),
            ("ssh://h/", ("h", None, None, None)),
            ("ssh://[::1]", ("::1", None, None, None)),
            ("ssh://a@[fe80::1%eth0]:22", ("fe80::1%eth0", "a", 22, None)),
        ],
    )
    def test_has_its_parts(self, text: str, expected: tuple[object, ...]) -> None:
        found = parse(text)
        assert (found.host, found.user, found.port, found.socket) == expected

    @pytest.mark.parametrize(
        ("text", "told"),
        [
            ("h", "write -H ssh://h"),
            ("ada@h", "write -H ssh://ada@h"),
            ("tcp://h", "write ssh://[USER@]HOST"),
            ("ssh://", "write ssh://[USER@]HOST"),
            ("ssh://@h", "write ssh://[USER@]HOST"),
            ("ssh://-oProxyCommand=x", "write ssh://[USER@]HOST"),
            ("ssh://-l@h", "write ssh://[USER@]HOST"),
            ("ssh://h h", "write ssh://[USER@]HOST"),
            ("ssh://a:pw@h", "no password goes here"),
            ("ssh://h:0", "a port is a number"),
            ("ssh://h:x", "a port is a number"),
            ("ssh://[::1", "an IPv6 address is written"),
        ],
    )
    def test_what_it_cannot_be_is_told(self, text: str, told: str) -> None:
        with pytest.raises(UsageError) as caught:
            parse(text)
        assert told in str(caught.value)

    def test_the_environment_says_both_in_one(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("WORKERD_SOCKET", "/here")
        monkeypatch.delenv("WORKER_HOST", raising=False)
        settle("ssh://h", "/there")
        assert os.environ["WORKER_HOST"] == "ssh://h/there"
        settle("unix:///x", None)
        assert os.environ["WORKERD_SOCKET"] == "/x" and "WORKER_HOST" not in os.environ

    @pytest.mark.parametrize(
        ("host", "socket"), [("ssh://h/a", "/b"), ("unix:///a", "/b"), ("unix://a", None), ("ssh://h", "relative")]
    )
    def test_two_sockets_are_refused(self, monkeypatch: pytest.MonkeyPatch, host: str, socket: str | None) -> None:
        monkeypatch.setenv("WORKER_HOST", "")
        monkeypatch.setenv("WORKERD_SOCKET", "")
        with pytest.raises(UsageError):
            settle(host, socket)


class TestFrames:
    def test_come_out_as_they_went_in(self) -> None:
        sent = [Frame(frames.DATA, 7, b"\0\xffx"), Frame(frames.EOF, 2**32 - 1)]
        file = io.BytesIO(b"".join(part for frame in sent for part in frame.encode()))
        got = [frames.read(file), frames.read(file)]
        assert [(one.kind, one.channel, one.payload) for one in got if one] == [
            (one.kind, one.channel, one.payload) for one in sent
        ]
        assert frames.read(file) is None

    @pytest.mark.parametrize("cut", [1, 8, 9, 11])
    def test_half_of_one_is_the_end(self, cut: int) -> None:
        assert frames.read(io.BytesIO(Frame(frames.DATA, 1, b"xyz").encode()[0][:cut])) is None

    @pytest.mark.parametrize("header", [(0, 1, 0), (99, 1, 0), (frames.DATA, 1, 2**31)])
    def test_what_cannot_be_one_is_refused(self, header: tuple[int, int, int]) -> None:
        with pytest.raises(Broken):
            frames.read(io.BytesIO(frames.HEADER.pack(*header)))

    def test_what_a_login_shell_prints_is_skipped(self) -> None:
        file = io.BytesIO(b"Welcome!\n" + MAGIC + b"rest")
        assert frames.skip_preamble(file) == b"Welcome!\n" and file.read() == b"rest"
        assert frames.skip_preamble(io.BytesIO(b"x" * 100_000 + MAGIC)) is None

    def test_no_more_descriptors_than_the_protocol_has(self) -> None:
        assert dialrpc.MAX_FDS == protocol.MAX_FDS


class TestHostOption:
    @pytest.mark.parametrize("place", ["before", "behind", "glued", "long", "environment"])
    def test_may_stand_anywhere(self, fake: FakeWorkerd, ssh: str, place: str) -> None:
        fake.answers["job.list"] = lambda params: protocol.ListResult((make_job(),))
        host = f"ssh://there{fake.path}"
        words = {
            "before": ["-H", host, "ps", "-q"],
            "behind": ["ps", "-q", "-H", host],
            "glued": [f"-H{host}", "ps", "-q"],
            "long": [f"--host={host}", "ps", "-q"],
            "environment": ["ps", "-q"],
        }[place]
        env = {**environment(None), "WORKER_SSH": ssh}
        env["WORKER_HOST"] = host if place == "environment" else "ssh://elsewhere.invalid"
        done = subprocess.run([sys.executable, "-m", "workerctl", *words], env=env, capture_output=True, timeout=60)
        assert (done.returncode, done.stdout, done.stderr) == (0, b"k3v9q2m7xd\n", b"")

    def test_a_local_socket_is_not_the_far_one(self, fake: FakeWorkerd, ssh: str, tmp_path: Path) -> None:
        env = {**environment(fake), "WORKER_SSH": ssh, "WORKER_HOST": "ssh://there"}
        words = [sys.executable, "-m", "workerctl", "ps", "--socket", str(tmp_path / "none")]
        done = subprocess.run(words, env=env, capture_output=True, timeout=60)
        assert b"there: workerd is not running: nobody listens on" in done.stderr and not fake.requests

    def test_the_empty_one_and_unix_are_this_machine(self, fake: FakeWorkerd) -> None:
        fake.answers["job.list"] = lambda params: protocol.ListResult(())
        assert ctl(fake, "-H", "", "ps", "-q").code == 0
        assert ctl(None, "-H", f"unix://{fake.path}", "ps", "-q").code == 0

    def test_ssh_gets_user_port_and_no_options_from_us(self, fake: FakeWorkerd, tmp_path: Path) -> None:
        ssh = ssh_of(tmp_path, 'echo "$@" >&2; exit 255')
        env = {**environment(None), "WORKER_SSH": f"{ssh} -F 'a file'"}
        words = [sys.executable, "-m", "workerctl", "-H", "ssh://ada@h:77", "ps"]
        done = subprocess.run(words, env=env, capture_output=True, timeout=60)
        assert b"cannot reach ada@h:77: -F a file -T -x -p 77 -l ada -- h workerctl dial-stdio" in done.stderr

    @pytest.mark.parametrize("verb", ["doctor", "dial-stdio"])
    def test_means_nothing_to_some_verbs(self, verb: str) -> None:
        assert ctl(None, "-H", "ssh://h", verb).code in (0, 125)


class TestFarEnd:
    """Through real pipes, with a workerd of the tests' own."""

    def test_runs_with_the_far_environment_and_home(self, fake: FakeWorkerd, ssh: str) -> None:
        answers_run(fake)
        assert far(fake, ssh, "run", "--wait", "-e", "A=b", "true").code == 3
        (params,) = fake.asked("job.run")
        assert params.spec.cwd == os.path.realpath(os.path.expanduser("~"))
        assert params.env["A"] == "b" and "TERM" not in params.env and "WORKER_SSH" not in params.env

    def test_standard_input_becomes_a_pipe_there(self, fake: FakeWorkerd, ssh: str) -> None:
        data = os.urandom(3_000_000)
        taken = bytearray()

        def run(params: protocol.RunParams) -> protocol.RunResult:
            with open(fake.received[-1], "rb", closefd=False) as pipe:
                taken.extend(pipe.read())
            return protocol.RunResult("k3v9q2m7xd", State.RUNNING)

        fake.answers["job.run"] = run
        assert far(fake, ssh, "run", "-i", "cat", input=data).out == b"k3v9q2m7xd\n"
        assert bytes(taken) == data

    @pytest.mark.parametrize("words", [(), ("--stdout",), ("--stderr",), ("-t", "--utc"), ("--json",), ("--tail", "7")])
    def test_output_is_as_here(self, fake: FakeWorkerd, ssh: str, tmp_path: Path, words: tuple[str, ...]) -> None:
        writer = LogWriter(tmp_path)
        for number in range(20_000):  # more records than go at once, more bytes than one piece
            writer.write(1 + number % 2, b"line %d %s\n" % (number, b"\0\xff" * (number % 30)))
        writer.finish()
        fake.has_log(tmp_path)
        there, here = far(fake, ssh, "out", *words, "k3v"), ctl(fake, "out", *words, "k3v")
        assert (there.code, there.out, there.err) == (0, here.out, here.err) and here.out

    def test_output_that_is_gone_is_told(self, fake: FakeWorkerd, ssh: str, tmp_path: Path) -> None:
        writer = LogWriter(tmp_path)
        writer.write(1, b"a" * 1_000_000)
        writer.punch(300_000)
        writer.finish()
        fake.has_log(tmp_path)
        there = far(fake, ssh, "out", "k3v")
        assert there.out == b"a" * 700_000 and "300000 bytes of output are gone" in there.err

    def test_user_names_are_the_far_ones(self, fake: FakeWorkerd, ssh: str) -> None:
        fake.answers["job.list"] = lambda params: protocol.ListResult((make_job(uid=0),))
        assert far(fake, ssh, "ps", "-a", "--format", "{user}").out == b"root\n"

    def test_many_calls_share_one_ssh(self, fake: FakeWorkerd, tmp_path: Path) -> None:
        ssh = ssh_of(tmp_path, f"echo x >> {tmp_path}/count; exec {sys.executable} -m ${{command}}")
        answers_run(fake)
        fake.has_log(tmp_path)
        LogWriter(tmp_path).finish()
        assert far(fake, ssh, "run", "-f", "--rm", "true").code == 3
        assert (tmp_path / "count").read_text() == "x\n"

    def test_the_python_client(self, fake: FakeWorkerd, ssh: str, monkeypatch: pytest.MonkeyPatch) -> None:
        answers_run(fake)
        monkeypatch.setenv("WORKER_SSH", ssh)
        with Client(host=f"ssh://there{fake.path}") as client:
            assert isinstance(client.status("k3v"), Job)
            client.run(["true"], cwd="~nobody/../x")
        (params,) = fake.asked("job.run")
        assert params.spec.cwd == os.path.realpath(os.path.expanduser("~") + "/~nobody/../x")

    def test_daemon_that_is_not_there(self, tmp_path: Path, ssh: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("WORKER_SSH", ssh)
        with Client(host=f"ssh://there{tmp_path}/none") as client, pytest.raises(NotRunning):
            client.info()

    def test_is_not_for_people(self) -> None:
        master, slave = os.openpty()
        try:
            done = subprocess.run(
                [sys.executable, "-m", "workerctl", "dial-stdio"],
                stdin=slave,
                capture_output=True,
                timeout=60,
                cwd=ROOT,
            )
            assert done.returncode == 125 and b"dial-stdio speaks to a program" in done.stderr
        finally:
            os.close(master)
            os.close(slave)


def hello(**fields: object) -> bytes:
    told = {"protocol": 1, "oldest": 1, "version": "9.9", "home": "/", "umask": 18, "env": {}, **fields}
    return MAGIC + b"".join(Frame(frames.HELLO, 0, json.dumps(told).encode()).encode())


class TestUnreachable:
    @pytest.mark.parametrize(
        ("script", "told"),
        [
            ("echo 'ssh: no route' >&2; exit 255", "cannot reach there: ssh: no route"),
            ("exit 255", "cannot reach there: ssh gave up without a word"),
            ("echo 'sh: workerctl: not found' >&2; exit 127", "workerctl is not installed on there: sh: workerctl"),
            ("echo 'workerctl: Command not found.' >&2; exit 1", "workerctl is not installed on there"),
            ("exit 126", "workerctl on there cannot be executed"),
            ("echo \"workerctl: no verb 'dial-stdio'\" >&2; exit 125", "the workerctl on there is too old for -H"),
            ("echo motd; exit 0", "`workerctl dial-stdio` on there did not begin, exit code 0"),
            ("kill -9 $$", "did not begin, signal 9"),
        ],
    )
    def test_why_is_told(self, fake: FakeWorkerd, tmp_path: Path, script: str, told: str) -> None:
        done = far(fake, ssh_of(tmp_path, script), "ps")
        assert done.code == 125 and told in done.err and done.err.count("\n") == 1

    @pytest.mark.parametrize(
        ("fields", "told"),
        [
            ({"protocol": 0, "oldest": 0}, "the workerctl on there (9.9) is too old for this one"),
            ({"protocol": 9, "oldest": 8}, "is too old for the one on there (9.9): upgrade it here"),
        ],
    )
    def test_other_versions_of_the_protocol(
        self, fake: FakeWorkerd, tmp_path: Path, fields: dict[str, int], told: str
    ) -> None:
        (tmp_path / "hello").write_bytes(hello(**fields))
        done = far(fake, ssh_of(tmp_path, f"cat {tmp_path}/hello; cat > /dev/null"), "ps")
        assert done.code == 125 and told in done.err

    def test_there_is_no_ssh(self, fake: FakeWorkerd, tmp_path: Path) -> None:
        done = far(fake, str(tmp_path / "none"), "ps")
        assert done.code == 125 and "install an ssh client, or name one: WORKER_SSH" in done.err

    def test_lost_before_an_answer(self, fake: FakeWorkerd, tmp_path: Path) -> None:
        (tmp_path / "hello").write_bytes(hello())
        ssh = ssh_of(tmp_path, f"cat {tmp_path}/hello; head -c 20 >/dev/null; echo broken off >&2; exit 255")
        for words in (["ps"], ["out", "x"], ["run", "--wait", "true"], ["wait", "x"], ["exec", "x", "true"]):
            done = far(fake, ssh, *words)
            assert done.code == 125, words
            assert "the connection to there was lost (broken off); jobs there run on" in done.err

    def test_garbage_is_the_end(self, fake: FakeWorkerd, tmp_path: Path) -> None:
        (tmp_path / "hello").write_bytes(hello() + b"\xff" * 100)
        done = far(fake, ssh_of(tmp_path, f"cat {tmp_path}/hello; cat > /dev/null"), "ps")
        assert done.code == 125 and "the connection to there was lost" in done.err

    def test_what_takes_long_to_say_is_shown_at_once(self, fake: FakeWorkerd, tmp_path: Path) -> None:
        """An address to visit, say, before ssh goes on."""
        ssh = ssh_of(tmp_path, "echo 'visit https://login' >&2; read line; exit 255")
        env = {**environment(None), "WORKER_SSH": ssh}
        read_end, write_end = os.pipe()
        process = subprocess.Popen(
            [sys.executable, "-m", "workerctl", "-H", "ssh://there", "ps"], env=env, stderr=subprocess.PIPE
        )
        try:
            assert process.stderr and process.stderr.readline() == b"visit https://login\n"
            assert process.poll() is None
        finally:
            process.terminate()
            process.communicate()
            os.close(read_end)
            os.close(write_end)

    def test_a_client_raises(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("WORKER_SSH", ssh_of(tmp_path, "exit 255"))
        with pytest.raises(HostUnreachable):
            Client(host="ssh://there")


class TestOtherSystems:
    @pytest.mark.parametrize("system", ["macos", "windows"])
    def test_all_modules_are_imported(self, system: str) -> None:
        done = subprocess.run([sys.executable, ELSEWHERE, system, "import", *NEAR], capture_output=True, timeout=60)
        assert done.returncode == 0, done.stderr.decode()

    @pytest.mark.parametrize("system", ["macos", "windows"])
    def test_a_job_is_run_fed_and_followed(self, fake: FakeWorkerd, ssh: str, tmp_path: Path, system: str) -> None:
        taken = bytearray()

        def run(params: protocol.RunParams) -> protocol.RunResult:
            with open(fake.received[-1], "rb", closefd=False) as pipe:
                taken.extend(pipe.read())
            return protocol.RunResult("k3v9q2m7xd", State.RUNNING)

        answers_run(fake)
        fake.answers["job.run"] = run
        writer = LogWriter(tmp_path)
        for number in range(5000):
            writer.write(1, b"%d\n" % number, merge=False)
        writer.finish()
        fake.has_log(tmp_path)
        done = far(fake, ssh, "run", "-i", "-f", "cat", python=(str(ELSEWHERE), system), input=b"given" * 100_000)
        assert done.code == 3, done.err
        assert bytes(taken) == b"given" * 100_000
        assert done.out == b"".join(b"%d\n" % number for number in range(5000))

    @pytest.mark.parametrize("system", ["macos", "windows"])
    @pytest.mark.parametrize("words", [("ps", "-a"), ("status", "k3v"), ("inspect", "k3v"), ("wait", "k3v")])
    def test_jobs_are_shown(self, fake: FakeWorkerd, ssh: str, system: str, words: tuple[str, ...]) -> None:
        fake.answers["job.list"] = lambda params: protocol.ListResult((make_job(),))
        fake.answers["job.status"] = lambda params: make_job()
        fake.answers["job.wait"] = lambda params: protocol.WaitResult((make_job(),))
        done = far(fake, ssh, *words, python=(str(ELSEWHERE), system))
        assert (done.code, done.err) == (0, "")
        assert words[0] == "wait" or b"k3v9q2m7xd" in done.out

    def test_signals_have_the_far_numbers(self, fake: FakeWorkerd, ssh: str) -> None:
        fake.answers["job.kill"] = lambda params: make_job(state=State.RUNNING)
        assert far(fake, ssh, "signal", "USR1", "k3v", python=(str(ELSEWHERE), "macos")).code == 0
        assert fake.asked("job.kill")[0].signal == 10
        table = {f"SIG{name}": number for number, name in enumerate(signals.ELSEWHERE.split(), 1)}
        assert table.items() <= signals.known().items()

    def test_without_another_machine_windows_is_told_so(self) -> None:
        done = Ran(
            subprocess.run(
                [sys.executable, ELSEWHERE, "windows", "ps"], env=environment(None), capture_output=True, timeout=60
            )
        )
        assert done.code == 125 and "workerd runs on Linux alone: name the machine, as with -H ssh://HOST" in done.err

    @pytest.mark.parametrize("words", [("run", "-it", "sh"), ("attach", "x"), ("top",)])
    def test_a_terminal_from_windows_is_refused(self, fake: FakeWorkerd, ssh: str, words: tuple[str, ...]) -> None:
        done = far(fake, ssh, *words, python=(str(ELSEWHERE), "windows"))
        assert done.code == 125 and "terminal" in done.err and "Error" not in done.err


class TestCost:
    def test_local_verbs_import_nothing_of_it(self, fake: FakeWorkerd) -> None:
        answers_run(fake)
        code = (
            "import sys, workerctl.cli; workerctl.cli.main(['run', '--wait', 'true']); "
            "print(*[name for name in sys.modules if 'remote' in name or name in ('subprocess', 'threading')])"
        )
        done = subprocess.run(
            [sys.executable, "-S", "-c", code], env=environment(fake), capture_output=True, check=True, timeout=60
        )
        assert done.stdout.split() == []
