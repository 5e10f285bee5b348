"""The events of jobs in the database: written with the change that they tell of, read by
cursor, the oldest removed to make room.

Every event has two numbers: one among all, for admins, and one among its user's own, so
that a user's cursors do not say how much others do. Numbers only grow, also where a power
cut takes back the last commits: each boot begins a range of its own.
What must hold: whoever reads on from a cursor gets every later event of his that was
recorded, in that order, or a `gap` first. The tables are additions to the database's
schema which an older workerd does not look at.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Collection, Iterable
from typing import NamedTuple

import msgspec

from workerd import fairshare
from workerd.errors import InvalidParams
from workerd.events import Entry, Event, EventKind
from workerd.job import new_id

KEPT = 100_000
"""events, of all users together; who has most gives way first"""
_SLACK = 256
"""above that before some are removed"""
_BOOT_BITS = 32
"""numbers of one boot"""
_ALL = "all"
_EVERYBODY = -1
"""stands for a uid where all events together are meant"""
NOW, FIRST = "now", "first"
"""in place of a cursor: behind the newest event, before the oldest that is kept"""

_STATEMENTS = (
    """CREATE TABLE IF NOT EXISTS events (seq INTEGER PRIMARY KEY, uid INTEGER NOT NULL, own INTEGER NOT NULL,
        job TEXT NOT NULL, event BLOB NOT NULL, UNIQUE (uid, own)) STRICT""",
    """CREATE TABLE IF NOT EXISTS events_gone (uid INTEGER PRIMARY KEY, upto INTEGER NOT NULL) STRICT""",
    """CREATE TABLE IF NOT EXISTS events_origin (one INTEGER PRIMARY KEY, epoch TEXT NOT NULL,
        boot TEXT NOT NULL, base INTEGER NOT NULL) STRICT""",
)
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Event).decode


class Query(NamedTuple):
    uid: int | None
    """whose; None: everybody's"""
    since: str
    """a cursor, NOW or FIRST"""
    jobs: tuple[str, ...]
    """of these alone; none: of all"""
    limit: int


class Page(NamedTuple):
    events: tuple[Event, ...]
    next: str
    """the cursor behind the last of them, or behind all that were looked at"""
    more: bool
    """whether there are more by now"""


class EventTable:
    """Belongs to a store, whose lock and transactions hold around every call."""

    def __init__(self, db: sqlite3.Connection, boot_id: str, kept: int = KEPT) -> None:
        self._boot_id = boot_id
        self._kept = kept
        self._epoch = new_id()
        self.stale = False
        """set it where a transaction was undone"""
        self._load(db)

    def _load(self, db: sqlite3.Connection) -> None:
        """Take over what is committed."""
        self.stale = False
        self._counts: dict[int, int] = {}
        self._last: dict[int, int] = {}
        origin = None
        if db.execute("SELECT 1 FROM sqlite_master WHERE name = 'events_origin'").fetchone():
            origin = db.execute("SELECT epoch, boot, base FROM events_origin").fetchone()
        self._made = origin is not None
        if origin is None:
            self._base = 0
            return
        self._epoch, boot, self._base = origin
        for uid, count, last in db.execute("SELECT uid, count(*), max(own) FROM events GROUP BY uid"):
            self._counts[uid], self._last[uid] = count, last
        (self._last[_EVERYBODY],) = db.execute("SELECT coalesce(max(seq), 0) FROM events").fetchone()
        if boot != self._boot_id:
            self._base = ((self._base >> _BOOT_BITS) + 1) << _BOOT_BITS
            self._made = False

    def append(self, db: sqlite3.Connection, entries: Iterable[Entry]) -> None:
        """Within a transaction; those that are written already are left out."""
        self._refresh(db)
        for entry in entries:
            event = entry.event
            if entry.written or event.uid is None:
                continue
            if not self._made:
                self._make(db)
            values = (self._next(_EVERYBODY), event.uid, self._next(event.uid), event.id, _encode(event))
            db.execute("INSERT INTO events (seq, uid, own, job, event) VALUES (?, ?, ?, ?, ?)", values)
            self._counts[event.uid] = self._counts.get(event.uid, 0) + 1
        if sum(self._counts.values()) > self._kept + _SLACK:
            self._make_room(db)

    def read(self, db: sqlite3.Connection, query: Query) -> Page:
        """Raises InvalidParams for what is no cursor, or not one of these events."""
        self._refresh(db)
        start, gap = self._start(db, query)
        found = self._rows(db, query, start)
        events = [self._shown(query, number, record) for number, record in found[: query.limit]]
        more = len(found) > query.limit
        if gap is not None:
            now = time.time_ns() // 1000
            events.insert(0, Event(EventKind.GAP, now, self._cursor(query.uid, start), detail=gap))
        end = found[query.limit - 1][0] if more else max(start, self._newest(query.uid))
        return Page(tuple(events), self._cursor(query.uid, end), more)

    def _refresh(self, db: sqlite3.Connection) -> None:
        if self.stale:
            self._load(db)

    def _make(self, db: sqlite3.Connection) -> None:
        for statement in _STATEMENTS:
            db.execute(statement)
        values = (self._epoch, self._boot_id, self._base)
        db.execute("INSERT OR REPLACE INTO events_origin (one, epoch, boot, base) VALUES (1, ?, ?, ?)", values)
        self._made = True

    def _next(self, uid: int) -> int:
        number = max(self._last.get(uid, 0), self._base) + 1
        self._last[uid] = number
        return number

    def _newest(self, uid: int | None) -> int:
        return self._last.get(_EVERYBODY if uid is None else uid, 0)

    def _make_room(self, db: sqlite3.Connection) -> None:
        """Everybody's newest event stays: the numbers go on from it."""
        most, _ = fairshare.level(self._counts, self._kept)
        for uid, count in self._counts.items():
            excess = count - max(most, 1)
            if excess <= 0:
                continue
            oldest = "SELECT max(own), max(seq) FROM (SELECT own, seq FROM events WHERE uid = ? ORDER BY own LIMIT ?)"
            own, seq = db.execute(oldest, (uid, excess)).fetchone()
            db.execute("DELETE FROM events WHERE uid = ? AND own <= ?", (uid, own))
            for whose, upto in ((uid, own), (_EVERYBODY, seq)):
                db.execute(
                    "INSERT INTO events_gone (uid, upto) VALUES (?, ?) "
                    "ON CONFLICT (uid) DO UPDATE SET upto = max(upto, excluded.upto)",
                    (whose, upto),
                )
            self._counts[uid] = count - excess

    def _start(self, db: sqlite3.Connection, query: Query) -> tuple[int, str | None]:
        """(the number behind which to read, why events between it and the cursor are missing)"""
        if query.since == NOW:
            return self._newest(query.uid), None
        if query.since == FIRST:
            return 0, None
        epoch, number = self._parse(query)
        if epoch != self._epoch or number > self._newest(query.uid):
            return 0, "the record of events was begun anew: what happened before is not in it"
        if number < self._gone(db, query.uid):
            return number, "the oldest events were removed to make room"
        return number, None

    def _gone(self, db: sqlite3.Connection, uid: int | None) -> int:
        if not self._last:
            return 0  # nor is there a table
        whose = _EVERYBODY if uid is None else uid
        row = db.execute("SELECT upto FROM events_gone WHERE uid = ?", (whose,)).fetchone()
        return int(row[0]) if row else 0

    def _rows(self, db: sqlite3.Connection, query: Query, start: int) -> list[tuple[int, bytes]]:
        """(number, record), one more than was asked for."""
        if start >= self._newest(query.uid):
            return []
        number, where, values = ("seq", "seq > ?", [start])
        if query.uid is not None:
            number, where, values = ("own", "uid = ? AND own > ?", [query.uid, start])
        jobs: Collection[str] = query.jobs
        if jobs:
            where += f" AND job IN ({', '.join('?' * len(jobs))})"
        statement = f"SELECT {number}, event FROM events WHERE {where} ORDER BY {number} LIMIT ?"  # noqa: S608 - put together from constants
        return db.execute(statement, (*values, *jobs, query.limit + 1)).fetchall()

    def _shown(self, query: Query, number: int, record: bytes) -> Event:
        return msgspec.structs.replace(_decode(record), cursor=self._cursor(query.uid, number))

    def _cursor(self, uid: int | None, number: int) -> str:
        return f"{self._epoch}.{_ALL if uid is None else uid}.{number}"

    def _parse(self, query: Query) -> tuple[str, int]:
        epoch, _, rest = query.since.partition(".")
        scope, _, number = rest.partition(".")
        if not (epoch and scope and number.isascii() and number.isdecimal() and len(number) < 20):
            raise InvalidParams(
                f"{query.since!r} is no cursor: give one that came with an event, or {NOW} or {FIRST}", field="cursor"
            )
        if scope != (_ALL if query.uid is None else str(query.uid)):
            whose = "everybody's events" if scope == _ALL else "one user's events"
            asked = "everybody's" if query.uid is None else "yours"
            message = f"the cursor {query.since} is one of {whose}, and {asked} were asked for"
            raise InvalidParams(message, field="cursor")
        return epoch, int(number)
