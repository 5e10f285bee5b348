"""One system call after another fails, in the daemon and in worker-init, around a job's
start, end and stop and the daemon's own start; after each, nothing is lost or half made.

`python -m tests.host.faults` is the long run: every call, until all of them have been
made and none failed. A stride takes every so-manieth.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import os
import select
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.host import faultlib
from tests.host.daemon import ENV, ROOT, Daemon
from tests.host.zygote import Zygote
from workerctl import Client
from workerd import errors, protocol
from workerd.job import Job, JobSpec, Reason, State

PATIENCE = 30.0
"""seconds that one case may take before the daemon counts as hung"""
OUTPUT = b"".join(b"%d\n" % number for number in range(1, 201))
WORK = "seq 200; exit 3"
Ends = set[tuple[Reason, int | None, int | None]]
UNSTOPPED: Ends = {(Reason.EXITED, 3, None)}
STOPPED: Ends = {(Reason.STOPPED, None, 15), (Reason.STOPPED, None, 9), (Reason.STOPPED, 3, None)}


@dataclass
class Asked:
    """One job of a case, and what its client was told."""

    tag: str
    id: str | None = None
    refused: str | None = None
    """neither: the connection broke before there was an answer"""


@dataclass
class Result:
    cases: int = 0
    wrong: list[str] = field(default_factory=list)
    failed: Counter[str] = field(default_factory=Counter)
    """how often which call failed"""
    deaths: Counter[str] = field(default_factory=Counter)
    """of which calls the daemon died, to be started again"""

    def text(self) -> str:
        calls = ", ".join(f"{name} {count}" for name, count in self.failed.most_common())
        deaths = ", ".join(f"{name} {count}" for name, count in self.deaths.most_common()) or "none"
        wrong = "".join(f"  {line}\n" for line in self.wrong[:60])
        summary = f"{self.cases} calls failed, {len(self.wrong)} wrong; the daemon died of {deaths}"
        return f"{summary}\n  {calls}\n{wrong}"


class Faults:
    """Owns the daemons; `run` is called once."""

    def __init__(self, *, stride: int = 1, first: int = 1, only: str = "") -> None:
        self.stride, self.first, self.only = stride, first, only
        self.result = Result()
        self.daemon = Daemon()
        self.work = self.daemon.base / "work"
        self.work.mkdir()
        self.control = faultlib.Control(self.daemon.base / "control")
        library = faultlib.build_library(self.daemon.base)
        self.init = faultlib.build_init(self.daemon.base)
        env = {"LD_PRELOAD": str(library), "WORKER_FAULTS": str(self.control.path)}
        arguments = [*self.daemon.command()[3:], "--init", str(self.init)]
        self._zygote = Zygote(self.daemon.log, arguments, ROOT, env)
        self._pidfd, self._pid = -1, -1
        self._hung = False

    def run(self, phases: list[str]) -> Result:
        """Raises nothing for what is wrong: that is in the result."""
        try:
            for phase in phases:
                for error in faultlib.ERRORS:
                    self._phase(phase, error)
                    print(f"  {errno.errorcode[error]}: {self.result.text()}", flush=True)
        finally:
            self._end()
            self._zygote.close()
            self.control.close()
            self.daemon.close()
        return self.result

    def _phase(self, phase: str, error: int) -> None:
        """Until a case passes in which no call failed."""
        for at in range(self.first, 100_000, self.stride):
            case = f"{phase}-{errno.errorcode[error]}-{at}"
            with self._watchdog(case):
                fired = PHASES[phase](self, case, at, error)
            if fired is None:
                return
            self.result.cases += 1
            self.result.failed[fired] += 1

    # ── the phases: each gives the name of the call that failed ──

    def _start_and_end(self, case: str, at: int, error: int) -> str | None:
        self._ensure()
        self.control.arm(at, error, self.only)
        asked = self._ask(case, f"echo {case} >> marks; {WORK}")
        self._wait(asked)
        fired = self._disarmed()
        self._look(case, fired, {asked.tag: (asked, UNSTOPPED)})
        return fired

    def _stop(self, case: str, at: int, error: int) -> str | None:
        self._ensure()
        script = f"trap '{WORK}' TERM; echo {case} >> marks; while :; do sleep 0.01; done"
        asked = self._ask(case, script)
        self._until_marked(case)
        self.control.arm(at, error, self.only)
        self._stop_job(asked)
        fired = self._disarmed()
        self._look(case, fired, {asked.tag: (asked, STOPPED)})
        return fired

    def _recovery(self, case: str, at: int, error: int) -> str | None:
        """One job runs on, one ends while there is no daemon, one waits; and a cgroup is
        left of one that was finished."""
        self._ensure()
        (self.work / "go").unlink(missing_ok=True)
        os.mkfifo(self.work / "go")
        running = self._ask(f"{case}-a", f"echo {case}-a >> marks; read line < go; {WORK}")
        ending = self._ask(f"{case}-b", f"echo {case}-b >> marks; {WORK}")
        waiting = self._ask(f"{case}-c", f"echo {case}-c >> marks; {WORK}", delay=400_000)
        self._end()
        (self.daemon.cgroup / "jobs/uid-0/job-stray22222").mkdir(parents=True, exist_ok=True)
        self.control.arm(at, error, self.only)
        self._start()
        self._ensure()
        fired = self._disarmed()
        (self.work / "go").write_text("on\n")
        for asked in (running, ending, waiting):
            self._wait(asked)
        self._look(case, fired, {asked.tag: (asked, UNSTOPPED) for asked in (running, ending, waiting)})
        return fired

    def _init(self, case: str, at: int, error: int) -> str | None:
        """Calls of worker-init, not of the daemon's."""
        self._ensure()
        control = faultlib.Control(self.work / "init-control")
        try:
            control.arm(at, error, self.only)
            env = {**ENV, "WORKER_FAULTS": str(control.path)}
            asked = self._ask(case, f"echo {case} >> marks; {WORK}", env=env)
            self._wait(asked)
            fired = control.fired()
        finally:
            control.close()
        self._look(case, fired, {asked.tag: (asked, UNSTOPPED)}, init=True)
        return fired

    # ── asking ──

    def _ask(self, tag: str, script: str, *, env: dict[str, str] | None = None, delay: int | None = None) -> Asked:
        asked = Asked(tag)
        spec = JobSpec(argv=("sh", "-c", script), cwd=str(self.work), labels={"tag": tag}, grace=500_000)
        try:
            with self._client() as client:
                params = protocol.RunParams(spec=spec, env=env or ENV, delay=delay)
                asked.id = client.call("job.run", params).id
        except (errors.ConnectionFailed, OSError):
            pass
        except errors.WorkerError as error:
            asked.refused = f"{type(error).__name__}: {error}"
        return asked

    def _wait(self, asked: Asked) -> None:
        """However often it has to be asked."""
        while asked.id is not None and not self._hung:
            with contextlib.suppress(errors.ConnectionFailed, OSError, errors.InternalError, errors.Exhausted):
                with self._client() as client:
                    client.wait([asked.id], timeout=PATIENCE)
                return
            self._ensure()

    def _stop_job(self, asked: Asked) -> None:
        while asked.id is not None and not self._hung:
            with contextlib.suppress(errors.ConnectionFailed, OSError, errors.InternalError, errors.Exhausted):
                with self._client() as client:
                    client.stop(asked.id)
                return
            self._ensure()

    def _until_marked(self, tag: str) -> None:
        while not self._marks(tag) and not self._hung:
            time.sleep(0.005)

    def _marks(self, tag: str) -> int:
        marks = self.work / "marks"
        return marks.read_text().split().count(tag) if marks.exists() else 0

    # ── looking ──

    def _disarmed(self) -> str | None:
        self.control.disarm()
        return self.control.fired()

    def _look(
        self,
        case: str,
        fired: str | None,
        expected: dict[str, tuple[Asked, Ends]],
        *,
        init: bool = False,
    ) -> None:
        self._ensure()
        for tag, (asked, ends) in expected.items():
            for wrong in self._judge(tag, asked, ends, init=init):
                self.result.wrong.append(f"{case} ({fired}): {wrong}")
        for left in self._leftovers():
            self.result.wrong.append(f"{case} ({fired}): left behind: {left}")
        if self._hung:
            self.result.wrong.append(f"{case} ({fired}): something hung for {PATIENCE:.0f} s")
            self._hung = False

    def _judge(self, tag: str, asked: Asked, ends: Ends, *, init: bool) -> Iterator[str]:
        params = protocol.ListParams(all=True, labels={"tag": tag})
        marks = self._marks(tag)
        with self._client() as client:
            jobs: list[Job] = list(client.call("job.list", params).jobs)
            if jobs and asked.id is None and asked.refused is None:
                # Nobody was told of it, and so nobody waited for it.
                jobs = list(client.wait([jobs[0].id], timeout=PATIENCE).finished) or jobs
            if jobs and jobs[0].state is not State.FINISHED:
                yield f"it is still {jobs[0].state}"
                return
            if len(jobs) > 1 or marks > 1:
                yield f"{len(jobs)} jobs, run {marks} times"
            elif not jobs:
                if marks or asked.id:
                    yield f"no record of a job ({asked.id}) that ran {marks} times"
            elif marks and init and jobs[0].start_error is not None and jobs[0].start_error.step == "capabilities":
                # PID 1 could not give up its privileges, which it needs to start the command:
                # everything was killed, and it says so.
                return
            elif marks != (jobs[0].reason is not Reason.START_FAILED):
                yield f"it ran {marks} times: {_words(jobs[0])}"
            elif marks and asked.refused:
                yield f"it ran, and was refused: {asked.refused}"
            elif marks and (jobs[0].reason, jobs[0].exit_code, jobs[0].signal) not in ends:
                yield f"it ran, and is said to be {_words(jobs[0])}"
            elif marks and jobs[0].exit_code is not None:
                data = client.call("output.read", protocol.OutputReadParams(id=jobs[0].id)).data
                told = jobs[0].output_lost if init else 0
                if data != OUTPUT and not (told and len(data) + told == len(OUTPUT)):
                    yield f"{len(data)} bytes of output of {len(OUTPUT)}, {told} are said to be lost"

    def _leftovers(self) -> list[str]:
        """What is not as it was, once another job has come and gone."""
        if not self._left():
            return []
        asked = self._ask("-", "true")
        self._wait(asked)
        deadline = time.monotonic() + 5
        while (left := self._left()) and time.monotonic() < deadline:
            time.sleep(0.01)
        if left:
            self._clean()
        return left

    def _clean(self) -> None:
        """The next case is to begin with nothing."""
        self._end()
        self._ensure()
        with contextlib.suppress(errors.WorkerError, OSError), self._client() as client:
            for job in client.list():
                client.call("job.stop", protocol.StopParams(job.id, grace=0))

    def _left(self) -> list[str]:
        jobs = self.daemon.state / "jobs"
        left = self.daemon.leftovers()
        left += [path for path in jobs.iterdir() if not (path / "job").exists()]
        return [str(path) for path in left] + self._more_than_before()

    def _more_than_before(self) -> list[str]:
        """Descriptors and zombies of the daemon that it has beyond those of its own."""
        names = Counter(_kind(name) for name in _links(Path(f"/proc/{self._pid}/fd")))
        names.subtract(self._fds)
        return [f"descriptors of {name}: {count}" for name, count in names.items() if count > 0 and name != "socket"]

    # ── the daemon ──

    def _start(self) -> None:
        self._pid, self._pidfd = self._zygote.start("faults")

    def _ensure(self) -> None:
        """A daemon serves; one that died is started again, as systemd does."""
        while True:
            if self._pidfd < 0 or select.select([self._pidfd], [], [], 0)[0]:
                if self._pidfd >= 0:
                    os.close(self._pidfd)
                    if not self._hung:
                        self.result.deaths[self.control.fired() or "of its own"] += 1
                self._start()
            try:
                with Client(str(self.daemon.socket)) as client:
                    client.info()
                self._fds = Counter(_kind(name) for name in _links(Path(f"/proc/{self._pid}/fd")))
                return
            except (errors.ConnectionFailed, errors.Unavailable, errors.Exhausted, OSError, errors.InternalError):
                time.sleep(0.005)

    def _end(self) -> None:
        if self._pidfd >= 0:
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
            select.select([self._pidfd], [], [], 30)
            os.close(self._pidfd)
            self._pidfd = -1

    def _client(self) -> Client:
        return Client(str(self.daemon.socket))

    @contextlib.contextmanager
    def _watchdog(self, case: str) -> Iterator[None]:
        """A daemon that answers nobody is killed, so that everybody goes on."""

        def bite() -> None:
            self._hung = True
            print(f"{case}: hangs", file=sys.stderr, flush=True)
            with contextlib.suppress(OSError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

        timer = threading.Timer(PATIENCE, bite)
        timer.start()
        try:
            yield
        finally:
            timer.cancel()


PHASES: dict[str, Callable[[Faults, str, int, int], str | None]] = {
    "start": Faults._start_and_end,
    "stop": Faults._stop,
    "recovery": Faults._recovery,
    "init": Faults._init,
}


def _links(directory: Path) -> Iterator[str]:
    with contextlib.suppress(FileNotFoundError):
        for link in directory.iterdir():
            with contextlib.suppress(FileNotFoundError):
                yield os.readlink(link)


def _kind(name: str) -> str:
    """A descriptor's file, without what differs from one to the next."""
    return name.partition(":")[0] if ":[" in name else name


def _words(job: Job) -> str:
    what = job.reason if job.state is State.FINISHED else job.state
    return f"{what} code {job.exit_code} signal {job.signal} ({job.detail}, {job.start_error})"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stride", type=int, default=1)
    parser.add_argument("--call", default="", help="only calls of this name fail")
    parser.add_argument("--phase", action="append", choices=PHASES)
    arguments = parser.parse_args()
    wrong = 0
    for phase in arguments.phase or PHASES:
        faults = Faults(stride=arguments.stride, only=arguments.call)
        began = time.monotonic()
        result = faults.run([phase])
        wrong += len(result.wrong)
        print(f"{phase}, {time.monotonic() - began:.0f} s: {result.text()}", flush=True)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
