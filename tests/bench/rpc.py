"""`job.status` on one connection and on 64, one by one and pipelined, beside a line echo
on asyncio in the same Python; with a thousand jobs running.

Who asks is a program in C (rpcload.c) that costs a tenth of what is asked: a client in
Python took longer than the daemon, so that both rates were its own, and what 64 waited for
was mostly one another in its loop."""

from __future__ import annotations

import contextlib
import functools
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.bench.figures import HERE, Taken, by_turns, compiled, goal, ratio, show
from tests.bench.installed import installed
from tests.host.daemon import ENV
from workerd import protocol
from workerd.job import JobSpec

DEPTH, CONNECTIONS, RUNNING = 50, 64, 1000
ROUNDS, SECONDS, TRIED = 9, 0.4, 2000
"""each rate is that of so many seconds: of a hundredth, as few thousand requests take, it is twice as high or low
as the next one, by which CPU the kernel has put whom on; how many requests that are, so many tell"""
ECHO, ONE, EACH = "asyncio line echo", "job.status of one job", f"job.status of {RUNNING} jobs by turns"
SLEEP = protocol.RunParams(JobSpec(argv=("/bin/sleep", "1000")), ENV)


def run() -> None:
    with installed() as daemon, daemon.client() as client, echoing() as echo, compiled("rpcload.c") as load:
        ids = [client.call("job.run", SLEEP).id for _ in range(RUNNING)]
        questions = [
            protocol.encode({"jsonrpc": "2.0", "id": 1, "method": "job.status", "params": protocol.JobParams(job_id)})
            for job_id in ids
        ]
        for title, connections, depth in (
            ("one by one, 1 connection", 1, 1),
            (f"{DEPTH} under way, 1 connection", 1, DEPTH),
            (f"one by one, {CONNECTIONS} connections", CONNECTIONS, 1),
            (f"8 under way, {CONNECTIONS} connections", CONNECTIONS, 8),
        ):
            late: Taken = {ECHO: [], ONE: [], EACH: []}
            cases = {
                ECHO: functools.partial(_rate, load, echo, questions, connections, depth, late[ECHO]),
                ONE: functools.partial(_rate, load, daemon.socket, questions[:1], connections, depth, late[ONE]),
                EACH: functools.partial(_rate, load, daemon.socket, questions, connections, depth, late[EACH]),
            }
            table = show(f"RPC, {title}, {RUNNING} jobs running", by_turns(cases, ROUNDS), ECHO, unit="/s")
            goal(f"job.status / echo, {title}", ratio(table, ONE), 0.6, at_least=True)
            if depth == 1:
                show(f"RPC, {title}: each answer", late, ECHO)
                tails = {name: statistics.quantiles(taken, n=100)[98] for name, taken in late.items()}
                goal(f"job.status p99, {title}", max(tails[ONE], tails[EACH]), 5, relative=False, unit="ms")
                for name, tail in tails.items():
                    print(f"  99 % of {name}: {tail:.2f} ms")


@contextlib.contextmanager
def echoing() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="worker-bench-") as folder:
        path = Path(folder) / "echo"
        server = subprocess.Popen([sys.executable, str(HERE / "echo.py"), str(path)], stdout=subprocess.PIPE)
        assert server.stdout is not None
        try:
            assert server.stdout.readline() == b"ready\n"
            yield path
        finally:
            server.kill()
            server.wait()
            server.stdout.close()


def _rate(
    load: Path, path: os.PathLike[str], lines: list[bytes], connections: int, depth: int, taken: list[float]
) -> list[float]:
    """Answers a second, asked these in turn; the milliseconds that each took are added to `taken`."""

    def ask(requests: int) -> tuple[float, list[bytes]]:
        command = [os.fspath(load), os.fspath(path), str(connections), str(depth), str(requests)]
        said = subprocess.run(command, input=b"".join(lines), stdout=subprocess.PIPE, check=True).stdout.split()
        return requests / float(said[0]), said[1:]

    rate, _ = ask(TRIED)
    rate, late = ask(max(TRIED, int(rate * SECONDS)))
    taken += [float(microseconds) / 1000 for microseconds in late]
    return [rate]
