"""What more running jobs cost: memory, a launch, a list, an idle daemon; and a list of
very many finished ones."""

from __future__ import annotations

import contextlib
import statistics
import time
from pathlib import Path

import msgspec

from tests.bench.figures import Taken, by_turns, compiled, goal, ratio, show
from tests.bench.installed import installed, private_kib
from tests.bench.launch import launched, run_bare
from tests.bench.pipelined import Pipeline
from tests.bench.rpc import SLEEP
from tests.host.daemon import Daemon
from workerctl import Client
from workerd import protocol
from workerd.job import Job, JobSpec, Reason, State
from workerd.store import Store

COUNTS = (10, 100, 1000, 5000)
SAMPLES, LAUNCHES = 40, 400
"""so many launches take a second: what the kernel still has to do with the last thousand jobs, or looks for by
itself among so many processes, is over sooner or only later"""
IDLE_SECONDS = 5.0
FINISHED = 100_000


def run() -> None:
    launches: Taken = {}
    bare: Taken = {}
    lists: Taken = {}
    with (
        installed() as daemon,
        daemon.client() as client,
        compiled("bareloop.c") as bareloop,
        compiled("launchload.c") as load,
    ):
        empty = _private(daemon)
        inits: list[int] = []
        for count in COUNTS:
            inits += _fill(daemon, client, count)
            launches[f"{count} running"] = launched(load, daemon, LAUNCHES).each
            bare[f"{count} running"] = run_bare(bareloop, daemon, LAUNCHES, f"bare-{count}")
            lists[f"{count} running"] = [_list(client) for _ in range(SAMPLES)]
            _idle(daemon, count)
            if count == COUNTS[-1]:
                _memory(daemon, empty, count, inits)
    first, last = f"{COUNTS[0]} running", f"{COUNTS[-1]} running"
    table = show("a launch among running jobs", launches, first)
    goal(f"launch among {COUNTS[-1]} / among {COUNTS[0]}", ratio(table, last), 1.2)
    show("a launch of the bare C loop's among them", bare, first)
    show("job.list, its first 100, among running jobs", lists, first)


def _fill(daemon: Daemon, client: Client, count: int) -> list[int]:
    """Until so many run; the private KiB of PID 1 of some of them."""
    missing = count - client.info().jobs_live
    pipeline = Pipeline(daemon.socket)
    for _ in pipeline.each([("job.run", SLEEP)] * missing, 8):
        pass
    pipeline.close()
    return [private_kib(job.pid) for job in _some(client) if job.pid]


def _some(client: Client) -> tuple[Job, ...]:
    answer = client.call("job.list", protocol.ListParams(limit=100))
    return tuple(answer.jobs)


def _list(client: Client) -> float:
    begin = time.perf_counter()
    _some(client)
    return (time.perf_counter() - begin) * 1000


def _private(daemon: Daemon) -> int:
    assert daemon.process is not None
    return private_kib(daemon.process.pid)


def _idle(daemon: Daemon, count: int) -> None:
    """Wake-ups of a daemon that nobody asks anything: its voluntary context switches."""
    time.sleep(1)
    before = _switches(daemon)
    time.sleep(IDLE_SECONDS)
    goal(
        f"wake-ups of an idle daemon, {count} running",
        (_switches(daemon) - before) / IDLE_SECONDS,
        0,
        relative=False,
        unit="/s",
    )


def _switches(daemon: Daemon) -> int:
    assert daemon.process is not None
    total = 0
    for task in Path(f"/proc/{daemon.process.pid}/task").iterdir():
        for line in (task / "status").read_text().splitlines():
            if line.startswith("voluntary_ctxt_switches"):
                total += int(line.split()[1])
    return total


def _memory(daemon: Daemon, empty: int, count: int, inits: list[int]) -> None:
    print(f"\nmemory, {count} sleeping jobs")
    goal("worker-init, private", statistics.median(inits), 64, relative=False, unit="KiB")
    goal("workerd with no job, private", empty / 1024, 40, relative=False, unit="MiB")
    grown = (_private(daemon) - empty) / count
    goal("workerd, more for each running job", grown, 4, relative=False, unit="KiB")


def history() -> None:
    """A filtered, paged list where very many jobs are finished."""
    with contextlib.closing(Daemon(config=f"[history]\ncount = {2 * FINISHED}\n")) as daemon:
        _record_finished(daemon.state / "state.db")
        daemon.start()
        with daemon.client() as client:
            labelled = protocol.ListParams(all=True, labels={"set": "7"}, limit=100)
            pages = {
                "the newest 100": lambda: [_timed(client, protocol.ListParams(all=True, limit=100))],
                "100 of a label": lambda: [_timed(client, labelled)],
                "100 of a label, the page after": lambda: [
                    _timed(client, msgspec.structs.replace(labelled, before=client.call("job.list", labelled).next))
                ],
            }
            table = show(f"job.list, {FINISHED} finished jobs", by_turns(pages, 10), "the newest 100")
        for row in table.rows:
            goal(f"list of {FINISHED} finished, {row.name}", row.median, 50, relative=False, unit="ms")


def _timed(client: Client, params: protocol.ListParams) -> float:
    begin = time.perf_counter()
    assert len(client.call("job.list", params).jobs) == 100
    return (time.perf_counter() - begin) * 1000


def _record_finished(path: Path) -> None:
    path.parent.mkdir(parents=True)
    store = Store.open(path)
    now = time.time_ns() // 1000
    for start in range(0, FINISHED, 1000):
        store.insert_many((_finished(number, now), {}) for number in range(start, start + 1000))
    store.close()


def _finished(number: int, now: int) -> Job:
    """An unremarkable one; each hundredth has the same label."""
    digits = "0123456789abcdefghjkmnpqrstvwxyz"
    job_id = "".join(digits[number >> shift & 31] for shift in range(45, -1, -5))
    spec = JobSpec(argv=("make", "-j4"), labels={"set": str(number % 100)})
    return Job(
        job_id,
        number % 50 + 1000,
        1000,
        (),
        spec,
        State.FINISHED,
        now - 2_000_000,
        finished=now - 1_000_000,
        reason=Reason.EXITED,
        exit_code=0,
    )
