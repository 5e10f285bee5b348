"""Another machine through ssh: a real sshd, a real workerd behind it, and what users do."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.host.daemon import ROOT, Daemon, as_user
from tests.host.screen import Screen, needs, screen_of
from tests.host.sshd import SSHD, Sshd, account, python_for, serving
from tests.processes import killed_after
from workerctl import Client
from workerd.errors import HostUnreachable, NoSuchJob, NotRunning

pytestmark = [
    pytest.mark.skipif(SSHD is None or shutil.which("ssh") is None, reason="not installed: sshd and ssh"),
    pytest.mark.timeout(180),
]
PATIENCE = 30.0


@pytest.fixture(scope="module")
def sshd() -> Iterator[Sshd]:
    with serving() as made:
        yield made


class Far:
    """workerctl -H, as root over there."""

    def __init__(self, daemon: Daemon, sshd: Sshd, user: str = "root") -> None:
        self.daemon = daemon
        self.host = sshd.host(daemon.socket, user)
        self.env = {**os.environ, "WORKER_SSH": sshd.ssh}

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "workerctl", "-H", self.host, *words]

    def ctl(
        self, *words: str, input: bytes = b"", env: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[bytes]:
        env = {**self.env, **(env or {})}
        return subprocess.run(
            self.command(*words), cwd=ROOT, env=env, input=input, capture_output=True, timeout=120, check=False
        )

    def begin(self, *words: str) -> subprocess.Popen[bytes]:
        pipe = subprocess.PIPE
        return subprocess.Popen(
            self.command(*words), cwd=ROOT, env=self.env, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe
        )


@pytest.fixture
def far(daemon: Daemon, sshd: Sshd) -> Far:
    return Far(daemon, sshd)


def ssh_of(process: subprocess.Popen[bytes]) -> int:
    """The pid of the ssh that a workerctl has started."""
    return int(subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, check=True).stdout)


class TestRun:
    @pytest.mark.parametrize(("script", "code"), [("exit 3", 3), ("kill -9 $$", 137), ("true", 0)])
    def test_the_exit_code_is_the_jobs(self, far: Far, script: str, code: int) -> None:
        done = far.ctl("run", "--wait", "sh", "-c", script)
        assert (done.returncode, done.stdout, done.stderr) == (code, b"", b"")

    def test_a_command_that_there_is_not(self, far: Far) -> None:
        done = far.ctl("run", "no-such-command")
        assert (done.returncode, done.stderr) == (127, b"workerctl: command not found: no-such-command\n")

    def test_follow_keeps_the_streams_apart_to_the_last_byte(self, far: Far) -> None:
        script = "for i in 1 2 3; do echo out$i; echo err$i >&2; sleep 0.1; done; printf end; exit 4"
        done = far.ctl("run", "-f", "sh", "-c", script)
        assert (done.returncode, done.stdout) == (4, b"out1\nout2\nout3\nend")
        assert done.stderr == b"err1\nerr2\nerr3\n"

    def test_runs_in_the_far_home_with_the_far_environment_alone(self, far: Far) -> None:
        script = "pwd; echo $HOME $LEAK $GIVEN; umask"
        done = far.ctl("run", "-f", "-e", "GIVEN", "sh", "-c", script, env={"LEAK": "no", "GIVEN": "yes", "HOME": "/x"})
        home = os.path.realpath(os.path.expanduser("~root"))
        assert done.stdout.decode().splitlines()[:2] == [home, f"{home} yes"]

    def test_paths_are_the_far_ones(self, far: Far, tmp_path: Path) -> None:
        (tmp_path / "real").mkdir()
        (tmp_path / "link").symlink_to("real")
        job = far.ctl("run", "-w", f"{tmp_path}/link", "true").stdout.decode().strip()
        assert far.daemon.wait(job).spec.cwd == f"{tmp_path}/real"
        home = os.path.realpath(os.path.expanduser("~root"))
        job = far.ctl("run", "-w", "/", "--ro", "x/../.", "true").stdout.decode().strip()
        assert far.daemon.wait(job).spec.mounts[0].target == home

    def test_the_whole_local_environment_is_not_sent(self, far: Far) -> None:
        done = far.ctl("run", "-E", "true")
        assert done.returncode == 125 and b"--env-all with -H" in done.stderr


class TestInput:
    def test_a_big_pipe_arrives_whole(self, far: Far) -> None:
        data = os.urandom(5_000_000)
        done = far.ctl("run", "-i", "--wait", "cat", input=data)
        assert done.returncode == 0 and done.stdout == data

    def test_without_waiting_it_stays_until_all_is_there(self, far: Far) -> None:
        job = far.ctl("run", "-i", "sh", "-c", "sleep 0.5; wc -c", input=b"x" * 1_000_000).stdout.decode().strip()
        far.daemon.wait(job)
        assert far.daemon.output(job) == b"1000000\n"

    def test_it_leaves_when_nobody_reads(self, far: Far) -> None:
        read_end, write_end = os.pipe()  # which never ends
        process = subprocess.Popen(
            far.command("run", "-i", "--wait", "true"), cwd=ROOT, env=far.env, stdin=read_end, stderr=subprocess.PIPE
        )
        try:
            assert process.wait(PATIENCE) == 0
        finally:
            process.kill()
            process.communicate()
            os.close(read_end)
            os.close(write_end)


class TestOutput:
    @pytest.fixture(scope="class")
    @classmethod
    def big(cls, daemon: Daemon, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, bytes]:
        """A job with 20 MB of binary output, and these."""
        data = os.urandom(20_000_000)
        path = tmp_path_factory.mktemp("data") / "big"
        path.write_bytes(data)
        with path.open("rb") as file:
            job = daemon.ctl("run", "-i", "cat", stdin=file).stdout.decode().strip()
        assert daemon.wait(job).exit_code == 0
        return job, data

    def test_is_byte_exact(self, far: Far, big: tuple[str, bytes]) -> None:
        job, data = big
        assert far.ctl("out", job).stdout == data
        assert far.ctl("out", "--stdout", job).stdout == data

    def test_the_end_alone(self, far: Far, big: tuple[str, bytes]) -> None:
        job, data = big
        expected = far.daemon.ctl("out", "--tail", "3", job).stdout
        assert far.ctl("out", "--tail", "3", job).stdout == expected and data.endswith(expected)

    def test_is_never_held_whole(self, far: Far, daemon: Daemon) -> None:
        words = ("run", "--max-output", "256M", "head", "-c", "150M", "/dev/zero")
        job = daemon.wait(daemon.ctl(*words).stdout.decode().strip()).id
        process = far.begin("out", job)
        assert process.stdout
        size = len(process.stdout.read(1))
        ends = [dial_pid(daemon), process.pid]
        while size < 140_000_000:
            size += len(process.stdout.read(1 << 20))
        assert max(peak_of(pid) for pid in ends) < 80_000
        size += len(process.stdout.read())
        process.communicate()
        assert (size, process.returncode) == (150 << 20, 0)

    def test_two_follow_one_job_at_once(self, far: Far) -> None:
        job = far.ctl("run", "sh", "-c", "for i in $(seq 40); do echo $i; sleep 0.05; done").stdout.decode().strip()
        both = [far.begin("out", "-f", job) for _ in range(2)]
        expected = "".join(f"{number}\n" for number in range(1, 41)).encode()
        for process in both:
            out, err = process.communicate(timeout=PATIENCE)
            assert (process.returncode, out, err) == (0, expected, b"")

    def test_timestamps_match_and_json_are_as_here(self, far: Far) -> None:
        job = far.daemon.shell("echo a; echo b >&2; printf c")[0].id
        for words in (["-t", "--utc"], ["--json"], ["--stderr"], ["--since", "1h"], ["--until", "1h"]):
            assert far.ctl("out", *words, job).stdout == far.daemon.ctl("out", *words, job).stdout
        assert far.ctl("wait", "--match", "b", job).stdout == b"b\n"

    def test_bytes_that_are_gone_are_told(self, far: Far) -> None:
        job = far.ctl("run", "--max-output", "1M", "head", "-c", "4M", "/dev/zero").stdout.decode().strip()
        far.daemon.wait(job)
        here, there = far.daemon.ctl("out", job), far.ctl("out", job)
        assert there.stdout == here.stdout and there.stderr == here.stderr and b"are gone" in there.stderr


def peak_of(pid: int) -> int:
    """The most memory that a process has had, in kB (proc(5), VmHWM)."""
    return int(re.findall(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())[0])


def dial_pid(daemon: Daemon) -> int:
    """The far end that speaks with this daemon, the youngest."""
    found = subprocess.run(["pgrep", "-n", "-f", "workerctl dial-stdio$"], capture_output=True, check=True)
    return int(found.stdout)


class TestOtherVerbs:
    def test_ps_status_stop_wait(self, far: Far) -> None:
        job = far.ctl("run", "--name", "lasting", "sleep", "1000").stdout.decode().strip()
        assert job in far.ctl("ps", "-q").stdout.decode()
        assert re.search(rb"user +root", far.ctl("status", "lasting").stdout)
        assert far.ctl("stop", "--grace", "0", "lasting").returncode == 0
        assert far.ctl("wait", job).returncode == 128 + signal.SIGTERM
        assert far.ctl("wait", "nothing").stderr.startswith(b"workerctl: no such job")

    def test_events_come_as_they_happen(self, far: Far) -> None:
        job = far.ctl("run", "sleep", "1000").stdout.decode().strip()
        process = far.begin("events", "--json", "--since", "first", job)
        assert process.stdout
        try:
            while b'"running"' not in process.stdout.readline():
                pass
            far.ctl("stop", "--grace", "0", job)
            while b'"finished"' not in process.stdout.readline():
                pass
        finally:
            process.kill()
            process.communicate()

    def test_exec_has_all_that_the_command_wrote(self, far: Far) -> None:
        job = far.ctl("run", "sleep", "1000").stdout.decode().strip()
        done = far.ctl("exec", job, "sh", "-c", "head -c 1000000 /dev/zero; echo e >&2; exit 7")
        assert (done.returncode, len(done.stdout), done.stderr) == (7, 1_000_000, b"e\n")
        data = os.urandom(3_000_000)
        assert far.ctl("exec", "-i", job, "cat", input=data).stdout == data
        far.ctl("stop", "--grace", "0", job)

    def test_exec_ends_with_its_client(self, far: Far) -> None:
        job = far.ctl("run", "sleep", "1000").stdout.decode().strip()
        process = far.begin("exec", job, "sh", "-c", "echo up; exec sleep 2000")
        assert process.stdout and process.stdout.readline() == b"up\n"
        process.kill()
        process.communicate()
        deadline = time.monotonic() + PATIENCE
        while b"2000" in far.ctl("exec", job, "ps", "ax").stdout:
            assert time.monotonic() < deadline
        far.ctl("stop", "--grace", "0", job)

    def test_the_python_client(self, far: Far, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("WORKER_SSH", far.env["WORKER_SSH"])
        with Client(host=far.host) as client:
            job = client.run(["sh", "-c", "wc -c; pwd"], stdin=b"12345")
            assert client.wait([job]).finished[0].exit_code == 0
            home = os.path.realpath(os.path.expanduser("~root"))
            assert b"".join(piece.data for piece in client.stream(job)) == f"5\n{home}\n".encode()
            with pytest.raises(NoSuchJob):
                client.status("nothing")


CLIENTS = {
    "closed": "with Client(host=host) as client: client.result(client.run(['cat'], stdin=b'x')).check()",
    "closed twice": "client = Client(host=host); client.info(); client.close(); client.info(); client.close()",
    "left open": "client = Client(host=host); client.info()",
    "left open, by the environment": "os.environ['WORKER_HOST'] = host; client = Client(); client.info()",
    "a stream left": "client = Client(host=host); pieces = client.stream(client.run(['echo', 'x'])); next(pieces)",
}


class TestClosing:
    """In Python's development mode all that is not closed is told of on stderr."""

    @pytest.mark.parametrize("name", CLIENTS)
    def test_of_a_python_client_leaves_nothing_open(self, far: Far, name: str) -> None:
        code = f"import os\nfrom workerctl import Client\nhost = {far.host!r}\n{CLIENTS[name]}"
        strict = [sys.executable, "-X", "dev", "-W", "error", "-c", code]
        done = subprocess.run(strict, cwd=ROOT, env=far.env, capture_output=True, timeout=120, check=False)
        assert (done.returncode, done.stderr) == (0, b"")

    def test_of_a_command_line_that_asked_for_a_stop_leaves_nothing_open(self, far: Far) -> None:
        script = "trap '' INT; echo up; while :; do sleep 0.1; done"
        words = [sys.executable, "-X", "dev", "-W", "error", *far.command("run", "-f", "sh", "-c", script)[1:]]
        pipe = subprocess.PIPE
        with killed_after(subprocess.Popen(words, cwd=ROOT, env=far.env, stdout=pipe, stderr=pipe)) as process:
            assert process.stdout and process.stderr and process.stdout.readline() == b"up\n"
            process.send_signal(signal.SIGINT)
            assert b"sending SIGINT" in process.stderr.readline()
            process.send_signal(signal.SIGINT)
            told = process.stderr.read().decode().splitlines()
            assert process.wait(PATIENCE) == 143
        assert [line.partition(" ")[0] for line in told] == ["workerctl:"] * 2, told


class TestLoss:
    def test_killed_in_the_middle_of_following_it_says_so_and_the_job_goes_on(self, far: Far) -> None:
        process = far.begin("run", "-f", "--name", "goes-on", "sh", "-c", "echo up; sleep 1000")
        assert process.stdout and process.stdout.readline() == b"up\n"
        os.kill(ssh_of(process), signal.SIGKILL)
        _, err = process.communicate(timeout=PATIENCE)
        assert process.returncode == 125
        assert b"the connection to root@127.0.0.1" in err and b"was lost" in err and b"jobs there run on" in err
        assert far.daemon.ctl("stop", "--grace", "0", "goes-on").returncode == 0

    def test_the_far_end_goes_with_it(self, far: Far) -> None:
        process = far.begin("run", "-f", "--name", "left", "sh", "-c", "echo up; sleep 1000")
        assert process.stdout and process.stdout.readline() == b"up\n"
        pid = dial_pid(far.daemon)
        process.kill()
        process.communicate()
        deadline = time.monotonic() + PATIENCE
        while Path(f"/proc/{pid}").exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert far.daemon.ctl("stop", "--grace", "0", "left").returncode == 0

    def test_a_restart_of_workerd_is_not_noticed(self, own_daemon: Daemon, sshd: Sshd) -> None:
        far = Far(own_daemon, sshd)
        process = far.begin("run", "-f", "sh", "-c", "echo up; sleep 3; echo down; exit 6")
        assert process.stdout and process.stdout.readline() == b"up\n"
        own_daemon.restart()
        out, err = process.communicate(timeout=PATIENCE)
        assert (process.returncode, out) == (6, b"down\n") and b"trying again" in err


class TestUnreachable:
    def test_a_machine_without_workerctl(self, daemon: Daemon) -> None:
        with serving(installed=False) as bare:
            done = Far(daemon, bare).ctl("ps")
        assert done.returncode == 125
        assert b"workerctl is not installed on root@127.0.0.1" in done.stderr and b"not found" in done.stderr

    def test_one_whose_workerctl_is_too_old(self, daemon: Daemon) -> None:
        with serving(installed=False) as old:
            old.install("echo \"workerctl: no verb 'dial-stdio'\" >&2; exit 125;")
            done = Far(daemon, old).ctl("ps")
        assert done.returncode == 125 and b"is too old for -H: upgrade worker there" in done.stderr

    def test_what_ssh_says_is_in_the_error(self, daemon: Daemon, far: Far) -> None:
        with serving() as gone:
            host = gone.host(daemon.socket)
        done = far.ctl("-H", host, "ps")
        assert done.returncode == 125 and done.stderr.count(b"\n") == 1
        assert b"cannot reach root@127.0.0.1" in done.stderr and b"Connection refused" in done.stderr
        done = far.ctl("ps", "-H", far.host.replace("root@", "nobody-there@"))
        assert done.returncode == 125 and b"Permission denied" in done.stderr

    def test_a_machine_without_workerd(self, far: Far, sshd: Sshd, monkeypatch: pytest.MonkeyPatch) -> None:
        done = far.ctl("-H", sshd.host(""), "--socket", "/nowhere", "ps")
        assert done.returncode == 125
        assert done.stderr.endswith(b": workerd is not running: nobody listens on /nowhere\n")
        monkeypatch.setenv("WORKER_SSH", sshd.ssh)
        with pytest.raises(NotRunning), Client(host=sshd.host("/nowhere")) as client:
            client.info()
        with pytest.raises(HostUnreachable):
            Client(host="ssh://127.0.0.1:1")


class TestOwnership:
    def test_the_far_user_is_who_decides(self, daemon: Daemon) -> None:
        with serving() as sshd, account() as (name, uid):
            if (python := python_for(uid)) is None or not as_user(uid, os.access, f"{ROOT}/workerctl", os.R_OK):
                pytest.skip("no Python 3.11 that another user may run, or the sources are not readable for them")
            sshd.install(f"PYTHONPATH={ROOT} exec {python} -m workerctl")
            theirs, roots = Far(daemon, sshd, name), daemon.run("sleep", "1000")
            done = theirs.ctl("run", "-f", "sh", "-c", "id -u; pwd; touch here && echo written")
            assert done.stdout.decode().splitlines()[::2] == [str(uid), "written"], done.stderr
            assert theirs.ctl("stop", roots).stderr.endswith(b"no such job: " + roots.encode() + b"\n")
            assert roots not in theirs.ctl("ps", "-a").stdout.decode()
            assert name in theirs.ctl("ps", "-a").stdout.decode()
            refused = theirs.ctl("run", "--user", "root", "true")
            assert refused.returncode == 125 and b"admin" in refused.stderr
            daemon.ctl("stop", "--grace", "0", roots)


@needs("bash")
class TestTerminal:
    @pytest.fixture
    def screen(self, daemon: Daemon, far: Far) -> Iterator[Screen]:
        with screen_of(daemon) as made:
            made.type(f"export WORKER_SSH='{far.env['WORKER_SSH']}' WORKER_HOST={far.host}; clear\n")
            made.wait(r"\A(host> )?\n*host>$|^host>$")
            yield made

    def test_a_shell_has_size_keys_and_its_exit_code(self, screen: Screen) -> None:
        shell_in(screen)
        screen.type("tty; stty size; echo $TERM\n")
        screen.wait(r"^/dev/pts/0\n24 80\nscreen\n")
        screen.resize(100, 30)
        screen.type("clear; stty size\n")
        screen.wait(r"^30 100$")
        screen.type("sleep 1000\n")
        screen.keys("C-c")
        screen.wait(r"\^C\njob>$")
        screen.type("exit 5\n")
        screen.wait(r"^host>$")
        screen.type("echo code $?\n")
        screen.wait(r"^code 5$")
        screen.sane()

    def test_left_it_runs_on_and_attach_comes_back(self, screen: Screen) -> None:
        shell_in(screen, "--name", "far-shell")
        screen.keys("C-p", "C-q")
        screen.wait(r"^workerctl: detached from job")
        screen.type("clear; w attach far-shell\n")
        screen.type("\necho back again\n")
        screen.wait(r"^back again$")
        screen.type("exit\n")
        screen.wait(r"^host>$")

    def test_a_shell_by_exec(self, screen: Screen, daemon: Daemon) -> None:
        daemon.run("sleep", "1000", name="for-exec")
        screen.type("w exec -it -e PS1='inner> ' for-exec bash --norc --noprofile -i\n")
        screen.wait(r"^inner>$")
        screen.resize(90, 28)
        screen.type("stty size\n")
        screen.wait(r"^28 90$")
        screen.type("exit 3\n")
        screen.wait(r"^host>$")
        screen.type("echo code $?\n")
        screen.wait(r"^code 3$")
        screen.sane()
        daemon.ctl("stop", "--grace", "0", "for-exec")

    def test_when_ssh_is_killed_the_terminal_is_restored(self, screen: Screen, daemon: Daemon) -> None:
        shell_in(screen, "--name", "cut-off")
        client = subprocess.run(["pgrep", "-f", "workerctl run .*cut-off"], capture_output=True, check=True).stdout
        os.kill(int(subprocess.run(["pgrep", "-P", client.split()[0]], capture_output=True).stdout), signal.SIGKILL)
        screen.wait(r"^workerctl: the connection to root@127.0.0.1")
        screen.type("echo code $?\n")
        screen.wait(r"^code 125$")
        screen.sane()
        assert daemon.ctl("stop", "--grace", "0", "cut-off").returncode == 0

    def test_ctrl_c_beside_follow_goes_to_the_job_and_not_to_ssh(self, screen: Screen) -> None:
        screen.type(
            "clear; w run -f sh -c 'trap \"echo caught; exit 9\" INT; echo ready; while :; do sleep 0.1; done'\n"
        )
        screen.wait(r"^ready$")
        screen.keys("C-c")
        screen.wait(r"^caught$")
        screen.type("echo code $?\n")
        screen.wait(r"^code 9$")


def shell_in(screen: Screen, *options: str) -> None:
    screen.type(f"w run -it {' '.join(options)} -e PS1='job> ' bash --norc --noprofile -i\n")
    screen.wait(r"^job>$")
