"""Chaos: a daemon is killed over and over while jobs start, write, end and are stopped;
then every job is held against what it really did.

Each job's script appends its own tag to a file when it runs, so that running twice, or
running and being called never started, shows. Everything is drawn from one seed.
`python -m tests.host.chaos --kills 3000 --jobs 30000 --minutes 90` is the long run.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import itertools
import os
import random
import select
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from tests.host.daemon import ENV, ROOT, Daemon
from tests.host.zygote import Zygote
from workerctl import Client
from workerd import errors, eventstore, protocol
from workerd.events import Event
from workerd.job import TRANSITIONS, Job, JobSpec, Reason, State

PATIENCE = 120.0
"""seconds in which a job that was asked for must be over, once nobody kills any more"""
LEAST_KILLS, LEAST_JOBS = 20, 50
"""fewer say nothing: on a machine that is busy with other things they take longer"""
QUICK_START = 0.3
"""seconds from a daemon's start until it serves, on a machine that is not busy"""


@dataclass
class Asked:
    """One job as it was asked for, and what became of asking."""

    tag: str
    kind: str
    lines: int
    code: int
    id: str | None = None
    """None where the daemon died before it answered"""
    found: str | None = None
    """its id then, where it was taken in all the same"""
    refused: str | None = None
    stop_answered: bool = False

    def script(self) -> str:
        # `echo >>` is one write to a file opened O_APPEND.
        work = f"seq {self.lines}; exit {self.code}"
        begin = f"echo {self.tag} >> marks; "
        if self.kind in ("quick", "queued"):
            return begin + work
        if self.kind == "slow":
            return begin + f"seq {self.lines}; sleep 0.{self.code % 9 + 1}; exit {self.code}"
        if self.kind == "stopped":
            return f"trap '{work}' TERM; {begin} while :; do sleep 0.05; done"
        if self.kind == "stubborn":
            return f"trap '' TERM; {begin} seq {self.lines}; while :; do sleep 0.05; done"
        raise ValueError(self.kind)

    def output(self) -> bytes:
        return b"".join(b"%d\n" % number for number in range(1, self.lines + 1))


@dataclass
class Findings:
    """What is wrong; empty is what is wanted."""

    lost: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    twice: list[str] = field(default_factory=list)
    bytes_lost: int = 0
    left: list[str] = field(default_factory=list)

    def good(self) -> bool:
        return not (self.lost or self.wrong or self.twice or self.bytes_lost or self.left)


class Chaos:
    def __init__(self, seed: int, jobs: int, kills: int, seconds: float, users: int = 4) -> None:
        self.random = random.Random(seed)
        self.seed = seed
        self.deadline = time.monotonic() + seconds
        self.last_deadline = self.deadline + 2 * PATIENCE
        self.most_kills = kills
        self.kills = 0
        # Every outcome is looked up at the end, however many jobs there were.
        self.daemon = Daemon(config='[history]\ncount = "unlimited"\n')
        self.marks = self.daemon.base / "work"
        self.marks.mkdir()
        self.findings = Findings()
        self.asked: list[Asked] = []
        self.outcomes: Counter[str] = Counter()
        self.events = 0
        self._todo = self._draw(jobs)
        self._lock = threading.Lock()
        self._calm = threading.Event()
        """nobody kills any more"""
        self._users = users
        self._zygote = Zygote(self.daemon.log, self.daemon.command()[3:], ROOT)
        self._pid, self._pidfd = -1, -1
        self._slowness = 1.0
        """how much longer than on a quiet machine a daemon's start took last"""

    def _draw(self, jobs: int) -> Iterator[Asked]:
        kinds = ["quick"] * 6 + ["queued"] * 4 + ["slow"] * 4 + ["stopped"] * 3 + ["stubborn"]
        for number in range(jobs):
            yield Asked(f"t{number}", self.random.choice(kinds), self.random.choice((0, 1, 50, 3000)), number % 100)

    def run(self) -> Findings:
        """Bounded by the counts and seconds given, and PATIENCE beyond them."""
        try:
            self._start()
            users = [threading.Thread(target=self._be_user, args=(number,)) for number in range(self._users)]
            for user in users:
                user.start()
            self._kill_until_done(users)
            self._calm.set()
            for user in users:
                user.join(PATIENCE)
                assert not user.is_alive(), "a client hangs"
            self._judge()
        finally:
            self._end_daemon()
            self._zygote.close()
            self.daemon.close()
        return self.findings

    # ── the daemon ──

    def _start(self, step: str = "-") -> None:
        self._pid, self._pidfd = self._zygote.start(step)

    def _end_daemon(self) -> None:
        if self._pidfd >= 0:
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
            select.select([self._pidfd], [], [], 30)
            os.close(self._pidfd)
            self._pidfd = -1

    def _kill_until_done(self, users: list[threading.Thread]) -> None:
        while not self._over():
            if not any(user.is_alive() for user in users):
                return
            # From the middle of its recovery to well into its service; not always before
            # it serves, however slow that is with many jobs on a busy machine.
            if self.random.random() < 0.7:
                self._until_it_serves()
            pause = self.random.choice((0.02, 0.05, 0.1, 0.2, 0.4)) * (0.5 + self.random.random())
            time.sleep(pause * self._slowness)
            assert select.select([self._pidfd], [], [], 0)[0] == [], f"workerd died by itself:\n{self._log_end()}"
            self._end_daemon()
            self.kills += 1
            self._start()

    def _over(self) -> bool:
        """Whether there were as many kills as were wanted, or enough when the time is over."""
        enough = self.kills >= LEAST_KILLS and len(self.asked) >= LEAST_JOBS
        until = self.deadline if enough else self.last_deadline
        return self.kills >= self.most_kills or time.monotonic() >= until

    def _until_it_serves(self) -> None:
        begin = time.monotonic()
        while time.monotonic() < begin + PATIENCE:
            with contextlib.suppress(errors.ConnectionFailed, errors.Unavailable, OSError):
                Client(str(self.daemon.socket)).close()
                self._slowness = max(1.0, (time.monotonic() - begin) / QUICK_START)
                return
            if select.select([self._pidfd], [], [], 0.01)[0]:
                return  # it died: whoever called says so

    def _log_end(self) -> str:
        return self.daemon.log.read_text()[-3000:]

    # ── its users ──

    def _be_user(self, number: int) -> None:
        chance = random.Random(self.seed * 1000 + number)
        while True:
            with self._lock:
                asked = next(self._todo, None)
                if asked is None or self._over():
                    return
                self.asked.append(asked)
            self._ask(asked)
            if asked.id is None and asked.refused is None:
                asked.found = self._look_up(asked)
            job_id = asked.id or asked.found
            if job_id is not None and asked.kind in ("stopped", "stubborn"):
                time.sleep(chance.random() * 0.1)
                self._insist("job.stop", protocol.StopParams(job_id), until=asked)

    def _ask(self, asked: Asked) -> None:
        spec = JobSpec(
            argv=("sh", "-c", asked.script()),
            cwd=str(self.marks),
            name=asked.tag,
            labels={"tag": asked.tag},
            grace=300_000,
        )
        while True:
            with contextlib.suppress(errors.NotRunning, errors.Unavailable):
                try:
                    with Client(str(self.daemon.socket)) as client:
                        delay = 0.05 if asked.kind == "queued" else 0.0
                        asked.id = client.run(spec, env=ENV, delay=delay).id
                except errors.StartFailed as error:
                    asked.refused = str(error)
                except (errors.ConnectionFailed, OSError) as error:
                    if isinstance(error, errors.NotRunning):
                        raise
                    # Whether it was taken in is not known: it shows in the end.
                return
            time.sleep(0.02)

    def _look_up(self, asked: Asked) -> str | None:
        """The id of a job whose start nobody answered for, where there is one."""
        try:
            return str(self._insist("job.status", protocol.JobParams(asked.tag)).id)
        except errors.NoSuchJob:
            return None

    def _insist(self, method: str, params: protocol.Params, until: Asked | None = None) -> Any:
        """Ask again until it is answered: for what may be asked twice."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                with Client(str(self.daemon.socket)) as client:
                    result = client.call(method, params)
                if until is not None:
                    until.stop_answered = True
                return result
            except (errors.ConnectionFailed, errors.Unavailable, OSError):
                assert time.monotonic() < deadline, f"{method} was not answered"
                time.sleep(0.03)

    # ── the verdict ──

    def _judge(self) -> None:
        by_tag: dict[str, list[Job]] = {}
        for job in self._all_jobs():
            by_tag.setdefault(job.spec.labels["tag"], []).append(job)
        known = {asked.id or asked.found for asked in self.asked}
        for job in (job for jobs in by_tag.values() for job in jobs if job.state is not State.FINISHED):
            if job.id in known:
                self._insist("job.wait", protocol.WaitParams((job.id,), timeout=int(PATIENCE * 1e6)))
            else:
                self._insist("job.stop", protocol.StopParams(job.id))
        by_tag = {}
        self._judge_events(jobs := self._all_jobs())
        for job in jobs:
            by_tag.setdefault(job.spec.labels["tag"], []).append(job)
        marks = Counter((self.marks / "marks").read_text().split()) if (self.marks / "marks").exists() else Counter()
        self.findings.twice += [tag for tag, count in marks.items() if count > 1]
        for asked in self.asked:
            self._judge_one(asked, by_tag.pop(asked.tag, []), marks[asked.tag])
        self.findings.wrong += [f"{tag}: nobody asked for it" for tag in by_tag]
        self._look_for_leftovers()

    def _judge_events(self, jobs: list[Job]) -> None:
        """Each job's events are its whole life, once, in an order that there is."""
        lives: dict[str, list[Event]] = {}
        cursors = []
        with Client(str(self.daemon.socket)) as client:
            for event in client.events("first", follow=False):
                assert event.id is not None
                cursors.append(int(event.cursor.rpartition(".")[2]))
                lives.setdefault(event.id, []).append(event)
        self.events = len(cursors)
        if cursors != sorted(set(cursors)):
            self.findings.wrong.append("events are out of order, or there twice")
        for job in jobs:
            wrong = _wrong_with(lives.get(job.id, []), job, whole=self.events < eventstore.KEPT)
            self.findings.wrong += [f"events of {job.id}: {wrong}"] if wrong else []

    def _judge_one(self, asked: Asked, jobs: list[Job], marks: int) -> None:
        if not jobs:
            if asked.id is not None:
                self.findings.lost.append(f"{asked.tag} ({asked.id}) is gone")
            elif marks:
                self.findings.lost.append(f"{asked.tag} ran without a record")
            return
        if len(jobs) > 1:
            self.findings.twice.append(asked.tag)
        job = jobs[0]
        reason = str(job.reason)
        self.outcomes[reason] += 1
        what = f"{asked.tag} {asked.kind} {job.id}: {reason} code {job.exit_code} signal {job.signal} ({job.detail})"
        if job.state is not State.FINISHED or job.reason in (Reason.LOST, None):
            self.findings.lost.append(what)
        elif job.reason is Reason.START_FAILED:
            if marks or asked.id is not None or asked.kind == "queued":
                self.findings.wrong.append(f"{what}, yet it ran")
        elif not self._as_it_was(asked, job):
            self.findings.wrong.append(what)
        elif job.exit_code is not None:
            if not marks:
                self.findings.wrong.append(f"{what}, yet it never ran")
            self._check_output(asked, job)

    def _as_it_was(self, asked: Asked, job: Job) -> bool:
        """Whether the outcome is one that this script can have."""
        unstopped = (Reason.EXITED, asked.code, None)
        found = (job.reason, job.exit_code, job.signal)
        if asked.kind == "queued" or (asked.id is not None and asked.kind in ("quick", "slow")):
            return found == unstopped
        stops = {(Reason.STOPPED, asked.code, None), (Reason.STOPPED, None, 15), (Reason.STOPPED, None, 9)}
        if asked.kind in ("quick", "slow"):
            return found in {unstopped, *stops}  # its client gave up before it knew the id: stopped by us
        if asked.kind == "stubborn":
            return found in stops - {(Reason.STOPPED, asked.code, None)}
        return found in stops

    def _check_output(self, asked: Asked, job: Job) -> None:
        expected = asked.output()
        data = b""
        with Client(str(self.daemon.socket)) as client:
            while True:
                part = client.call("output.read", protocol.OutputReadParams(id=job.id, offset=len(data)))
                data += part.data
                if not part.data:
                    break
        if asked.kind == "stopped" and data == expected * 2:
            return  # a daemon killed amid a stop sends the signal again; the trap then runs twice
        if hashlib.sha256(data).digest() != hashlib.sha256(expected).digest():
            print(f"{asked.tag} ({job.id}, {asked.kind}): {len(data)} bytes in place of {len(expected)}")
            self.findings.bytes_lost += abs(len(expected) - len(data)) or 1
        if job.output_end != len(data):
            self.findings.wrong.append(f"{asked.tag}: {len(data)} bytes of output, recorded are {job.output_end}")

    def _all_jobs(self) -> list[Job]:
        jobs: list[Job] = []
        before: str | None = None
        while True:
            answer = self._insist("job.list", protocol.ListParams(all=True, before=before))
            jobs += answer.jobs
            if (before := answer.next) is None:
                return jobs

    def _look_for_leftovers(self) -> None:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            self.findings.left = [str(path) for path in self.daemon.leftovers()]
            if not self.findings.left:
                return
            time.sleep(0.1)

    def summary(self) -> str:
        found = self.findings
        known = sum(asked.id is not None for asked in self.asked)
        outcomes = ", ".join(f"{count} {reason}" for reason, count in sorted(self.outcomes.items()))
        return (
            f"chaos, seed {self.seed}: {self.kills} kills over {len(self.asked)} jobs ({known} answered), "
            f"{self.events} events: {outcomes}\n"
            f"  {len(found.lost)} outcomes lost, {found.bytes_lost} bytes of output lost, "
            f"{len(found.twice)} jobs run twice, {len(found.wrong)} wrong, {len(found.left)} things left behind\n"
            + "".join(f"  {line}\n" for line in (*found.lost, *found.twice, *found.wrong, *found.left)[:20])
        )


def _wrong_with(life: list[Event], job: Job, *, whole: bool) -> str | None:
    """`whole`: none may have been removed to make room."""
    states = [event.state for event in life if event.state is not None]
    told = ", ".join(states)
    if not states or states[0] not in (State.STARTING, State.QUEUED):
        return f"they begin with {told or 'nothing'}" if whole else None
    if any(after not in TRANSITIONS[before] for before, after in itertools.pairwise(states)):
        return f"there is no such life: {told}"
    end = life[-1]
    if (end.state, end.reason, end.exit_code, end.signal) != (job.state, job.reason, job.exit_code, job.signal):
        return f"they end with {end}, the job is {job.state}, {job.reason}"
    return None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=3000)
    parser.add_argument("--jobs", type=int, default=30_000)
    parser.add_argument("--minutes", type=float, default=90.0)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    arguments = parser.parse_args()
    chaos = Chaos(arguments.seed, arguments.jobs, arguments.kills, arguments.minutes * 60)
    found = chaos.run()
    print(chaos.summary(), flush=True)
    return 0 if found.good() else 1


if __name__ == "__main__":
    sys.exit(main())
