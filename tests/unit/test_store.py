"""The store on real SQLite files: what it keeps, lists, finds and prunes."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from workerd.errors import AmbiguousId, InternalError, NoSuchJob
from workerd.job import Job, JobSpec, Limits, Reason, State, Usage, change
from workerd.store import Store

ENV = {"PATH": "/bin", "SECRET": "ünïcode\n"}


def job(job_id: str, uid: int = 1000, name: str | None = None, *, state: State = State.QUEUED, at: int = 1) -> Job:
    finished = at if state is State.FINISHED else None
    spec = JobSpec(argv=("sh", "-c", "true"), name=name, limits=Limits(memory=1 << 20, cpus=0.5))
    return Job(id=job_id, uid=uid, gid=uid, groups=(4, uid), spec=spec, state=state, created=at, finished=finished)


def ids(jobs: list[Job]) -> list[str]:
    return [job.id for job in jobs]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.db"


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    opened = Store.open(path)
    yield opened
    opened.close()


def filled(store: Store, *jobs: Job) -> Store:
    for one in jobs:
        store.insert(one, ENV)
    return store


class TestRecords:
    def test_a_job_and_its_environment_come_back_as_they_were(self, store: Store) -> None:
        whole = msgspec.structs.replace(
            job("a1", name="web", state=State.FINISHED),
            reason=Reason.OOM,
            usage=Usage(cpu_usec=2**60, oom_kills=1),
            warnings=("ü",),
            effective=Limits(memory=4096),
        )
        store.insert(whole, ENV)
        assert store.get("a1") == whole
        assert store.environ("a1") == ENV

    def test_an_update_replaces_the_record_and_leaves_the_environment(self, store: Store) -> None:
        filled(store, job("a1"), job("a2"))
        started = change(job("a1"), State.STARTING, pid=7)
        store.update(started)
        assert store.get("a1") == started
        assert store.get("a2") == job("a2")
        assert store.environ("a1") == ENV

    def test_the_columns_follow_the_record(self, store: Store) -> None:
        filled(store, job("a1", name="old"))
        done = change(job("a1", name="new"), State.FINISHED, finished=99)
        store.update(done)
        assert store.find(1000, "new") == done
        assert store.live() == []
        assert store.prune_candidates(1, 100) == ["a1"]
        with pytest.raises(NoSuchJob):
            store.find(1000, "old")

    def test_the_same_id_twice_is_refused_and_the_first_stays(self, store: Store) -> None:
        filled(store, job("a1"))
        with pytest.raises(InternalError, match="already recorded"):
            store.insert(job("a1", uid=1001), {})
        assert store.get("a1").uid == 1000
        assert store.environ("a1") == ENV

    def test_unknown_ids_are_no_such_job(self, store: Store) -> None:
        for ask in (store.get, store.environ, lambda job_id: store.update(job(job_id))):
            with pytest.raises(NoSuchJob, match="no such job: a1"):
                ask("a1")

    def test_update_many_is_all_or_nothing(self, store: Store) -> None:
        filled(store, job("a1"), job("a2"))
        with pytest.raises(NoSuchJob):
            store.update_many([change(job("a1"), State.STARTING), job("a3")])
        assert store.get("a1").state is State.QUEUED
        store.update_many([change(job(job_id), State.STARTING) for job_id in ("a1", "a2")])
        assert {one.state for one in store.live()} == {State.STARTING}

    def test_deleted_jobs_are_gone_with_their_environment(self, store: Store) -> None:
        filled(store, job("a1"), job("a2"))
        store.delete(["a1", "unknown"])
        assert ids(store.list(None)) == ["a2"]
        with pytest.raises(NoSuchJob):
            store.environ("a1")

    def test_live_is_all_that_is_not_finished_oldest_first(self, store: Store) -> None:
        filled(store, *(job(f"a{number}", state=state) for number, state in enumerate(State)))
        assert [one.state for one in store.live()] == [state for state in State if state is not State.FINISHED]

    def test_it_is_there_after_close_and_open(self, store: Store, path: Path) -> None:
        filled(store, job("a1"))
        store.close()
        store.close()
        again = Store.open(path)
        assert again.get("a1") == job("a1")
        assert (again.created, again.set_aside) == (False, None)
        again.close()

    def test_any_thread_may_use_it(self, store: Store) -> None:
        def insert(first: str) -> None:
            for number in range(50):
                store.insert(job(f"{first}{number}"), ENV)
                store.sync()

        threads = [threading.Thread(target=insert, args=(letter,)) for letter in "abcd"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(store.list(None)) == 200

    def test_nothing_is_readable_by_others(self, path: Path) -> None:
        before = os.umask(0)
        try:
            store = filled(Store.open(path), job("a1"))
        finally:
            os.umask(before)
        assert {stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()} == {0o600}
        store.close()

    def test_a_file_that_others_could_read_is_closed_to_them(self, store: Store, path: Path) -> None:
        store.close()
        path.chmod(0o644)
        Store.open(path).close()
        assert stat.S_IMODE(path.stat().st_mode) == 0o600

    def test_damage_found_later_says_what_to_do(self, store: Store) -> None:
        filled(store, job("a1", state=State.FINISHED))
        store._db.execute("UPDATE jobs SET record = x'7b'")
        with pytest.raises(InternalError, match="damaged"):
            store.get("a1")


class TestList:
    @pytest.fixture
    def store(self, store: Store) -> Store:
        """b0, c1, b2, c3 …: users 1000 and 1001 by turns, every fourth one running."""
        for number in range(20):
            uid = 1000 + number % 2
            state = State.RUNNING if number % 4 == 0 else State.FINISHED
            store.insert(job(f"{'bc'[number % 2]}{number}", uid, state=state), ENV)
        return store

    def test_is_newest_first(self, store: Store) -> None:
        assert ids(store.list(None, limit=3)) == ["c19", "b18", "c17"]

    def test_of_a_user_has_only_theirs(self, store: Store) -> None:
        assert ids(store.list(1000)) == [f"b{number}" for number in range(18, -1, -2)]
        assert store.list(1002) == []

    def test_of_some_states_has_only_those(self, store: Store) -> None:
        assert ids(store.list(1000, {State.RUNNING, State.QUEUED})) == ["b16", "b12", "b8", "b4", "b0"]
        assert ids(store.list(None, (State.RUNNING,))) == ["b16", "b12", "b8", "b4", "b0"]
        assert ids(store.list(1000, [State.FINISHED], 2)) == ["b18", "b14"]
        assert len(store.list(None, set(State))) == 20

    @pytest.mark.parametrize("uid", [None, 1000])
    @pytest.mark.parametrize("states", [(), (State.RUNNING,), (State.FINISHED,)])
    def test_pages_follow_each_other_without_a_gap(self, store: Store, uid: int | None, states: list[State]) -> None:
        whole, pages, before = ids(store.list(uid, states)), [], None
        while page := ids(store.list(uid, states, 3, before)):
            pages += page
            before = page[-1]
        assert pages == whole

    def test_a_new_job_does_not_move_the_next_page(self, store: Store) -> None:
        store.insert(job("b20"), ENV)
        assert ids(store.list(None, (), 2, "b18")) == ["c17", "b16"]

    def test_a_page_after_another_users_job_is_as_after_an_unknown_one(self, store: Store) -> None:
        complaints = set()
        for before in ("c5", "c99"):
            with pytest.raises(NoSuchJob) as caught:
                store.list(1000, before=before)
            complaints.add(caught.value.message.replace(before, "…"))
        assert complaints == {"no such job: …"}


class TestFind:
    @pytest.fixture
    def store(self, store: Store) -> Store:
        return filled(
            store,
            job("abcd", name="web", state=State.FINISHED),
            job("abce", name="web", state=State.FINISHED),
            job("abxx", 1001, name="web", state=State.RUNNING),
            job("b0", name="db", state=State.RUNNING),
            job("b1", name="db", state=State.FINISHED),
            job("web1", state=State.FINISHED),
            job("b", state=State.FINISHED),
        )

    @pytest.mark.parametrize(
        ("uid", "ref", "found"),
        [
            (1000, "abcd", "abcd"),
            (None, "abxx", "abxx"),
            (1001, "abxx", "abxx"),
            (1000, "b", "b"),
            (1000, "db", "b0"),
            (1000, "web", "abce"),
            (1001, "web", "abxx"),
            (None, "web", "abxx"),
            (1000, "web1", "web1"),
            (1000, "we", "web1"),
            (1001, "a", "abxx"),
            (None, "abx", "abxx"),
        ],
        ids=lambda value: str(value),
    )
    def test_full_id_then_name_then_prefix(self, store: Store, uid: int | None, ref: str, found: str) -> None:
        assert store.find(uid, ref).id == found

    @pytest.mark.parametrize(
        "ref", ["abxx", "abx", "nothing", "", "abcdefghijk", "%", "_", "a%", "*", "abcd\0", "Abcd", "💥", "' OR 1=1 --"]
    )
    def test_what_is_not_there_and_what_is_anothers_is_the_same_error(self, store: Store, ref: str) -> None:
        with pytest.raises(NoSuchJob) as caught:
            store.find(1000, ref)
        assert caught.value.message == f"no such job: {ref}"
        assert caught.value.data == {"id": ref}

    def test_a_prefix_of_several_says_which(self, store: Store) -> None:
        with pytest.raises(AmbiguousId, match=r"abc is more than one job: abcd, abce$"):
            store.find(1000, "abc")

    def test_another_users_job_is_no_candidate(self, store: Store) -> None:
        with pytest.raises(AmbiguousId, match=r"ab is more than one job: abcd, abce$"):
            store.find(1000, "ab")
        with pytest.raises(AmbiguousId, match=r"ab is more than one job: abcd, abce, abxx$"):
            store.find(None, "ab")

    def test_many_candidates_are_cut_short(self, store: Store) -> None:
        filled(store, *(job(f"z{letter}") for letter in "abcdefgh"))
        with pytest.raises(AmbiguousId, match=r"za, zb, zc, zd, ze, …$"):
            store.find(1000, "z")

    def test_everybodys_names_come_after_ones_own(self, store: Store) -> None:
        filled(store, job("r1", 0, "backup", state=State.FINISHED), job("e1", 1001, "backup"))
        assert store.find(None, "backup").id == "e1"
        assert store.find(None, "backup", first=0).id == "r1"
        assert store.find(None, "e1", first=0).id == "e1"

    def test_a_name_of_several_that_are_not_finished_is_not_guessed(self, store: Store) -> None:
        filled(store, job("c1", name="db"))
        with pytest.raises(AmbiguousId, match=r"db is more than one job: c1, b0$"):
            store.find(1000, "db")


class TestPrune:
    @pytest.fixture
    def store(self, store: Store) -> Store:
        for number in (3, 1, 2, 5, 4):
            store.insert(job(f"a{number}", 1000 + number, state=State.FINISHED, at=number * 10), ENV)
        return filled(store, job("running", state=State.RUNNING, at=1))

    def test_counts_finished_jobs_only(self, store: Store) -> None:
        assert store.finished_count() == 5

    @pytest.mark.parametrize(
        ("count", "before", "expected"),
        [
            (5, 0, []),
            (9, 0, []),
            (3, 0, ["a1", "a2"]),
            (0, 0, ["a1", "a2", "a3", "a4", "a5"]),
            (9, 30, ["a1", "a2"]),
            (9, 31, ["a1", "a2", "a3"]),
            (4, 30, ["a1", "a2"]),
            (2, 20, ["a1", "a2", "a3"]),
        ],
    )
    def test_takes_the_oldest_beyond_the_count_or_the_age(
        self, store: Store, count: int, before: int, expected: list[str]
    ) -> None:
        assert store.prune_candidates(count, before) == expected

    def test_one_users_jobs_do_not_push_out_anothers(self, store: Store) -> None:
        filled(store, job("mine", 1, state=State.FINISHED, at=1), job("live", 2))
        filled(store, *(job(f"x{number}", 2, state=State.FINISHED, at=100 + number) for number in range(10)))
        assert store.prune_candidates(9, -1) == [f"x{number}" for number in range(10) if number < 7]


LARGE = 100_000
PAGE = LARGE // 5


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """A long history of two users, with one job of 1001 that runs."""
    opened = Store.open(tmp_path_factory.mktemp("large") / "state.db")
    template = msgspec.json.encode(job("ID", state=State.FINISHED)).decode()
    rows = [
        (f"{number:010d}", 1000 + number % 2, f"n{number % 99}", "finished", number, number) for number in range(LARGE)
    ]
    rows[7] = (*rows[7][:3], "running", *rows[7][4:])
    with opened._transaction() as db:
        db.executemany(
            "INSERT INTO jobs (id, uid, name, state, created, finished, record) VALUES (?, ?, ?, ?, ?, ?, ?)",
            [(*row, template.replace('"ID"', f'"{row[0]}"').encode()) for row in rows],
        )
    yield opened
    opened.close()


class TestLargeHistory:
    """100,000 jobs: a page, a name, a prefix by their indexes, what has to count them in one go.
    Measured in the instructions of SQLite's virtual machine, of which a scan takes several a row
    (`make bench` has the times)."""

    @pytest.mark.parametrize(
        ("ask", "most"),
        [
            (lambda store: store.list(1000), PAGE),
            (lambda store: store.list(None), PAGE),
            (lambda store: store.list(1000, (State.RUNNING, State.QUEUED)), PAGE),
            (lambda store: store.list(None, (State.RUNNING,)), PAGE),
            (lambda store: store.list(1000, (State.FINISHED,), 1000, "0000050000"), PAGE),
            (lambda store: store.list(1002), PAGE),
            (lambda store: store.find(1001, "n5"), PAGE),
            (lambda store: store.find(None, "0000098765"), PAGE),
            (lambda store: store.live(), PAGE),
            (lambda store: store.finished_count(), 4 * LARGE),
            (lambda store: store.prune_candidates(LARGE - 100, 10), 12 * LARGE),
            (lambda store: store.prune_candidates(LARGE, 10), 4 * LARGE),
        ],
        ids=["own", "all", "own-live", "all-live", "middle", "none", "name", "id", "live", "count", "prune", "few"],
    )
    def test_what_an_answer_takes(self, large: Store, ask: Callable[[Store], object], most: int) -> None:
        instructions = 0

        def count() -> int:
            nonlocal instructions
            instructions += 100
            return 0

        large._db.set_progress_handler(count, 100)
        ask(large)
        large._db.set_progress_handler(None, 0)
        assert instructions <= most

    def test_no_listing_sorts_or_reads_everything(self, large: Store) -> None:
        queries: list[str] = []
        large._db.set_trace_callback(queries.append)
        for uid in (None, 1000):
            for states in ((), (State.RUNNING,), (State.FINISHED,)):
                large.list(uid, states, 10, "0000050000")
        large._db.set_trace_callback(None)
        for query in queries:
            plan = " ".join(row[3] for row in large._db.execute(f"EXPLAIN QUERY PLAN {query}"))
            assert "TEMP B-TREE" not in plan, (query, plan)
            assert "SEARCH" in plan, (query, plan)
