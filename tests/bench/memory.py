"""Private memory of a sleeping job's PID 1, and what the daemon grows by for each."""

from __future__ import annotations

from pathlib import Path

from tests.host.daemon import running
from workerd import protocol

COUNT = 100


def run() -> None:
    with running() as daemon, daemon.client() as client:
        assert daemon.process is not None
        before = _private(daemon.process.pid)
        pids = []
        for _ in range(COUNT):
            job = client.call("job.status", protocol.JobParams(daemon.run("sleep", "1000")))
            pids.append(job.pid)
        grown = _private(daemon.process.pid) - before
        inits = sorted(_private(pid) for pid in pids)
        print(f"\nmemory, {COUNT} sleeping jobs")
        print(f"  worker-init, private: median {inits[COUNT // 2]} KiB, most {inits[-1]} KiB")
        print(f"  workerd: {before} KiB private at start, {grown / COUNT:.1f} KiB more a job")


def _private(pid: int) -> int:
    """KiB, from smaps_rollup (proc(5))."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_"))
