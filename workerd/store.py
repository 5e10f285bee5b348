"""The record of all jobs: one SQLite file, state.db (design.md, part 9).

What must hold. A committed change is there, whole, after a SIGKILL of this
process at any point: it is in the page cache with the write. synchronous=NORMAL
in WAL mode (sqlite.org/wal.html) does not wait for the disk at each commit,
which would cost a job's start more than all the rest; after a power cut the last
commits may be missing, never half there, and `sync` makes everything up to now
durable: the supervisor calls it moments after an outcome was recorded.

One process at a time (workerd.database has how the file is opened, locked and set
aside when it cannot be used); one thread at a time: a lock of our own sees to it.
No open statement or transaction outlives a call.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

import msgspec

from workerd import errors, fairshare, procfs
from workerd.database import Schema, open_database, translated
from workerd.events import Entry, entries, removed
from workerd.eventstore import EventTable, Page, Query
from workerd.job import ID_ALPHABET, Job, State

_STATEMENTS = """
CREATE TABLE jobs (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    uid INTEGER NOT NULL,
    name TEXT,
    state TEXT NOT NULL,
    created INTEGER NOT NULL,
    finished INTEGER,
    record BLOB NOT NULL
) STRICT;
CREATE TABLE environs (id TEXT PRIMARY KEY REFERENCES jobs (id) ON DELETE CASCADE, env BLOB NOT NULL)
    STRICT, WITHOUT ROWID;
CREATE INDEX jobs_by_uid ON jobs (uid, seq);
CREATE INDEX jobs_by_name ON jobs (name, seq) WHERE name IS NOT NULL;
CREATE INDEX jobs_live ON jobs (seq) WHERE state != 'finished';
CREATE INDEX jobs_finished ON jobs (finished, id) WHERE state = 'finished';
"""
"""The environment is apart because an update rewrites its whole row; AUTOINCREMENT
so that a place in a listing is never given to another job."""

_CANDIDATES = 5
_NEVER = 2**62
_NO_LABELS: Mapping[str, str | None] = MappingProxyType({})

# Store has a method `list`, which hides the type within the class.
Jobs = list[Job]
Ids = list[str]
Owners = list[tuple[str, int]]
Rows = list[tuple[Any, ...]]
Values = list[Any]
Refusals = list[Exception | None]

_encode = msgspec.json.Encoder().encode
_decode_job = msgspec.json.Decoder(Job).decode
_decode_env = msgspec.json.Decoder(dict[str, str]).decode


def _verify(db: sqlite3.Connection) -> None:
    """Every record that a restart will need can be read."""
    for (record,) in db.execute("SELECT record FROM jobs WHERE state != 'finished'"):
        _decode_job(record)


SCHEMA = Schema(version=1, statements=_STATEMENTS, verify=_verify)


class Store:
    """Made by `open`. Beside what is said of each, every method raises Exhausted
    where the disk is full or fails (the change was not made, and the store can
    be used on), and InternalError where the file turns out to be damaged."""

    def __init__(self, path: Path, db: sqlite3.Connection, *, created: bool, set_aside: Path | None) -> None:
        self.path = path
        self.on_events: Callable[[Collection[int]], None] = lambda uids: None
        """called with the uids whose events were just committed, in the thread that did it"""
        self.created = created
        """whether it is a new, empty one"""
        self.set_aside = set_aside
        """where the unusable file that this one replaces is now"""
        self._db = db
        self._lock = threading.RLock()
        self._joined: list[Entry] = []
        """events of the transaction under way that were written with parts of it"""
        with translated(path):
            self._events = EventTable(db, procfs.boot_id())

    @classmethod
    def open(cls, path: Path) -> Self:
        """The store at `path`, made with mode 0600 where there is none; its directory
        must be there. Raises Unavailable where another process has it open."""
        opened = open_database(path, SCHEMA)
        return cls(path, opened.db, created=opened.created, set_aside=opened.set_aside)

    def close(self) -> None:
        """Write everything back and let go of the file; can be called twice."""
        with self._lock:
            self._db.close()

    def sync(self) -> None:
        """Have everything committed so far on the disk. Waits for it, touches no
        transaction, and so may be called in another thread than the rest."""
        with translated(self.path), suppress(FileNotFoundError):
            fd = os.open(f"{self.path}-wal", os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fdatasync(fd)
            finally:
                os.close(fd)

    def insert(self, job: Job, env: dict[str, str], events: Sequence[Entry] = ()) -> None:
        """Record a new job. Raises InternalError where the id is taken."""
        self.insert_many([(job, env)], events)

    def insert_many(self, jobs: Iterable[tuple[Job, dict[str, str]]], events: Sequence[Entry] = ()) -> None:
        """All of them or none. Raises InternalError where an id is taken."""
        with self._transaction(events) as db:
            for job, env in jobs:
                try:
                    db.execute(
                        "INSERT INTO jobs (id, uid, name, state, created, finished, record) "
                        "VALUES (?, ?, ?, ?, ?, ?, ?)",
                        (job.id, job.uid, job.spec.name, job.state.value, job.created, job.finished, _encode(job)),
                    )
                except sqlite3.IntegrityError as error:
                    raise errors.InternalError(f"job {job.id} is already recorded", id=job.id) from error
                db.execute("INSERT INTO environs (id, env) VALUES (?, ?)", (job.id, _encode(env)))

    def update(self, job: Job, events: Sequence[Entry] = ()) -> None:
        """Raises NoSuchJob."""
        self.update_many((job,), events)

    def update_many(self, jobs: Iterable[Job], events: Sequence[Entry] = ()) -> None:
        """All of them or none. Raises NoSuchJob."""
        with self._transaction(events) as db:
            for job in jobs:
                done = db.execute(
                    "UPDATE jobs SET name = ?, state = ?, finished = ?, record = ? WHERE id = ?",
                    (job.spec.name, job.state.value, job.finished, _encode(job), job.id),
                )
                if done.rowcount != 1:
                    raise _no_such_job(job.id)

    def delete(self, ids: Iterable[str]) -> None:
        """Forget these jobs, all or none; ids that are not there are no error."""
        row, when = "SELECT id, uid, name, state FROM jobs WHERE id = ?", time.time_ns() // 1000
        found = [known for job_id in dict.fromkeys(ids) for known in self._rows(row, (job_id,))]
        gone = [removed(job_id, uid, name, State(state), when) for job_id, uid, name, state in found]
        with self._transaction(entries(gone)) as db:
            db.executemany("DELETE FROM jobs WHERE id = ?", [known[:1] for known in found])

    def read_events(self, query: Query) -> Page:
        """Raises InvalidParams where its cursor is none."""
        with self._lock, translated(self.path):
            return self._events.read(self._db, query)

    def get(self, job_id: str) -> Job:
        """Raises NoSuchJob."""
        rows = self._rows("SELECT record FROM jobs WHERE id = ?", (job_id,))
        if not rows:
            raise _no_such_job(job_id)
        return _job(rows[0][0])

    def environ(self, job_id: str) -> dict[str, str]:
        """The environment that the job was admitted with. Raises NoSuchJob."""
        rows = self._rows("SELECT env FROM environs WHERE id = ?", (job_id,))
        if not rows:
            raise _no_such_job(job_id)
        return _decode_env(rows[0][0])

    def live(self) -> Jobs:
        """All that is not finished (queued too), oldest first."""
        rows = self._rows("SELECT record FROM jobs INDEXED BY jobs_live WHERE state != 'finished' ORDER BY seq")
        return [_job(record) for (record,) in rows]

    def list(
        self,
        uid: int | None,
        states: Collection[State] = (),
        limit: int = 1000,
        before: str | None = None,
        labels: Mapping[str, str | None] = _NO_LABELS,
    ) -> Jobs:
        """Newest first: one user's jobs or, without a uid, everybody's; in these states,
        or any; with these labels (of any value where that is None); at most `limit`;
        older than the job whose full id is `before`.
        Raises NoSuchJob where that user has no job `before`."""
        # Few jobs are not finished, so that index makes the common listings short; the
        # others meet a finished job wherever they look.
        few = bool(states) and State.FINISHED not in states
        where, values = ["state != 'finished'"] if few else [], Values()
        if uid is not None:
            where.append("uid = ?")
            values.append(uid)
        if states:
            where.append(f"state IN ({', '.join('?' * len(states))})")
            values += [state.value for state in states]
        if before is not None:
            where.append("seq < ?")
            values.append(self._seq(uid, before))
        for key, value in labels.items():
            where.append(f"json_extract(CAST(record AS TEXT), ?) {'IS NOT NULL' if value is None else '= ?'}")
            values += [f'$.spec.labels."{key}"', *([] if value is None else [value])]
        index = "INDEXED BY jobs_live" if few else "" if uid is None else "INDEXED BY jobs_by_uid"
        condition = f"WHERE {' AND '.join(where)}" if where else ""
        query = f"SELECT record FROM jobs {index} {condition} ORDER BY seq DESC LIMIT ?"  # noqa: S608 - put together from constants
        return [_job(record) for (record,) in self._rows(query, (*values, limit))]

    def find(self, uid: int | None, ref: str, first: int | None = None) -> Job:
        """The job that `ref` means among one user's or, without a uid, everybody's: a
        full id; else a name, of a job that is not finished before the newest that is;
        else the only id that begins so. Names of `first`, a uid, come before all others':
        nobody can give a job a name by which somebody else, say root, means his own.
        Raises NoSuchJob, the same for what is not there and for what is somebody else's, or AmbiguousId."""
        mine, values = ("", ()) if uid is None else (" AND uid = ?", (uid,))
        rows = self._rows(f"SELECT record FROM jobs WHERE id = ?{mine}", (ref, *values))  # noqa: S608
        if not rows:
            rows = self._named(" AND uid = ?", (first,), ref) if first is not None else []
            rows = rows or self._named(mine, values, ref)
        if not rows and ref and set(ref) <= set(ID_ALPHABET):
            end = ref[:-1] + chr(ord(ref[-1]) + 1)
            query = f"SELECT record FROM jobs WHERE id >= ? AND id < ?{mine} ORDER BY id LIMIT {_CANDIDATES + 1}"  # noqa: S608
            rows = self._rows(query, (ref, end, *values))
        if not rows:
            raise _no_such_job(ref)
        if len(rows) > 1:
            raise _ambiguous(ref, [_job(record) for (record,) in rows])
        return _job(rows[0][0])

    def ids(self) -> frozenset[str]:
        """Of all jobs."""
        return frozenset(row[0] for row in self._rows("SELECT id FROM jobs"))

    def finished_owners(self) -> Owners:
        """(id, uid) of every finished job."""
        query = "SELECT id, uid FROM jobs INDEXED BY jobs_finished WHERE state = 'finished'"
        return [(str(job_id), int(uid)) for job_id, uid in self._rows(query)]

    def finished_count(self) -> int:
        (count,) = self._rows("SELECT count(*) FROM jobs INDEXED BY jobs_finished WHERE state = 'finished'")[0]
        return int(count)

    def oldest_end(self) -> int | None:
        """When the job ended that is finished for the longest time."""
        (oldest,) = self._rows("SELECT min(finished) FROM jobs INDEXED BY jobs_finished WHERE state = 'finished'")[0]
        return None if oldest is None else int(oldest)

    def to_remove(self) -> Ids:
        """The finished jobs that asked to be forgotten."""
        query = """
            SELECT id FROM jobs WHERE state = 'finished' AND json_extract(CAST(record AS TEXT), '$.spec.remove')
        """
        return [row[0] for row in self._rows(query)]

    def prune_candidates(self, count: int, age_before: int, now: int = _NEVER) -> Ids:
        """The ids of the finished jobs that are more than `count`, or that finished before
        `age_before` (microseconds since the epoch); oldest first. Where there are too
        many, the oldest go of those users who have most: nobody's jobs push out the
        records of who has few. One that ended after `now` did so before the clock was
        set back, and is older than all others."""
        query = "SELECT finished, id FROM jobs WHERE state = 'finished' AND finished < ?"
        found = set(self._rows(query, (age_before,)))
        if self.finished_count() > count:
            found.update(self._beyond(count, now))
        return [job_id for _, job_id in sorted(found)]

    def _beyond(self, count: int, now: int) -> Rows:
        """The (finished, id) that are too many, of those users who have most."""
        counts: dict[int, int] = dict(self._rows("SELECT uid, count(*) FROM jobs GROUP BY uid"))
        live = "SELECT uid, count(*) FROM jobs INDEXED BY jobs_live WHERE state != 'finished' GROUP BY uid"
        for uid, number in self._rows(live):
            counts[uid] -= number
        most, spare = fairshare.level(counts, count)
        found = [self._oldest_of(uid, number - most, now) for uid, number in counts.items() if number > most]
        spared = sorted((rows[-1] for rows in found), reverse=True)[:spare]
        return [row[1:] for rows in found for row in rows if row not in spared]

    def _oldest_of(self, uid: int, number: int, now: int) -> Rows:
        """(whether it ended by now, when, id) of so many finished jobs."""
        query = """
            SELECT {}, finished, id FROM jobs INDEXED BY jobs_finished
            WHERE state = 'finished' AND uid = ? AND finished {} ? ORDER BY finished, id LIMIT ?
        """
        ahead = self._rows(query.format(0, ">"), (uid, now, number))
        return ahead + self._rows(query.format(1, "<="), (uid, now, number - len(ahead)))

    def _named(self, mine: str, values: tuple[int, ...], name: str) -> Rows:
        """Several that are not finished are several answers: the caller must choose."""
        query = "SELECT record, state FROM jobs WHERE name = ?{} AND state {} 'finished' ORDER BY seq DESC LIMIT {}"
        rows = self._rows(query.format(mine, "!=", _CANDIDATES + 1), (name, *values))
        rows = rows or self._rows(query.format(mine, "=", 1), (name, *values))
        return [(record,) for record, _ in rows]

    def _seq(self, uid: int | None, job_id: str) -> int:
        rows = self._rows("SELECT seq, uid FROM jobs WHERE id = ?", (job_id,))
        if not rows or uid not in (None, rows[0][1]):
            raise _no_such_job(job_id)
        return int(rows[0][0])

    def _rows(self, query: str, values: Sequence[Any] = ()) -> Rows:
        with self._lock, translated(self.path):
            return self._db.execute(query, values).fetchall()

    def together(self, writes: Sequence[Callable[[Self], None]]) -> Refusals:
        """Carry out changes in one transaction or, where that fails, each in its own:
        what each of them raised then, or None."""
        if len(writes) > 1:
            with suppress(Exception):  # then nothing of it was made, and below it shows whose fault it was
                with self._transaction():
                    for write in writes:
                        write(self)
                return [None] * len(writes)
        return [self._refusal(write) for write in writes]

    def _refusal(self, write: Callable[[Self], None]) -> Exception | None:
        try:
            write(self)
        except Exception as error:
            return error
        return None

    @contextmanager
    def _transaction(self, events: Sequence[Entry] = ()) -> Iterator[sqlite3.Connection]:
        """Committed with what is done in it, or with all of a larger one that is under
        way: these events, unless they are there already."""
        with self._lock, translated(self.path):
            if self._db.in_transaction:
                yield self._db
                self._events.append(self._db, events)
                self._joined += events
                return
            self._joined = []
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
                self._events.append(self._db, events)
                self._db.execute("COMMIT")
            except BaseException:
                # SQLite itself has rolled back after some errors (sqlite.org/lang_transaction.html).
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                self._events.stale = True
                raise
        written = (*self._joined, *events)
        for entry in written:
            entry.written = True
        if written:
            self.on_events({entry.event.uid for entry in written if entry.event.uid is not None})


def _job(record: bytes) -> Job:
    try:
        return _decode_job(record)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise errors.InternalError(f"a job's record in state.db is damaged: {error}") from error


def _no_such_job(ref: str) -> errors.NoSuchJob:
    return errors.NoSuchJob(f"no such job: {ref}", id=ref)


def _ambiguous(ref: str, jobs: Jobs) -> errors.AmbiguousId:
    shown = ", ".join(job.id for job in jobs[:_CANDIDATES])
    more = ", …" if len(jobs) > _CANDIDATES else ""
    return errors.AmbiguousId(f"{ref} is more than one job: {shown}{more}", id=ref)
