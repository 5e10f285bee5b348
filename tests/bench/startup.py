"""From `workerd`'s exec to READY=1 (sd_notify(3)), beside an interpreter that imports asyncio."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.bench.figures import by_turns, goal, ratio, show
from tests.host.daemon import ROOT, Daemon

ROUNDS = 10
ASYNCIO, OURS = "python3 -I -c 'import asyncio'", "workerd, exec to READY"


def run() -> None:
    cases = {ASYNCIO: _import_asyncio, OURS: _ready}
    table = show("start-up", by_turns(cases, ROUNDS), ASYNCIO)
    goal("start-up / asyncio", ratio(table, OURS), 4)


def _import_asyncio() -> list[float]:
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-I", "-c", "import asyncio"], check=True)
    return [(time.perf_counter() - begin) * 1000]


def _ready() -> list[float]:
    daemon = Daemon()
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified:
        notified.bind(str(Path(folder) / "notify"))
        notified.settimeout(30)
        env = {**os.environ, "NOTIFY_SOCKET": notified.getsockname()}
        begin = time.perf_counter()
        with daemon.log.open("ab") as log:
            daemon.process = subprocess.Popen(daemon.command(), cwd=ROOT, env=env, stderr=log)
        try:
            while b"READY=1" not in notified.recv(4096):
                pass
            return [(time.perf_counter() - begin) * 1000]
        finally:
            daemon.close()
