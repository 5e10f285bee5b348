"""The store's file through kills, damage, locks and full disks."""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

import workerd
from workerd import database
from workerd.errors import Exhausted, NoSuchJob, Unavailable
from workerd.job import Job, JobSpec, State, change
from workerd.store import Store

ENV = {"PATH": "/bin"}
ROOT = Path(workerd.__file__).parents[1]


def job(job_id: str) -> Job:
    spec = JobSpec(argv=("sh", "-c", "true"))
    return Job(id=job_id, uid=1000, gid=1000, groups=(), spec=spec, state=State.QUEUED, created=1)


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


class TestKilled:
    WRITER = """
import sys
from pathlib import Path
from workerd.job import Job, JobSpec, State, change
from workerd.store import Store
store = Store.open(Path(sys.argv[1]))
for number in range(int(sys.argv[2]), 10**6):
    job = Job(id=f"j{number}", uid=1, gid=1, groups=(), spec=JobSpec(argv=("a" * 900,)), state=State.QUEUED, created=1)
    store.insert(job, {"A": "b" * 5000})
    store.update(change(job, State.STARTING))
    print(number, flush=True)
"""

    def test_every_committed_change_survives_sigkill(self, path: Path) -> None:
        chance, reported = random.Random(5), -1
        for _ in range(10):
            with subprocess.Popen(
                [sys.executable, "-c", self.WRITER, str(path), str(reported + 2)],
                cwd=ROOT,
                stdout=subprocess.PIPE,
                text=True,
            ) as writer:
                assert writer.stdout is not None
                reported = int(writer.stdout.readline())
                time.sleep(chance.uniform(0, 0.05))
                writer.kill()
                reported = int(([str(reported), *writer.stdout.read().split("\n")[:-1]])[-1])
            store = Store.open(path)
            assert store.set_aside is None
            found = {one.id: one.state for one in store.live()}
            store.close()
            assert found[f"j{reported}"] is State.STARTING
            # At most the one that was being written is there beyond what was reported, each once.
            assert {int(job_id[1:]) for job_id in found} <= set(range(reported + 2))


class TestUnusable:
    def opened_aside(self, path: Path, why: str = "") -> None:
        """Opening sets the file aside, whole, and gives a store that works."""
        before = path.read_bytes() if path.exists() else None
        store = Store.open(path)
        try:
            aside = store.set_aside
            assert aside is not None, why
            assert aside.name.startswith("state.db.damaged-")
            assert before is None or aside.read_bytes() == before
            assert store.created
            assert store.list(None) == []
            filled(store, job("a1")).update(change(job("a1"), State.STARTING))
        finally:
            store.close()

    @pytest.fixture
    def old(self, path: Path) -> Path:
        """A database of some pages, closed."""
        store = Store.open(path)
        for number in range(100):
            store.insert(job(f"a{number}"), {"A": "b" * 3000})
        store.close()
        return path

    @pytest.mark.parametrize("size", [0, 1, 50, 99, 100, 4095, 4096, 4097, 8192, 100_000])
    def test_a_truncated_one_is_set_aside(self, old: Path, size: int) -> None:
        os.truncate(old, size)
        self.opened_aside(old)

    def test_one_that_lost_its_last_page_is_set_aside(self, old: Path) -> None:
        os.truncate(old, old.stat().st_size - 4096)
        self.opened_aside(old)

    @pytest.mark.parametrize("content", [b"hello", b"\0" * 100_000, b"SQLite format 3\0" + b"\xff" * 5000])
    def test_something_else_is_set_aside(self, path: Path, content: bytes) -> None:
        path.write_bytes(content)
        self.opened_aside(path)

    def test_a_newer_one_is_set_aside(self, old: Path) -> None:
        with closing(sqlite3.connect(old)) as db:
            db.execute("PRAGMA user_version = 2")
        store = Store.open(old)
        assert store.set_aside is not None
        store.close()
        with closing(sqlite3.connect(store.set_aside)) as db:
            assert db.execute("SELECT count(*) FROM jobs").fetchone() == (100,)

    def test_one_with_a_record_that_cannot_be_read_is_set_aside(self, old: Path) -> None:
        db = sqlite3.connect(old)
        with db:
            db.execute("UPDATE jobs SET record = ? WHERE id = 'a50'", (b'{"id":"a50"}',))
        db.close()
        store = Store.open(old)
        assert store.set_aside is not None
        store.close()

    def test_one_without_its_main_file_is_set_aside_and_its_log_not_played(self, old: Path) -> None:
        wal = Path(f"{old}-wal")
        writer = Store.open(old)
        filled(writer, job("b1"))
        shutil.copy(wal, wal.with_suffix(".copy"))
        writer.close()
        old.unlink()
        wal.with_suffix(".copy").rename(wal)
        self.opened_aside(old)

    def test_damage_anywhere_is_set_aside_or_harmless(self, old: Path) -> None:
        """Random bytes overwritten: never an error of another kind, and a store that works."""
        chance, good, aside = random.Random(1), old.read_bytes(), 0
        for turn in range(60):
            bad = bytearray(good)
            for _ in range(chance.choice((1, 20, 2000))):
                bad[chance.randrange(len(bad))] = chance.randrange(256)
            old.write_bytes(bad)
            store = Store.open(old)
            aside += store.set_aside is not None
            filled(store, job(f"new{turn}"))
            assert store.get(f"new{turn}") == job(f"new{turn}")
            store.close()
        assert aside > 20

    def test_a_damaged_log_loses_no_more_than_its_end(self, old: Path) -> None:
        writer = Store.open(old)
        filled(writer, job("b1"), job("b2"))
        wal = Path(f"{old}-wal").read_bytes()
        main = old.read_bytes()
        writer.close()
        old.write_bytes(main)
        Path(f"{old}-wal").write_bytes(wal[:-100])
        store = Store.open(old)
        assert store.set_aside is None
        assert store.get("b1") == job("b1")
        assert store.get("a50") == job("a50")
        store.close()

    def test_several_within_a_second_do_not_overwrite_each_other(self, path: Path) -> None:
        for turn in range(3):
            path.write_bytes(f"bad {turn}".encode())
            Store.open(path).close()
        aside = sorted(file.read_bytes() for file in path.parent.glob("*.damaged-*"))
        assert aside == [b"bad 0", b"bad 1", b"bad 2"]


class TestOpen:
    def test_a_new_one_is_made(self, store: Store, path: Path) -> None:
        assert (store.created, store.set_aside) == (True, None)
        assert path.exists()
        assert not list(path.parent.glob("*.new*"))

    def test_a_draft_that_a_killed_process_left_is_no_hindrance(self, path: Path) -> None:
        Path(f"{path}.new").write_bytes(b"half")
        store = Store.open(path)
        assert (store.created, store.set_aside) == (True, None)
        store.close()

    def test_without_its_directory_it_cannot_be_made(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError):
            Store.open(tmp_path / "none" / "state.db")

    def test_a_second_process_is_told_that_it_is_in_use(
        self, store: Store, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        filled(store, job("a1"))
        code = (
            "import sys; from pathlib import Path; from workerd import database, store, errors\n"
            "database.BUSY_SECONDS = 0.1\n"
            "try: store.Store.open(Path(sys.argv[1]))\n"
            "except errors.Unavailable as error: print(error)"
        )
        ran = subprocess.run(
            [sys.executable, "-c", code, str(path)], cwd=ROOT, capture_output=True, text=True, check=True
        )
        assert ran.stdout == f"{path} is in use by another process: is a second workerd running?\n"
        assert store.get("a1") == job("a1")

    def test_it_waits_for_a_process_that_is_leaving(self, store: Store, path: Path) -> None:
        filled(store, job("a1"))
        leaving = threading.Timer(0.3, store.close)
        leaving.start()
        again = Store.open(path)
        leaving.join()
        assert again.get("a1") == job("a1")
        again.close()


class TestDiskFull:
    def check(self, store: Store, free: Callable[[], None]) -> None:
        """Fill it; every refusal is whole; with room again it goes on."""
        admitted = 0
        with pytest.raises(Exhausted, match="free space"):
            for number in range(100_000):
                store.insert(job(f"a{number}"), {"A": "b" * 20_000})
                admitted += 1
        assert admitted > 0
        assert len(store.live()) == admitted
        with pytest.raises(NoSuchJob):
            store.get(f"a{admitted}")
        free()
        store.insert(job("after"), ENV)
        store.update(change(job("a0"), State.STARTING))
        assert store.get("after") == job("after")
        assert store.get("a0").state is State.STARTING

    def test_refused_changes_are_not_made_and_it_goes_on_afterwards(self, store: Store) -> None:
        def free() -> None:
            store._db.execute("PRAGMA max_page_count = 1000000")

        store._db.execute("PRAGMA max_page_count = 100")
        self.check(store, free)

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small file system")
    def test_on_a_real_full_file_system_too(self, tmp_path: Path) -> None:
        mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(tmp_path)]
        if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
            pytest.skip("mounting is not permitted here")
        try:
            store = Store.open(tmp_path / "state.db")
            (tmp_path / "ballast").write_bytes(b"x" * 500_000)
            self.check(store, (tmp_path / "ballast").unlink)
            store.close()
            again = Store.open(tmp_path / "state.db")
            assert again.set_aside is None
            assert again.get("after") == job("after")
            again.close()
        finally:
            subprocess.run(["umount", str(tmp_path)], check=True)

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small file system")
    def test_a_full_file_system_at_the_first_start_says_so_and_leaves_nothing_half_made(self, tmp_path: Path) -> None:
        mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(tmp_path)]
        if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
            pytest.skip("mounting is not permitted here")
        try:
            (tmp_path / "ballast").write_bytes(b"x" * 56 * 1024)
            with pytest.raises(Exhausted, match="free space"):
                Store.open(tmp_path / "state.db")
            (tmp_path / "ballast").unlink()
            with_room = Store.open(tmp_path / "state.db")
            assert (with_room.created, with_room.set_aside) == (True, None)
            with_room.close()
        finally:
            subprocess.run(["umount", str(tmp_path)], check=True)


class TestErrors:
    @pytest.mark.parametrize(
        ("code", "advice"), [(sqlite3.SQLITE_READONLY, "remount"), (sqlite3.SQLITE_CANTOPEN, "LimitNOFILE")]
    )
    def test_each_says_what_to_do(self, path: Path, code: int, advice: str) -> None:
        error = sqlite3.OperationalError("it failed")
        error.sqlite_errorcode = code | 3 << 8
        with pytest.raises(Exhausted, match=advice), database.translated(path):
            raise error

    def test_another_processs_lock_is_not_taken_for_damage(self, path: Path) -> None:
        error = sqlite3.OperationalError("database is locked")
        error.sqlite_errorcode = sqlite3.SQLITE_BUSY
        with pytest.raises(Unavailable), database.translated(path):
            raise error
