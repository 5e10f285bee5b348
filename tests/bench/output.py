"""Output: into the log, out of it, live, by many at once, and under a flood.

Each beside what it is compared with, by turns, on one file system. All of it is bounded
by memory bandwidth and the disk's write-back, so run it on a quiet machine, and not under
`chrt -f`: real-time writers and readers of one pipe wait for each other's whole turn.
"""

from __future__ import annotations

import hashlib
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.bench.figures import by_turns, goal, ratio, show
from tests.host.daemon import ENV, ROOT, Daemon, running
from workerd.job import Job

GIB, MIB = 1 << 30, 1 << 20
SIZE = 2 * GIB
WRITER = f"head -c {SIZE} /dev/zero"
ROUNDS = 5
FLOOD_SECONDS = 60
FOLLOWERS = 100


def run() -> None:
    into_the_log()
    out_of_it()
    many_followers()
    one_line()
    flood()


def into_the_log() -> None:
    with running() as daemon:
        spent: list[float] = []
        cases = {
            "writer | cat > file": lambda: [_beside_file(daemon, f"{WRITER} | cat > file")],
            "job, all kept": lambda: [_job(daemon, 4 * GIB, spent)],
            "job, default cap": lambda: [_job(daemon, None, spent)],
        }
        table = show("a job that writes 2 GiB", by_turns(cases, ROUNDS), "writer | cat > file")
        goal("a job that writes 2 GiB, all kept / cat > file", ratio(table, "job, all kept"), 1 / 0.9)
        goal("the daemon's CPU time meanwhile, of the job's", statistics.mean(spent), 1, relative=False, unit="%")


def _beside_file(daemon: Daemon, script: str) -> float:
    """The file is removed at once, or the disk would be writing it while the next case is timed."""
    taken = _timed(lambda: _shell(f"cd {daemon.base}; {script}"))
    (daemon.base / "file").unlink()
    return taken


def _job(daemon: Daemon, cap: int | None, spent: list[float]) -> float:
    before = _cpu_ms(daemon)
    jobs: list[Job] = []
    taken = _timed(lambda: jobs.append(daemon.wait(daemon.run("sh", "-c", WRITER, max_output=cap), 300)))
    used = jobs[0].usage.cpu_usec if jobs[0].usage else None
    spent.append((_cpu_ms(daemon) - before) / (used / 1000 if used else taken) * 100)
    _forget(daemon)
    return taken


def out_of_it() -> None:
    with running() as daemon:
        job_id = daemon.run("sh", "-c", WRITER, max_output=4 * GIB)
        daemon.wait(job_id, 300)
        log = daemon.state / "jobs" / job_id / "output"
        cases = {
            "cat file | cat": lambda: [_timed(lambda: _shell(f"cat {log} | cat > /dev/null"))],
            "out | cat": lambda: [_timed(lambda: _shell(f"{_ctl(daemon)} out {job_id} | cat > /dev/null"))],
        }
        table = show("2 GiB out of the log", by_turns(cases, ROUNDS), "cat file | cat")
        goal("out of 2 GiB / cat file", ratio(table, "out | cat"), 1 / 0.8)
        _forget(daemon)
        live = {
            "writer | tee file | cat": lambda: [_beside_file(daemon, f"{WRITER} | tee file | cat > /dev/null")],
            "out -f | cat, live": lambda: [_timed(lambda: _live(daemon))],
        }
        table = show("2 GiB followed live", by_turns(live, ROUNDS), "writer | tee file | cat")
        goal("2 GiB followed live / tee file", ratio(table, "out -f | cat, live"), 1 / 0.8)


def _live(daemon: Daemon) -> None:
    job_id = daemon.run("sh", "-c", WRITER, max_output=4 * GIB)
    _shell(f"{_ctl(daemon)} out -f {job_id} | cat > /dev/null")
    daemon.wait(job_id, 300)
    _forget(daemon)


def many_followers() -> None:
    size = 100 * MIB
    with running() as daemon, tempfile.TemporaryDirectory(prefix="worker-bench-") as folder:
        go = Path(folder) / "go"
        wait = f"while [ ! -e {go} ]; do sleep 0.05; done; "
        code = (
            f"import random, os\nr = random.Random(5)\nfor i in range({size // MIB}): os.write(1, r.randbytes({MIB}))"
        )
        job_id = daemon.run("sh", "-c", f"{wait} exec python3 -c '{code}'", cwd=folder, max_output=2 * size)
        digest = hashlib.md5(usedforsecurity=False)
        command = f"{_ctl(daemon)} out -f {job_id} | md5sum"
        before = _memory(daemon)
        started = [subprocess.Popen(["sh", "-c", command], stdout=subprocess.PIPE) for _ in range(FOLLOWERS)]
        while _open_waits(daemon) < FOLLOWERS:
            time.sleep(0.1)
        begin = time.perf_counter()
        go.touch()
        most = before
        while any(one.poll() is None for one in started):
            most = max(most, _memory(daemon))
            time.sleep(0.05)
        taken = time.perf_counter() - begin
        sums = {one.communicate()[0].split()[0].decode() for one in started}
        for data in _random_blocks(size):
            digest.update(data)
        assert sums == {digest.hexdigest()}, "a follower lacks something"
        print(f"\n{FOLLOWERS} followers of 100 MiB: {taken:.1f} s, each has every byte")
        goal(f"workerd's growth, {FOLLOWERS} followers", (most - before) / MIB, 10, relative=False, unit="MiB")


def _random_blocks(size: int) -> Iterator[bytes]:
    import random

    chance = random.Random(5)
    return (chance.randbytes(MIB) for _ in range(size // MIB))


def one_line() -> None:
    """The job writes the time; the follower's reader looks at the clock."""
    code = "import os, time\nfor i in range(300):\n time.sleep(0.02); os.write(1, b'%d\\n' % time.monotonic_ns())"
    with running() as daemon:
        job_id = daemon.run("python3", "-c", code)
        command = [sys.executable, "-m", "workerctl", "--socket", str(daemon.socket), "out", "-f", job_id]
        follower = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, bufsize=0)
        assert follower.stdout is not None
        taken = []
        while line := follower.stdout.read(65536):
            taken.append((time.monotonic_ns() - int(line.split()[-1])) / 1e6)
        follower.wait()
    name = "written to read"
    table = show("one line to an idle follower", {name: taken[20:]}, name)
    goal("one line to an idle follower", table.rows[0].median, 2, relative=False, unit="ms")


def flood() -> None:
    with running() as daemon, daemon.client() as client:
        other = daemon.run("sleep", "1000")
        beside = _busy_beside(daemon, other)
        job_id = daemon.run("yes", "a line of the sort that comes again and again")
        most, until = 0, time.monotonic() + FLOOD_SECONDS
        with _asking(daemon, other) as asked, client.open_output(job_id) as log:
            while time.monotonic() < until:
                most = max(most, sum(os.fstat(fd).st_blocks for fd in (log.log_fd, log.index_fd)) * 512)
                time.sleep(0.001)
            written = log.end()
        client.stop(job_id, grace=0)
        print(f"\n`yes` for {FLOOD_SECONDS} s, cap 64 MiB: {written / GIB:.1f} GiB written")
        taken = {"beside `yes` and `cat`, no job": beside, "beside a job that is `yes`": asked}
        show("job.status on a busy machine", taken, next(iter(taken)))
        goal(f"`yes` for {FLOOD_SECONDS} s, on disk at most", most / MIB, 65, relative=False, unit="MiB")
        goal("job.status p99 meanwhile", statistics.quantiles(asked, n=100)[98], 10, relative=False, unit="ms")


def _busy_beside(daemon: Daemon, job_id: str) -> list[float]:
    """What job.status takes on a machine that is as busy with something else."""
    with subprocess.Popen(["sh", "-c", "exec timeout 20 sh -c 'yes | cat > /dev/null'"]) as busy:
        with _asking(daemon, job_id) as asked:
            busy.wait()
    return asked


@contextmanager
def _asking(daemon: Daemon, job_id: str) -> Iterator[list[float]]:
    """Milliseconds of each job.status, one every 10 ms, as another client."""
    asked: list[float] = []
    stop = threading.Event()

    def ask() -> None:
        with daemon.client() as mine:
            while not stop.wait(0.01):
                begin = time.perf_counter()
                mine.status(job_id)
                asked.append((time.perf_counter() - begin) * 1000)

    asker = threading.Thread(target=ask)
    asker.start()
    try:
        yield asked
    finally:
        stop.set()
        asker.join()


def _timed(what: Callable[[], object]) -> float:
    begin = time.perf_counter()
    what()
    return (time.perf_counter() - begin) * 1000


def _shell(script: str) -> None:
    subprocess.run(["sh", "-c", script], check=True, env={**os.environ, **ENV}, cwd=ROOT)


def _ctl(daemon: Daemon) -> str:
    return f"{sys.executable} -m workerctl --socket {daemon.socket}"


def _forget(daemon: Daemon) -> None:
    """Give the disk back."""
    for log in daemon.state.glob("jobs/*/output"):
        os.truncate(log, 0)


def _cpu_ms(daemon: Daemon) -> float:
    """User and system time, all threads (proc_pid_stat(5), fields 14 and 15)."""
    assert daemon.process is not None
    fields = Path(f"/proc/{daemon.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * 1000 / os.sysconf("SC_CLK_TCK")


def _memory(daemon: Daemon) -> int:
    assert daemon.process is not None
    lines = Path(f"/proc/{daemon.process.pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) * 1024


def _open_waits(daemon: Daemon) -> int:
    """How many logs the daemon has open: one for each wait under way."""
    assert daemon.process is not None
    folder = Path(f"/proc/{daemon.process.pid}/fd")
    count = 0
    for fd in folder.iterdir():
        try:
            count += os.readlink(fd).endswith("/output.idx")
        except OSError:
            continue
    return count
