"""A real workerd for a test: its own directories, socket and cgroup, and no trace after.

Everything that a test starts is ended by pid, and the cgroup that it made is removed.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from workerctl import Client
from workerd import protocol
from workerd.cgroup import find_mount
from workerd.job import Job, JobSpec

ROOT = Path(__file__).resolve().parents[2]
ENV = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
READY_SECONDS = 30.0
_numbers = itertools.count(1)


def wchan(pid: int) -> str:
    """Where in the kernel it sleeps (proc_pid_wchan(5)); nothing where it is gone."""
    try:
        return Path(f"/proc/{pid}/wchan").read_text()
    except OSError:
        return ""


class Daemon:
    """Start, stop, kill and start it again; talk to it as root."""

    def __init__(self, *arguments: str, config: str | None = None) -> None:
        mount = find_mount()
        assert mount is not None, "no cgroup2 is mounted"
        self.base = Path(tempfile.mkdtemp(prefix="worker-test-"))
        self.base.chmod(0o755)
        self.socket = self.base / "sock"
        self.state = self.base / "state"
        self.runtime = self.base / "run"
        self.cgroup = mount / f"worker-test-{os.getpid()}-{next(_numbers)}"
        self.log = self.base / "log"
        self.config = self.base / "workerd.toml"
        self.arguments = list(arguments)
        if config is not None:
            self.config.write_text(config)
            self.arguments += ["--config", str(self.config)]
        self.process: subprocess.Popen[bytes] | None = None
        self.prelude = ""
        """Python that is executed before it"""

    def command(self) -> list[str]:
        places = {
            "--socket": self.socket,
            "--state-dir": self.state,
            "--runtime-dir": self.runtime,
            "--cgroup": self.cgroup,
        }
        words = [word for option, path in places.items() for word in (option, str(path))]
        program = ["-m", "workerd"]
        if self.prelude:
            program = ["-c", f"{self.prelude}\nfrom workerd.__main__ import main\nraise SystemExit(main())"]
        return [sys.executable, *program, *words, "--allow-missing-controllers", *self.arguments]

    def start(self, **popen: Any) -> None:
        """Returns when it says that it serves; raises AssertionError with its log."""
        at = self.begin(**popen)
        self.wait_log("serving on", after=at)
        self.socket.chmod(0o666)  # the tests' other users are in no group

    def begin(self, **popen: Any) -> int:
        """Execute it; where in its log it begins."""
        with self.log.open("ab") as log:
            at = log.tell()
            self.process = subprocess.Popen(self.command(), cwd=ROOT, stderr=log, stdin=subprocess.DEVNULL, **popen)
        return at

    def wait_log(self, text: str, *, after: int = 0) -> None:
        """Until the daemon has logged `text`."""
        assert self.process is not None
        deadline = time.monotonic() + READY_SECONDS
        while text not in self.log.read_text()[after:]:
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"no {text!r} in the log of workerd:\n{self.log.read_text()}")
            time.sleep(0.01)

    def stop(self) -> int:
        """SIGTERM; its exit status. Jobs run on."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(READY_SECONDS)

    def kill(self) -> None:
        """SIGKILL; jobs run on."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(READY_SECONDS)

    def restart(self) -> None:
        """As after a crash."""
        self.kill()
        self.start()

    def client(self) -> Client:
        return Client(str(self.socket))

    def run(self, *argv: str, env: dict[str, str] | None = None, **spec: Any) -> str:
        """Start a job as root; its id."""
        with self.client() as client:
            params = protocol.RunParams(spec=JobSpec(argv=argv, **spec), env=env or ENV)
            return str(client.call("job.run", params).id)

    def wait(self, job_id: str, seconds: float = 60.0) -> Job:
        """The finished job."""
        with self.client() as client:
            params = protocol.WaitParams(ids=(job_id,), timeout=int(seconds * 1e6))
            result: protocol.WaitResult = client.call("job.wait", params)
        assert result.finished, f"{job_id} did not finish in {seconds} s"
        return result.finished[0]

    def output(self, job_id: str) -> bytes:
        """All that is kept of its output, both streams."""
        return self.output_from(job_id, 0)

    def output_from(self, job_id: str, offset: int, stream: int | None = None) -> bytes:
        """What is kept of its output from `offset` on, as there is now."""
        data = b""
        with self.client() as client:
            end = client.wait_output(job_id, 2**62, timeout=0).end
            while offset < end:
                part = client.call("output.read", protocol.OutputReadParams(job_id, offset, stream=stream))
                data += part.data
                assert part.next > offset, "no step forward"
                offset = part.next
        return data

    def shell(self, script: str, **spec: Any) -> tuple[Job, str]:
        """Run a script to its end, as root: (the finished job, its output)."""
        job = self.wait(self.run("sh", "-c", script, **spec))
        return job, self.output(job.id).decode(errors="replace")

    def ctl(self, *arguments: str, **run: Any) -> subprocess.CompletedProcess[bytes]:
        """workerctl as root."""
        command = [sys.executable, "-m", "workerctl", "--socket", str(self.socket), *arguments]
        run = {"cwd": ROOT, "capture_output": True, "timeout": 120, "stdin": subprocess.DEVNULL, **run}
        if "input" in run:
            del run["stdin"]
        return subprocess.run(command, check=False, **run)

    def processes(self) -> list[int]:
        """The pids in the jobs' cgroups."""
        found = []
        for procs in self.cgroup.glob("jobs/uid-*/job-*/cgroup.procs"):
            with contextlib.suppress(OSError):
                found += [int(pid) for pid in procs.read_text().split()]
        return found

    def leftovers(self) -> list[Path]:
        """Of jobs that run or that are not cleared yet: their cgroups and run-time files."""
        return [*self.cgroup.glob("jobs/uid-*/job-*"), *(self.runtime / "jobs").glob("*")]

    def close(self) -> None:
        """End it and its jobs; nothing may be left."""
        self.end()
        shutil.rmtree(self.base, ignore_errors=True)

    def end(self) -> None:
        """As `close`, but for its directories."""
        if self.process is not None and self.process.poll() is None:
            self.kill()
        self._kill_jobs()

    def _kill_jobs(self) -> None:
        if not self.cgroup.exists():
            return
        (self.cgroup / "cgroup.kill").write_text("1")
        deadline = time.monotonic() + READY_SECONDS
        directories = [Path(top) for top, _, _ in os.walk(self.cgroup, topdown=False)]
        for directory in directories:
            while True:
                try:
                    directory.rmdir()
                    break
                except FileNotFoundError:
                    break
                except OSError:
                    assert time.monotonic() < deadline, f"{directory} cannot be removed"
                    time.sleep(0.01)


def state_of(pid: int) -> str:
    """Of a process, one letter (proc_pid_stat(5))."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def until(true: Callable[[], bool], seconds: float = 30.0) -> None:
    """Returns once it is; raises AssertionError where that takes longer."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.01)


@contextlib.contextmanager
def running(*arguments: str, config: str | None = None) -> Iterator[Daemon]:
    daemon = Daemon(*arguments, config=config)
    try:
        daemon.start()
        yield daemon
    finally:
        daemon.close()


def as_user(
    uid: int, function: Callable[..., Any], *arguments: Any, gid: int | None = None, groups: Sequence[int] = ()
) -> Any:
    """What `function` gives, called in a child that is that user (the interpreter itself
    may lie where that user cannot read). Its exceptions are raised here."""
    import pickle

    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.close(read_end)
            os.setgroups(list(groups))
            os.setresgid(*[gid if gid is not None else uid] * 3)
            os.setresuid(uid, uid, uid)
            try:
                result = (True, function(*arguments))
            except BaseException as error:
                result = (False, error)
            with open(write_end, "wb") as pipe:
                pickle.dump(result, pipe)
            status = 0
        finally:
            os._exit(status)
    os.close(write_end)
    with open(read_end, "rb") as pipe:
        data = pipe.read()
    os.waitpid(child, 0)
    worked, result = pickle.loads(data)  # noqa: S301 - our own child's
    if worked:
        return result
    raise result
