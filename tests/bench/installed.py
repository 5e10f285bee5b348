"""As installed: modules compiled, the daemon's run-time directory on a tmpfs, as /run is,
its state on a disk."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.bench.figures import leave_out
from tests.host.daemon import Daemon

DISK_BYTES = 8 << 30


@contextlib.contextmanager
def installed(*arguments: str, config: str | None = None) -> Iterator[Daemon]:
    daemon = Daemon(*arguments, config=config)
    runtime = Path(tempfile.mkdtemp(prefix="worker-bench-", dir="/dev/shm"))
    daemon.runtime = runtime / "run"
    with contextlib.ExitStack() as undo:
        for directory in (runtime, daemon.base):
            undo.callback(shutil.rmtree, directory, ignore_errors=True)
        disk = daemon.base / "disk"
        if _own_disk(disk):
            undo.callback(lambda: subprocess.run(["umount", disk], check=True))
            daemon.state = disk / "state"
        undo.callback(daemon.end)
        daemon.start()
        yield daemon


def _own_disk(place: Path) -> bool:
    """An ext4 in a sparse file, mounted: what others delete on the machine's disk, and an
    earlier case has just deleted, makes each new file there slow for seconds."""
    image = place.with_suffix(".img")
    image.touch()
    os.truncate(image, DISK_BYTES)
    place.mkdir()
    commands: list[list[str | Path]] = [["mkfs.ext4", "-q", "-F", image], ["mount", "-o", "loop", image, place]]
    for command in commands:
        try:
            subprocess.run(command, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError) as error:
            leave_out(f"a disk of its own for the daemon's state, so figures depend on what else it does: {error}")
            return False
    return True


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
