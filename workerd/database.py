"""One SQLite file that one process owns: opened, made, set aside when unusable.

What must hold. A fresh file is made under another name first, so that a file
without our schema is always a damaged one, not one that was just being made. An
unusable file (damaged, truncated, of a newer version) is not changed: it is renamed,
with what belongs to it, and a fresh one takes its place. The lock on the file is
held from `open_database` to the connection's close; the kernel drops it with the
process, so a killed daemon leaves none.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import msgspec

from workerd import errors

BUSY_SECONDS = 5.0
"""how long to wait for a daemon that is just leaving"""
_LOG_SIZE = 4 << 20
"""bytes that SQLite's log grows to before it is written back (1000 pages of 4096)"""
_COMPANIONS = ("-wal", "-shm", "-journal")
_DAMAGE = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_EXHAUSTION = {
    sqlite3.SQLITE_FULL: "free space on its file system",
    sqlite3.SQLITE_IOERR: "free space on its file system, or see the kernel log for errors of its disk",
    sqlite3.SQLITE_CANTOPEN: "see that its directory is there and that workerd has descriptors left (LimitNOFILE=)",
    sqlite3.SQLITE_READONLY: "remount its file system writable",
}


class Schema(NamedTuple):
    version: int
    """of our own; SQLite's user_version"""
    statements: str
    verify: Callable[[sqlite3.Connection], None]
    """raises sqlite3.DatabaseError or msgspec.DecodeError where the content is unusable"""


class Opened(NamedTuple):
    db: sqlite3.Connection
    created: bool
    """whether it is a new, empty one"""
    set_aside: Path | None
    """where the unusable file that this one replaces is now"""


class _Damaged(Exception):
    """This file cannot be used: why."""


def open_database(path: Path, schema: Schema) -> Opened:
    """The database at `path`, made with mode 0600 where there is none; its directory
    must be there. In WAL mode with synchronous=NORMAL; a connection for any thread,
    one at a time. Raises Unavailable where another process has it open, Exhausted."""
    with translated(path), _one_at_a_time(path):
        try:
            created = _ensure(path, schema)
            return Opened(_connect(path, schema), created, None)
        except _Damaged:
            aside = _put_aside(path)
            _ensure(path, schema)
            return Opened(_connect(path, schema), True, aside)


@contextmanager
def _one_at_a_time(path: Path) -> Iterator[None]:
    """Making and renaming files is for one process only; SQLite's lock is on a file
    that is there. (Not on the directory: others may lock that.)"""
    fd = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _ensure(path: Path, schema: Schema) -> bool:
    """Make the file if it is not there; whether it was made."""
    if path.exists():
        path.chmod(0o600)
        return False
    if any(Path(f"{path}{suffix}").exists() for suffix in _COMPANIONS):
        # A log without its database: SQLite would play it into the fresh one.
        raise _Damaged("its log is there, but not the database")
    draft = Path(f"{path}.new")
    draft.unlink(missing_ok=True)
    os.close(os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    db = sqlite3.connect(draft, isolation_level=None)
    try:
        db.executescript(f"BEGIN; {schema.statements} PRAGMA user_version = {schema.version}; COMMIT;")
    finally:
        db.close()
    draft.rename(path)
    return True


def _connect(path: Path, schema: Schema) -> sqlite3.Connection:
    db = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    try:
        # Exclusive before the first look at the file: no second daemon, and no -shm file.
        db.execute("PRAGMA locking_mode = EXCLUSIVE")
        db.execute("PRAGMA foreign_keys = ON")
        _verify_version(db, schema)
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = NORMAL")
        db.execute("BEGIN IMMEDIATE")
        _verify_pages(db)
        schema.verify(db)
        db.execute("COMMIT")
        _reserve(path)
    except (sqlite3.DatabaseError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        db.close()
        if isinstance(error, sqlite3.DatabaseError) and _code(error) not in _DAMAGE:
            raise
        raise _Damaged(str(error)) from error
    except BaseException:
        db.close()
        raise
    return db


def _reserve(path: Path) -> None:
    """Have the log's space allotted, so that outcomes can be committed on a full disk
    too: a job that fills it must still be seen to end. SQLite takes the zeros for
    the end of its log (sqlite.org/fileformat2.html, part 4). Where the disk is full
    already there is nothing to reserve."""
    with suppress(OSError):
        fd = os.open(f"{path}-wal", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(fd, 0, _LOG_SIZE)
        finally:
            os.close(fd)


def _verify_version(db: sqlite3.Connection, schema: Schema) -> None:
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if version != schema.version:
        raise _Damaged(f"schema version {version}, this workerd knows {schema.version}")


def _verify_pages(db: sqlite3.Connection) -> None:
    """The structure of every page: a truncated file has too few."""
    (verdict,) = db.execute("PRAGMA quick_check(1)").fetchone()
    if verdict != "ok":
        raise _Damaged(verdict)


def _put_aside(path: Path) -> Path:
    """Rename the unusable database, then what belongs to it (a daemon killed between
    the two finds a log without a database, and carries on here)."""
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    aside, number = Path(f"{path}.damaged-{stamp}"), 1
    while any(Path(f"{aside}{suffix}").exists() for suffix in ("", *_COMPANIONS)):
        aside, number = Path(f"{path}.damaged-{stamp}-{number}"), number + 1
    for suffix in ("", *_COMPANIONS):
        with suppress(FileNotFoundError):
            os.rename(f"{path}{suffix}", f"{aside}{suffix}")
    return aside


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """SQLite's errors as ours; what is a bug of ours stays as it is."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        code = _code(error)
        if code in _EXHAUSTION:
            raise errors.Exhausted(f"cannot use {path}: {error}; {_EXHAUSTION[code]}", path=str(path)) from error
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise errors.Unavailable(f"{path} is in use by another process: is a second workerd running?") from error
        if code in _DAMAGE:
            raise errors.InternalError(
                f"{path} is damaged ({error}); restart workerd, which sets it aside and rebuilds it", path=str(path)
            ) from error
        raise


def _code(error: sqlite3.Error) -> int:
    """The primary result code (sqlite.org/rescode.html); 0 where Python raised it by itself."""
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF
