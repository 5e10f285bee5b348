"""Thousands of jobs come and go; what the daemon holds must be what it held before.

`python -m tests.host.leaks --jobs 10000` is the long run.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from tests.host.daemon import ENV, Daemon
from workerd import errors, protocol
from workerd.job import JobSpec

USERS = 8
"""clients at once"""
RSS_GROWTH = 6 << 20
"""bytes that the daemon may grow by: allocators keep some; a leak of one small object
per job would be more after ten thousand"""
KINDS: tuple[tuple[str, ...], ...] = (
    ("true",),
    ("sh", "-c", "seq 1000; exit 3"),
    ("/no/such/command",),
    ("sh", "-c", "kill -9 $$"),
    ("sleep", "1000"),
)
"""the last one is stopped"""


class Held(NamedTuple):
    """What a daemon holds."""

    descriptors: Counter[str]
    threads: int
    rss: int
    """bytes"""
    mounts: int
    cgroups: int
    runtime: int
    links: int
    zombies: int


def held(daemon: Daemon) -> Held:
    assert daemon.process is not None
    proc = Path(f"/proc/{daemon.process.pid}")
    status = dict(line.split(":\t", 1) for line in (proc / "status").read_text().splitlines() if ":\t" in line)
    return Held(
        descriptors=_descriptors(proc),
        threads=int(status["Threads"]),
        rss=int(status["VmRSS"].split()[0]) << 10,
        mounts=len((proc / "mountinfo").read_text().splitlines()),
        cgroups=sum(1 for _ in daemon.cgroup.glob("jobs/uid-*/job-*")),
        runtime=len(os.listdir(daemon.runtime / "jobs")),
        links=len((proc / "net/dev").read_text().splitlines()),
        zombies=_zombies(daemon.process.pid),
    )


def _descriptors(proc: Path) -> Counter[str]:
    names: Counter[str] = Counter()
    for link in (proc / "fd").iterdir():
        try:
            name = os.readlink(link)
        except FileNotFoundError:
            continue
        names[name.partition("[")[0] if ":[" in name else name] += 1
    return names


def _zombies(parent: int) -> int:
    found = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, ppid = stat.read_text().rpartition(")")[2].split()[:2]
        except (FileNotFoundError, ProcessLookupError):
            continue
        found += state == "Z" and int(ppid) == parent
    return found


def come_and_go(daemon: Daemon, jobs: int) -> None:
    """So many jobs of all kinds, by several clients at once."""
    with ThreadPoolExecutor(USERS) as pool:
        for done in [pool.submit(_be_client, daemon, jobs // USERS, number) for number in range(USERS)]:
            done.result()


def _be_client(daemon: Daemon, jobs: int, first: int) -> None:
    with daemon.client() as client:
        for number in range(first, first + jobs):
            argv = KINDS[number % len(KINDS)]
            try:
                job_id = client.call("job.run", protocol.RunParams(JobSpec(argv=argv), ENV)).id
            except errors.StartFailed:
                continue
            if argv == KINDS[-1]:
                client.call("job.stop", protocol.StopParams(job_id))
            client.call("job.wait", protocol.WaitParams((job_id,)))
            if number % 3 == 0:
                client.call("output.read", protocol.OutputReadParams(job_id))


def grown(before: Held, after: Held) -> list[str]:
    """What there is more of, but for the memory that an allocator may keep."""
    more = [f"{count} descriptors of {name}" for name, count in (after.descriptors - before.descriptors).items()]
    for name in ("mounts", "cgroups", "runtime", "links", "zombies"):
        if getattr(after, name) > getattr(before, name):
            more.append(f"{name}: {getattr(before, name)}, then {getattr(after, name)}")
    if after.rss > before.rss + RSS_GROWTH:
        more.append(f"memory: {before.rss >> 10} KiB, then {after.rss >> 10} KiB")
    return more


def settled(daemon: Daemon, before: Held, seconds: float = 30.0) -> tuple[Held, list[str]]:
    """What it holds once it has cleared up, or when the time is over."""
    deadline = time.monotonic() + seconds
    while True:
        after = held(daemon)
        more = grown(before, after)
        if not more or time.monotonic() > deadline:
            return after, more
        time.sleep(0.2)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=10_000)
    arguments = parser.parse_args()
    daemon = Daemon()
    try:
        daemon.start()
        come_and_go(daemon, 400)  # whatever is made once is made now
        before = held(daemon)
        began = time.monotonic()
        come_and_go(daemon, arguments.jobs)
        taken = time.monotonic() - began
        after, more = settled(daemon, before)
    finally:
        daemon.close()
    print(f"{arguments.jobs} jobs in {taken:.0f} s, {arguments.jobs / taken:.0f} a second")
    for name in Held._fields:
        old, new = getattr(before, name), getattr(after, name)
        if isinstance(old, Counter):
            old, new = old.total(), new.total()
        print(f"  {name:12} {old:>12}  {new:>12}")
    print("".join(f"  LEAKED: {line}\n" for line in more) or "  nothing leaked")
    return 1 if more else 0


if __name__ == "__main__":
    sys.exit(main())
