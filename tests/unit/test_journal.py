"""Records in the journal's native protocol, on a real datagram socket; the lives of jobs as records."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from tests.unit.workerctl_fakes import make_job
from workerd.chronicle import Chronicle
from workerd.job import Job, JobSpec, Reason, State
from workerd.journal import JournalHandler, is_stderr


class Journal:
    """Reads datagrams as systemd-journald does (JOURNAL_NATIVE_PROTOCOL)."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(self.path)
        self.socket.settimeout(10)

    def entry(self) -> dict[str, str]:
        data, found = self.socket.recv(1 << 20), {}
        while data:
            line, _, rest = data.partition(b"\n")
            name, equals, value = line.partition(b"=")
            if not equals:
                size = int.from_bytes(rest[:8], "little")
                value, end, data = rest[8 : 8 + size], rest[8 + size : 9 + size], rest[9 + size :]
                assert end == b"\n"
            else:
                data = rest
            found[name.decode()] = value.decode()
        return found


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    made = Journal(tmp_path / "journal")
    yield made
    made.socket.close()


@pytest.fixture
def log(journal: Journal) -> Iterator[logging.Logger]:
    logger = logging.getLogger("workerd.jobs")
    handler = JournalHandler(journal.path)
    before = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    yield logger
    logger.removeHandler(handler)
    handler.close()
    logger.level, logger.propagate = before


class TestHandler:
    def test_a_record_of_a_job_has_its_id(self, journal: Journal, log: logging.Logger) -> None:
        log.warning("job %s: %s", "k3v9q2m7xd", "two\nlines=x")
        entry = journal.entry()
        assert entry["MESSAGE"] == "job k3v9q2m7xd: two\nlines=x"
        assert (entry["JOB_ID"], entry["PRIORITY"], entry["SYSLOG_IDENTIFIER"]) == ("k3v9q2m7xd", "4", "workerd")
        assert entry["CODE_FILE"] == __file__

    def test_others_have_none_and_levels_are_priorities(self, journal: Journal, log: logging.Logger) -> None:
        for level, number in ((logging.CRITICAL, "2"), (logging.ERROR, "3"), (logging.INFO, "6")):
            log.log(level, "serving on %s", "x")
            entry = journal.entry()
            assert entry["PRIORITY"] == number and "JOB_ID" not in entry

    def test_a_traceback_and_what_is_no_utf8_get_through(
        self, journal: Journal, log: logging.Logger, capsys: pytest.CaptureFixture[str]
    ) -> None:
        try:
            raise ValueError("\udce9")
        except ValueError:
            log.exception("x" * 100_000)
        assert capsys.readouterr().err[:100] == ""  # which nobody could print
        assert len(journal.entry()["MESSAGE"]) == 48 << 10

    def test_a_journal_that_is_full_or_gone_blocks_nothing(
        self, journal: Journal, log: logging.Logger, capsys: pytest.CaptureFixture[str]
    ) -> None:
        for number in range(5000):
            log.info("job %s: %d", "x", number)
        text = capsys.readouterr().err
        assert text.startswith("<6>job x: ")
        os.unlink(journal.path)
        log.error("a\nb")
        assert capsys.readouterr().err.endswith("<3>a\n<3>b\n")

    def test_knows_whether_stderr_is_the_journal(self, tmp_path: Path) -> None:
        with (tmp_path / "file").open("w") as file:
            status = os.fstat(file.fileno())
            assert is_stderr(f"{status.st_dev}:{status.st_ino}", file.fileno())
            assert not is_stderr("1:2", file.fileno()) and not is_stderr(None, file.fileno())


class TestChronicle:
    def test_tells_of_each_state_once(self, journal: Journal, log: logging.Logger) -> None:
        told = Chronicle()
        spec = JobSpec(("secret",), name="web")
        first = make_job(uid=1000, state=State.STARTING, spec=spec)
        runs = msgspec.structs.replace(first, state=State.RUNNING)
        for job in (first, runs, runs, msgspec.structs.replace(runs, state=State.PAUSED), runs):
            told(job)
        told(msgspec.structs.replace(runs, state=State.FINISHED, reason=Reason.EXITED, exit_code=3))
        entries = [journal.entry(), journal.entry()]
        assert [entry["MESSAGE"] for entry in entries] == [
            "job k3v9q2m7xd of uid 1000 runs",
            "job k3v9q2m7xd of uid 1000 exited with 3",
        ]
        assert {entry["UID"] for entry in entries} == {"1000"} and {entry["JOB_NAME"] for entry in entries} == {"web"}
        assert (entries[1]["JOB_REASON"], entries[1]["JOB_EXIT_CODE"]) == ("exited", "3")
        assert not any("secret" in value for entry in entries for value in entry.values())
        self.nothing_more(journal)

    def test_what_ran_before_is_not_told_of_again(self, journal: Journal, log: logging.Logger) -> None:
        told = Chronicle()
        job: Job = make_job(state=State.RUNNING)
        told(job)
        told(msgspec.structs.replace(job, state=State.PAUSED))
        told(job)
        self.nothing_more(journal)

    @staticmethod
    def nothing_more(journal: Journal) -> None:
        journal.socket.setblocking(False)
        with pytest.raises(BlockingIOError):
            journal.entry()
