"""What was built before, outside the source tree, found again by its key.

    ${WORKER_VM_CACHE:-${XDG_CACHE_HOME:-~/.cache}/worker-vm}/
        base/KEY/      an image, a kernel, an initial RAM disk
        product/KEY/   an overlay of a base image with the product installed
        wheels/KEY/    the dependencies' wheels
        runs/…/        the disks of a machine that is running now
        kvm            whether KVM works, for one boot of the host

An entry is complete or absent: it is built in a directory beside it and
renamed. Its user holds a shared lock on it; nobody prunes what is in use. All
paths that an entry's files speak of are relative, so the cache can be moved.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from vmlib.notice import say

KEEP = 3  # entries of a kind that stay, the last used first


def root() -> Path:
    """The cache's directory, made when absent."""
    chosen = os.environ.get("WORKER_VM_CACHE")
    if chosen:
        path = Path(chosen).absolute()
    else:
        home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        path = Path(home) / "worker-vm"
    path.mkdir(parents=True, exist_ok=True)
    return path


def key(*parts: str | bytes) -> str:
    """A short name for what these parts make, in this order."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "big") + data)
    return digest.hexdigest()[:16]


def files_key(directory: Path) -> str:
    """The same for a directory's files: their names, contents and whether they execute."""
    parts: list[str | bytes] = []
    for path in sorted(p for p in directory.rglob("*") if p.is_file()):
        if "__pycache__" not in path.parts:
            executable = "x" if path.stat().st_mode & 0o100 else "-"
            parts += [str(path.relative_to(directory)), executable, path.read_bytes()]
    return key(*parts)


@contextmanager
def locked(path: Path, *, shared: bool = False, long: bool = True) -> Iterator[None]:
    """Hold a lock on the file `path` (made when absent).

    Says so when it has to wait for a lock that may be held for `long`.
    """
    with path.open("a") as file:
        mode = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        try:
            fcntl.flock(file, mode | fcntl.LOCK_NB)
        except BlockingIOError:
            if long:
                say(f"another run is making or using {path.stem}; waiting for it")
            fcntl.flock(file, mode)
        yield


@contextmanager
def entry(kind: str, name: str, build: Callable[[Path], None]) -> Iterator[Path]:
    """The directory of this entry, made by `build(directory)` when absent; held while used."""
    shelf = root() / kind
    shelf.mkdir(exist_ok=True)
    path = shelf / name
    # One lock file per entry: exclusive to make it, shared to use it. So users
    # do not wait for each other, and pruning never takes what somebody uses.
    while True:
        with locked(shelf / f"{name}.lock", shared=True):
            if path.is_dir():
                os.utime(path)
                prune(shelf)
                yield path
                return
        with locked(shelf / f"{name}.lock"):
            if not path.is_dir():
                make(path, build)


def make(path: Path, build: Callable[[Path], None]) -> None:
    partial = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        build(partial)
        partial.chmod(0o755)
        partial.rename(path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def prune(shelf: Path, keep: int = KEEP) -> None:
    """Remove what was not used lately, and what an interrupted build left."""
    by_use = sorted(shelf.glob("[!.]*/"), key=lambda p: p.stat().st_mtime, reverse=True)
    for path in by_use[keep:]:
        remove_unless_locked(path, shelf / f"{path.name}.lock")
    for partial in shelf.glob(".*/"):
        remove_unless_locked(partial, shelf / f"{partial.name.split('.')[1]}.lock")


def remove_unless_locked(path: Path, lock: Path) -> None:
    with lock.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        shutil.rmtree(path, ignore_errors=True)


@contextmanager
def run_directory() -> Iterator[Path]:
    """A directory for one running machine's disks, removed at the end.

    What a killed run left is removed by the next one: its lock is free then.
    """
    runs = root() / "runs"
    runs.mkdir(exist_ok=True)
    with ExitStack() as stack:
        # Under one lock, or another run could take the new directory for a left one.
        with locked(root() / "runs.lock", long=False):
            for old in runs.glob("*/"):
                remove_unless_locked(old, old / "lock")
            path = Path(tempfile.mkdtemp(dir=runs))
            stack.callback(shutil.rmtree, path, ignore_errors=True)
            stack.enter_context(locked(path / "lock"))
        yield path
