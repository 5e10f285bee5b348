"""As installed: modules compiled, the daemon's run-time directory on a tmpfs, as /run is,
its state on a disk."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.host.daemon import Daemon


@contextlib.contextmanager
def installed(*arguments: str, config: str | None = None) -> Iterator[Daemon]:
    daemon = Daemon(*arguments, config=config)
    runtime = Path(tempfile.mkdtemp(prefix="worker-bench-", dir="/dev/shm"))
    daemon.runtime = runtime / "run"
    try:
        daemon.start()
        yield daemon
    finally:
        daemon.close()
        shutil.rmtree(runtime, ignore_errors=True)


@contextlib.contextmanager
def compiled_modules() -> Iterator[None]:
    """Programs started within find their modules compiled, from their second start on,
    even where the environment forbids to write that beside the sources."""
    kept = dict(os.environ)
    with tempfile.TemporaryDirectory(prefix="worker-bench-") as folder:
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        os.environ["PYTHONPYCACHEPREFIX"] = folder
        try:
            yield
        finally:
            os.environ.clear()
            os.environ.update(kept)


def private_kib(pid: int) -> int:
    """Memory that is this process's alone (smaps_rollup, proc(5))."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_"))
