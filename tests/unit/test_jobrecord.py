"""A job's record in its directory: whole or not there, and readable by other versions."""

from __future__ import annotations

import json
import os
from pathlib import Path

import msgspec
import pytest

from workerd import jobrecord
from workerd.job import Job, JobSpec, Limits, Reason, State
from workerd.salvage import read_unknown

ENV = {"PATH": "/bin", "SECRET": "s"}


@pytest.fixture
def job() -> Job:
    spec = JobSpec(argv=("sleep", "1"), name="x", limits=Limits(memory=1 << 20))
    return Job(id="abc", uid=1000, gid=1000, groups=(5,), spec=spec, state=State.STARTING, created=7, boot_id="b")


@pytest.fixture
def place(tmp_path: Path, job: Job) -> str:
    jobrecord.admit(str(tmp_path / "abc"), job, ENV)
    return str(tmp_path / "abc")


def ended(job: Job, code: int) -> Job:
    return msgspec.structs.replace(job, state=State.FINISHED, reason=Reason.EXITED, exit_code=code)


class TestRecord:
    def test_admission_is_read_back_with_its_environment(self, place: str, job: Job) -> None:
        assert jobrecord.load(place) == jobrecord.Admission(job, ENV)
        assert os.stat(f"{place}/job").st_mode & 0o777 == 0o600

    def test_the_end_is_what_was_said_last(self, place: str, job: Job) -> None:
        jobrecord.finish(place, ended(job, 12345))
        jobrecord.finish(place, ended(job, 3))
        assert jobrecord.load(place) == jobrecord.Admission(ended(job, 3), ENV)

    def test_an_end_cut_short_at_any_byte_counts_as_none(self, place: str, job: Job) -> None:
        first = os.path.getsize(f"{place}/job")
        jobrecord.finish(place, ended(job, 3))
        whole = os.path.getsize(f"{place}/job")
        for size in range(whole - 1, first - 1, -1):
            os.truncate(f"{place}/job", size)
            found = jobrecord.load(place)
            assert found is not None and found.job == job

    def test_an_admission_cut_short_is_no_record(self, place: str) -> None:
        os.truncate(f"{place}/job", os.path.getsize(f"{place}/job") - 1)
        assert jobrecord.load(place) is None

    @pytest.mark.parametrize("junk", [b"", b"\n", b"\0" * 4096 + b"\n", b"{}\n", b"[1]\n", b'{"job": {}}\n', b"\xff\n"])
    def test_junk_is_no_record(self, place: str, junk: bytes) -> None:
        Path(place, "job").write_bytes(junk)
        assert jobrecord.load(place) is None

    def test_fields_of_a_newer_version_are_passed_over(self, place: str, job: Job) -> None:
        record = json.loads(Path(place, "job").read_text())
        record["job"]["spec"]["teleport"] = True
        record["job"]["spec"]["limits"]["photons"] = 7
        record["job"]["novel"] = 1
        Path(place, "job").write_text(json.dumps(record) + "\n")
        assert jobrecord.load(place) == jobrecord.Admission(job, ENV)

    def test_a_failed_admission_leaves_nothing(self, tmp_path: Path, job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(*_: object) -> int:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "pwrite", full)
        with pytest.raises(OSError, match="No space"):
            jobrecord.admit(str(tmp_path / "abc"), job, ENV)
        assert os.listdir(tmp_path) == []


class TestSalvage:
    def test_only_what_is_not_known_in_the_order_of_admission(self, tmp_path: Path, job: Job) -> None:
        for name, created in (("one", 3), ("two", 1), ("three", 2)):
            jobrecord.admit(str(tmp_path / name), msgspec.structs.replace(job, id=name, created=created), {})
        (tmp_path / "bare").mkdir()
        found, unreadable = read_unknown(str(tmp_path), frozenset({"three"}))
        assert [each.job.id for each in found] == ["two", "one"]
        assert unreadable == [str(tmp_path / "bare")]

    def test_a_record_in_the_wrong_directory_is_not_believed(self, tmp_path: Path, job: Job) -> None:
        jobrecord.admit(str(tmp_path / "other"), job, {})
        assert read_unknown(str(tmp_path), frozenset()) == ([], [str(tmp_path / "other")])
