"""A daemon kills itself at a named step of a job's start, stop or end; the next one must
find the job whole, or `start-failed` with nothing left.

`python -m tests.host.stepwise --times 20` is the long run.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import select
import signal
import sys
import time

from tests.host import steps
from tests.host.daemon import ENV, ROOT, Daemon
from tests.host.zygote import Zygote
from workerctl import Client
from workerd import errors, protocol
from workerd.job import Job, JobSpec, Reason, State

SECONDS = 60.0


class Stepwise:
    """Each step is one or more rounds: arm, start a job (and stop it), wait for the
    death, start again, look."""

    def __init__(self, times: int) -> None:
        self.times = times
        self.rounds = 0
        self.reached: set[str] = set()
        self.daemon = Daemon()
        self.work = self.daemon.base / "work"
        self.work.mkdir()
        self._zygote = Zygote(self.daemon.log, self.daemon.command()[3:], ROOT)
        self._pid, self._pidfd = -1, -1

    def run(self, names: list[str]) -> list[str]:
        """What was wrong, a line each."""
        try:
            return [wrong for name in names for number in range(self.times) for wrong in self._round(name, number)]
        finally:
            self._end(kill=True)
            self._zygote.close()
            self.daemon.close()

    def _round(self, name: str, number: int) -> list[str]:
        self.rounds += 1
        step = name.partition(":")[2]
        tag = f"{name}-{number}"
        self._start(f"{name}:1")
        # That a job runs is committed a little later, and not at all where it ends before.
        job_id = self._drive(tag, stop=step in steps.STOP, seconds=0.2 if step == "running.update" else 0)
        if self._end(kill=False):
            self.reached.add(name)
        self._start("-")
        wrong = self._look(tag, job_id, stop=step in steps.STOP)
        self._end(kill=True)
        return [f"{tag}: {text}" for text in wrong]

    def _drive(self, tag: str, *, stop: bool, seconds: float) -> str | None:
        """Ask for a job that lasts `seconds`, and to stop it; whatever of that the daemon
        lives to see."""
        script = f"echo {tag} >> marks; seq 1000; sleep {seconds:g}; exit 3"
        if stop:
            script = f"trap '' TERM; echo {tag} >> marks; seq 1000; while :; do sleep 0.05; done"
        job_id = None
        with contextlib.suppress(errors.ConnectionFailed, OSError), self._client() as client:
            spec = JobSpec(argv=("sh", "-c", script), cwd=str(self.work), labels={"tag": tag}, grace=200_000)
            job_id = client.run(spec, env=ENV).id
            if stop:
                self._until_marked(tag)
                client.stop(job_id)
            else:
                client.wait([job_id], timeout=SECONDS)
        return job_id

    def _until_marked(self, tag: str) -> None:
        deadline = time.monotonic() + SECONDS
        while not self._marks(tag) and time.monotonic() < deadline:
            time.sleep(0.01)

    def _marks(self, tag: str) -> int:
        marks = self.work / "marks"
        return marks.read_text().split().count(tag) if marks.exists() else 0

    def _look(self, tag: str, job_id: str | None, *, stop: bool) -> list[str]:
        with self._client() as client:
            params = protocol.ListParams(all=True, labels={"tag": tag})
            jobs: list[Job] = list(client.call("job.list", params).jobs)
            for job in jobs:
                if stop and job.state is not State.FINISHED:
                    client.stop(job.id)  # the daemon may have died before it recorded the wish
            ids = [job.id for job in jobs]
            jobs = list(client.wait(ids, timeout=SECONDS).finished) if ids else []
            wrong = self._judge(tag, job_id, jobs)
            for job in jobs:
                if job.reason is not Reason.START_FAILED:
                    wrong += self._look_at_output(client, job)
        return wrong + self._look_for_leftovers()

    def _judge(self, tag: str, job_id: str | None, jobs: list[Job]) -> list[str]:
        marks = self._marks(tag)
        if not jobs:
            return [f"it ran {marks} times, and there is no record"] if marks or job_id else []
        if len(jobs) > 1 or marks > 1:
            return [f"{len(jobs)} jobs, run {marks} times"]
        job = jobs[0]
        found = (job.reason, job.exit_code, job.signal)
        if marks:
            expected = {(Reason.EXITED, 3, None), (Reason.STOPPED, None, 9)}
            return [] if found in expected else [f"it ran, and is said to be {found} {job.detail}"]
        return [] if job.reason is Reason.START_FAILED else [f"it did not run, and is said to be {found}"]

    def _look_at_output(self, client: Client, job: Job) -> list[str]:
        expected = b"".join(b"%d\n" % number for number in range(1, 1001))
        data = client.call("output.read", protocol.OutputReadParams(id=job.id)).data
        return [] if data == expected else [f"{len(data)} bytes of output, {len(expected)} were written"]

    def _look_for_leftovers(self) -> list[str]:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            left = self.daemon.leftovers()
            if not left:
                return []
            time.sleep(0.02)
        return [f"left behind: {path}" for path in left]

    def _start(self, step: str) -> None:
        self._pid, self._pidfd = self._zygote.start(step)

    def _end(self, *, kill: bool) -> bool:
        """Whether it died within the time given (at once, where we kill it)."""
        if self._pidfd < 0:
            return False
        if kill:
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
        died = bool(select.select([self._pidfd], [], [], 5)[0])
        if not died:
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
            select.select([self._pidfd], [], [], 30)
        os.close(self._pidfd)
        self._pidfd = -1
        return died

    def _client(self) -> Client:
        """Once it serves, or is dead. Raises ConnectionFailed."""
        deadline = time.monotonic() + SECONDS
        while True:
            try:
                return Client(str(self.daemon.socket))
            except errors.ConnectionFailed:
                dead = bool(select.select([self._pidfd], [], [], 0)[0])
                if dead or time.monotonic() > deadline:
                    raise
                time.sleep(0.005)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=20)
    arguments = parser.parse_args()
    run = Stepwise(arguments.times)
    wrong = run.run(steps.names())
    print(f"{run.rounds} kills at {len(steps.names())} steps: {len(wrong)} wrong")
    print("".join(f"  {line}\n" for line in wrong[:40]))
    missed = sorted(set(steps.names()) - run.reached)
    print(f"  never reached: {', '.join(missed)}" if missed else "  every step was reached")
    return 1 if wrong or missed else 0


if __name__ == "__main__":
    sys.exit(main())
