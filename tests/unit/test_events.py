"""What happens to jobs: which events two recorded states make, and how they are kept and read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from workerd import eventstore
from workerd.errors import Exhausted, InvalidParams, NoSuchJob
from workerd.events import EventKind, changes, entries
from workerd.eventstore import EventTable, Page, Query
from workerd.job import Job, JobSpec, Limits, Reason, StartError, State, StopOrder, Try, Usage
from workerd.store import Store


def job(state: State = State.RUNNING, uid: int = 1000, job_id: str = "a", **fields: Any) -> Job:
    spec = fields.pop("spec", JobSpec(argv=("true",)))
    return Job(id=job_id, uid=uid, gid=uid, groups=(), spec=spec, state=state, created=1, **fields)


def kinds(before: Job | None, after: Job, used: Usage | None = None) -> list[str]:
    return [str(event.kind) for event in changes(before, after, 5, used)]


class TestChanges:
    def test_a_new_job_comes_into_its_first_state(self) -> None:
        (event,) = changes(None, job(State.QUEUED, spec=JobSpec(argv=("true",), name="build")), 5)
        assert (event.kind, event.state, event.id, event.uid, event.name, event.time) == (
            EventKind.STATE,
            State.QUEUED,
            "a",
            1000,
            "build",
            5,
        )

    def test_what_ran_and_ended_unseen_did_run(self) -> None:
        ended = job(State.FINISHED, reason=Reason.EXITED, exit_code=0, started=2, usage=Usage(oom_kills=1))
        found = changes(job(State.STARTING), ended, 5)
        assert [(event.kind, event.state) for event in found] == [
            (EventKind.STATE, State.RUNNING),
            (EventKind.OOM, State.RUNNING),
            (EventKind.STATE, State.FINISHED),
        ]
        retried = job(State.QUEUED, restarts=1, tries=(Try(Reason.EXITED, 4, started=2),))
        assert kinds(job(State.STARTING), retried) == ["state", "retry"]

    def test_what_changes_nothing_that_is_told_makes_no_event(self) -> None:
        assert changes(job(), job(pid=17, warnings=("w",)), 5) == ()

    def test_an_end_says_why(self) -> None:
        (event,) = changes(job(), job(State.FINISHED, reason=Reason.SIGNALED, signal=11), 5)
        assert (event.state, event.reason, event.signal, event.exit_code) == (State.FINISHED, Reason.SIGNALED, 11, None)

    def test_a_start_that_failed_says_what_failed_and_no_more_than_that(self) -> None:
        error = StartError("exec", 2, "x" * 9000)
        (event,) = changes(job(State.STARTING), job(State.FINISHED, reason=Reason.START_FAILED, start_error=error), 5)
        assert event.detail is not None and event.detail.startswith("xxx") and len(event.detail) == 400

    @pytest.mark.parametrize(
        ("fields", "detail"),
        [({"stop_requested": True}, "asked for"), ({"timed_out": "cpu-time"}, "cpu-time")],
    )
    def test_a_stop_says_whose_wish_it_is_and_its_signal(self, fields: dict[str, Any], detail: str) -> None:
        (event,) = changes(job(), job(State.STOPPING, stop=StopOrder(15, 0), **fields), 5)
        assert (event.detail, event.signal) == (detail, 15)

    def test_a_retry_says_how_the_try_before_it_ended(self) -> None:
        last = Try(Reason.EXITED, 4, exit_code=3)
        (event,) = changes(job(), job(State.QUEUED, restarts=1, tries=(last,)), 5)
        assert (event.kind, event.state, event.reason, event.exit_code, event.restarts) == (
            EventKind.RETRY,
            State.QUEUED,
            Reason.EXITED,
            3,
            1,
        )

    def test_what_its_end_finds_of_limits_comes_before_it_in_the_order_of_its_causes(self) -> None:
        ended = job(State.FINISHED, reason=Reason.OOM, usage=Usage(oom_kills=1, memory_max_hits=30, pids_max_hits=2))
        found = changes(job(usage=Usage(memory_max_hits=2, pids_max_hits=2)), ended, 5)
        assert [(event.kind, event.limit, event.count, event.state) for event in found] == [
            (EventKind.LIMIT, "memory", 30, State.RUNNING),
            (EventKind.OOM, None, 1, State.RUNNING),
            (EventKind.STATE, None, None, State.FINISHED),
        ]

    def test_what_a_try_hit_is_told_though_the_next_one_counts_anew(self) -> None:
        again = job(State.QUEUED, restarts=1, tries=(Try(Reason.OOM, 4),))
        assert kinds(job(), again, Usage(oom_kills=1)) == ["oom", "retry"]

    def test_another_name_and_other_limits(self) -> None:
        before = job(spec=JobSpec(argv=("true",), name="old"))
        spec = JobSpec(argv=("true",), name="new", limits=Limits(memory=5, pids=3), timeout=9)
        found = changes(before, job(spec=spec), 5)
        assert [(str(event.kind), event.name, event.detail) for event in found] == [
            ("renamed", "new", "was old"),
            ("updated", "new", "memory, pids, timeout"),
        ]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store.open(tmp_path / "state.db")
    yield made
    made.close()


def insert(store: Store, job_id: str, uid: int = 1000) -> None:
    new = job(State.STARTING, uid, job_id)
    store.insert(new, {}, entries(changes(None, new, 5)))


def read(
    store: Store, since: str = "first", uid: int | None = 1000, limit: int = 500, jobs: tuple[str, ...] = ()
) -> Page:
    return store.read_events(Query(uid, since, jobs, limit))


def ids(page: Page) -> list[str | None]:
    return [event.id for event in page.events]


class TestReading:
    def test_in_the_order_of_the_commits_and_on_from_a_cursor(self, store: Store) -> None:
        for job_id in "abc":
            insert(store, job_id)
        page = read(store, limit=2)
        assert ids(page) == ["a", "b"] and page.more
        rest = read(store, page.next)
        assert ids(rest) == ["c"] and not rest.more
        assert ids(read(store, page.events[0].cursor)) == ["b", "c"]
        assert ids(read(store, rest.next)) == []

    def test_now_is_behind_all_that_there_is(self, store: Store) -> None:
        insert(store, "a")
        page = read(store, "now")
        assert page.events == ()
        insert(store, "b")
        assert ids(read(store, page.next)) == ["b"]

    def test_before_anything_ever_happened(self, store: Store) -> None:
        start = read(store, "now").next
        insert(store, "a")
        assert ids(read(store, start)) == ["a"]

    def test_of_others_neither_events_nor_how_many_they_are(self, store: Store) -> None:
        insert(store, "a")
        mine = read(store, "now").next
        for number in range(50):
            insert(store, f"x{number}", uid=2000)
        assert read(store, "now").next == mine
        insert(store, "b")
        page = read(store, mine)
        assert ids(page) == ["b"]
        assert int(page.next.rpartition(".")[2]) == int(mine.rpartition(".")[2]) + 1

    def test_everybody_s_for_admins(self, store: Store) -> None:
        for job_id, uid in (("a", 1000), ("b", 2000), ("c", 1000)):
            insert(store, job_id, uid)
        assert ids(read(store, uid=None)) == ["a", "b", "c"]

    def test_of_some_jobs_alone_and_on_from_there(self, store: Store) -> None:
        for job_id in "abcab":
            with_event = job(State.STARTING, 1000, job_id)
            event = entries(changes(None, with_event, 5))
            try:
                store.update(with_event, event)
            except NoSuchJob:
                store.insert(with_event, {}, event)
        page = read(store, jobs=("b",))
        assert ids(page) == ["b", "b"]
        assert read(store, page.next, jobs=("b",)).events == ()

    def test_a_removed_job_is_told_once(self, store: Store) -> None:
        insert(store, "a")
        store.delete(["a", "a", "unknown"])
        assert [str(event.kind) for event in read(store).events] == ["state", "removed"]

    @pytest.mark.parametrize("cursor", ["", "x", "1.2", "a.1000.-4", "a.1000.²", "a.1000." + "9" * 30])
    def test_what_is_no_cursor_is_refused(self, store: Store, cursor: str) -> None:
        with pytest.raises(InvalidParams, match="is no cursor"):
            read(store, cursor)

    def test_a_cursor_of_one_kind_is_none_of_the_other(self, store: Store) -> None:
        insert(store, "a")
        with pytest.raises(InvalidParams, match="one of one user's events, and everybody's were asked for"):
            read(store, read(store).next, uid=None)
        with pytest.raises(InvalidParams, match="one of everybody's events"):
            read(store, read(store, uid=None).next)


class TestHonesty:
    """What was recorded is told, once; what is gone is said to be."""

    def test_through_a_restart(self, store: Store, tmp_path: Path) -> None:
        insert(store, "a")
        cursor = read(store).next
        store.close()
        again = Store.open(tmp_path / "state.db")
        insert(again, "b")
        assert ids(read(again, cursor)) == ["b"]
        again.close()

    def test_nothing_of_a_change_that_was_not_committed(self, store: Store) -> None:
        insert(store, "a")
        cursor = read(store).next
        with pytest.raises(NoSuchJob):
            store.update(job(job_id="b"), entries(changes(None, job(job_id="b"), 5)))
        assert read(store, cursor) == Page((), cursor, more=False)
        insert(store, "c")
        assert ids(read(store, cursor)) == ["c"]

    def test_once_however_often_it_is_tried(self, store: Store) -> None:
        insert(store, "a")
        told = entries(changes(job(State.STARTING), job(), 5))
        with pytest.raises(NoSuchJob):
            store.update(job(job_id="b"), told)
        store.update(job(), told)
        store.update(job(), told)
        assert len(read(store).events) == 2

    def test_a_cursor_of_another_database_gives_a_gap_and_all_there_is(self, store: Store) -> None:
        insert(store, "a")
        page = read(store, "zzzzzzzzzz.1000.7")
        assert [str(event.kind) for event in page.events] == ["gap", "state"]
        assert page.events[0].id is None and "begun anew" in (page.events[0].detail or "")
        assert ids(read(store, page.events[0].cursor)) == ["a"]

    def test_a_power_cut_that_takes_events_back_never_hides_later_ones(
        self, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        insert(store, "a")
        kept = (tmp_path / "state.db").read_bytes(), (tmp_path / "state.db-wal").read_bytes()
        insert(store, "b")
        told = read(store).next  # of what the disk then did not have
        store.close()
        (tmp_path / "state.db").write_bytes(kept[0])
        (tmp_path / "state.db-wal").write_bytes(kept[1])
        monkeypatch.setattr("workerd.procfs.boot_id", lambda: "another boot")
        again = Store.open(tmp_path / "state.db")
        assert ids(read(again)) == ["a"]
        insert(again, "c")
        insert(again, "d")
        assert ids(read(again, told))[-2:] == ["c", "d"]
        again.close()


class TestRoom:
    @pytest.fixture(autouse=True)
    def few(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(eventstore, "_SLACK", 4)
        monkeypatch.setattr(EventTable.__init__, "__defaults__", (20,))

    def test_the_oldest_of_who_has_most_give_way_and_that_is_said(self, store: Store) -> None:
        insert(store, "m", uid=2000)
        early, others = read(store, "now").next, read(store, "first", uid=2000)
        insert(store, "b0")
        for number in range(1, 200):
            insert(store, f"b{number}")
        page = read(store, early)
        assert str(page.events[0].kind) == "gap" and "removed" in (page.events[0].detail or "")
        assert 19 <= len(page.events) - 1 <= 24 and page.events[-1].id == "b199"
        assert read(store, "first", uid=2000).events == others.events, "who has few loses nothing"
        assert str(read(store, "now", uid=2000).next) == others.next
        everybody = read(store, read(store, "now", uid=None).next.rpartition(".")[0] + ".1", uid=None)
        assert str(everybody.events[0].kind) == "gap"

    def test_who_is_up_to_date_sees_no_gap(self, store: Store) -> None:
        cursor, seen = read(store, "now").next, []
        for number in range(100):
            insert(store, f"b{number}")
            page = read(store, cursor)
            seen += ids(page)
            cursor = page.next
        assert seen == [f"b{number}" for number in range(100)]

    def test_numbers_go_on_where_only_the_newest_is_left(self, store: Store, tmp_path: Path) -> None:
        for number in range(60):
            insert(store, f"b{number}")
        cursor = read(store).next
        store.close()
        again = Store.open(tmp_path / "state.db")
        insert(again, "last")
        assert ids(read(again, cursor)) == ["last"]
        again.close()


class TestAnOlderDatabase:
    def test_without_the_tables_it_is_opened_and_they_are_made(self, tmp_path: Path) -> None:
        made = Store.open(tmp_path / "state.db")
        assert read(made).events == ()
        made.close()
        again = Store.open(tmp_path / "state.db")
        assert again.set_aside is None
        insert(again, "a")
        assert ids(read(again)) == ["a"]
        again.close()


def test_a_full_disk_costs_no_event(tmp_path: Path) -> None:
    """Nothing but this test's own store is full: SQLite is told to take no more pages."""
    store = Store.open(tmp_path / "state.db")
    insert(store, "a")
    (pages,) = store._db.execute("PRAGMA page_count").fetchone()
    store._db.execute(f"PRAGMA max_page_count = {pages}")
    big = msgspec.structs.replace(job(), warnings=("x" * 100_000,))
    told = entries(changes(job(State.STARTING), big, 5))
    with pytest.raises(Exhausted):
        store.update(big, told)
    store._db.execute("PRAGMA max_page_count = 1000000")
    store.update(big, told)
    assert [event.state for event in read(store).events] == [State.STARTING, State.RUNNING]
    store.close()
