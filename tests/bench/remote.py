"""What ssh costs a job's output: `out -H` beside `ssh HOST cat` of the very file, by turns
through one sshd of our own. Both end at the speed of ssh's cipher, on two processors shared
by all the programs on the way.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time

from tests.bench.figures import by_turns, goal, leave_out, ratio, show
from tests.host.daemon import ROOT, running
from tests.host.sshd import SSHD, serving

SIZE = 512 << 20
ROUNDS = 5


def run() -> None:
    if SSHD is None or shutil.which("ssh") is None:
        leave_out("remote: sshd and ssh are not installed")
        return
    with running() as daemon, serving() as sshd:
        job_id = daemon.run("head", "-c", str(SIZE), "/dev/zero", max_output=2 * SIZE)
        daemon.wait(job_id, 300)
        log = daemon.state / "jobs" / job_id / "output"
        os.environ["WORKER_SSH"] = sshd.ssh
        ssh = f"{sshd.ssh} -p {sshd.port} root@127.0.0.1"
        ctl = f"{sys.executable} -m workerctl -H {sshd.host(daemon.socket)}"
        cases = {
            "ssh HOST cat file | cat": lambda: [_timed(f"{ssh} cat {log} | cat > /dev/null")],
            "out -H | cat": lambda: [_timed(f"{ctl} out {job_id} | cat > /dev/null")],
        }
        table = show("512 MiB of output through ssh", by_turns(cases, ROUNDS), "ssh HOST cat file | cat")
        goal("out -H / ssh HOST cat", ratio(table, "out -H | cat"), 1.5)
        short = {
            "ssh HOST true": lambda: [_timed(f"{ssh} true")],
            "ps -H": lambda: [_timed(f"{ctl} ps -q")],
        }
        show("a short command through ssh", by_turns(short, 2 * ROUNDS), "ssh HOST true")


def _timed(script: str) -> float:
    """Milliseconds."""
    begin = time.perf_counter()
    subprocess.run(["sh", "-c", script], cwd=ROOT, check=True)
    return (time.perf_counter() - begin) * 1000
