"""`metrics`, as Prometheus' own parser reads it."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.unit.test_workerctl_terminal import plain
from tests.unit.workerctl_fakes import FakeWorkerd, ctl, make_job
from workerctl.prometheus import exposition
from workerd import protocol
from workerd.job import JobSpec, Limits, State, Usage

INFO: dict[str, Any] = {"version": '0.1"\\\n', "started": 1_700_000_000_500_000, "jobs_finished": 7}
RUNNING = make_job(
    id="a" * 10,
    state=State.RUNNING,
    spec=JobSpec(("x",), name="web"),
    effective=Limits(memory=1 << 28),
    usage=Usage(cpu_usec=1_500_000, memory_current=1 << 27, io_pressure_usec=250_000),
)
QUEUED = make_job(id="b" * 10, state=State.QUEUED)


def read(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    families = list(text_string_to_metric_families(text))
    names = [family.name for family in families]
    assert len(names) == len(set(names)), "a family is in two pieces"
    assert all(family.documentation and family.type in ("gauge", "counter") for family in families)
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }


class TestExposition:
    def test_is_read_back_as_it_was_meant(self) -> None:
        found = read(exposition(INFO, [plain(RUNNING), plain(QUEUED)]))
        own = (("id", "a" * 10), ("name", "web"), ("user", "root"))
        assert found["worker_up", ()] == 1
        assert found["worker_info", (("version", INFO["version"]),)] == 1
        assert found["worker_start_time_seconds", ()] == 1_700_000_000.5
        assert found["worker_jobs", (("state", "queued"),)] == found["worker_jobs", (("state", "running"),)] == 1
        assert found["worker_jobs_finished", ()] == 7
        assert found["worker_job_cpu_seconds_total", own] == 1.5
        assert found["worker_job_memory_bytes", own] == 1 << 27
        assert found["worker_job_memory_limit_bytes", own] == 1 << 28
        assert found["worker_job_stalled_seconds_total", (*own[:2], ("resource", "io"), own[2])] == 0.25

    def test_what_is_not_known_is_left_out(self) -> None:
        names = {name for name, _ in read(exposition(INFO, [plain(RUNNING)]))}
        assert "worker_job_oom_kills_total" not in names and "worker_job_read_bytes_total" not in names

    def test_no_daemon(self) -> None:
        assert read(exposition(None, [])) == {("worker_up", ()): 0}


class TestVerb:
    @pytest.fixture
    def fake(self, tmp_path: Path) -> Iterator[FakeWorkerd]:
        made = FakeWorkerd(tmp_path / "sock")
        made.answers["daemon.info"] = lambda params: protocol.InfoResult(
            "1", 1, "boot", 1, "/s", "/d", "/c", ("memory",), (), 1, 2, 3, 0, True
        )
        made.answers["job.list"] = lambda params: protocol.ListResult((RUNNING,))
        yield made
        made.close()

    def test_prints_nothing_else(self, fake: FakeWorkerd) -> None:
        ran = ctl(fake, "metrics")
        assert ran.code == 0 and not ran.err and ("worker_up", ()) in read(ran.out.decode())
        names = {name for name, _ in read(ctl(fake, "metrics", "--no-jobs").out.decode())}
        assert "worker_jobs" in names and not any(name.startswith("worker_job_") for name in names)

    def test_a_file_is_replaced_whole_and_can_be_read_by_others(self, fake: FakeWorkerd, tmp_path: Path) -> None:
        path = tmp_path / "out" / "worker.prom"
        path.parent.mkdir()
        path.write_text("old")
        assert ctl(fake, "metrics", "-o", str(path)).out == b"" and ("worker_up", ()) in read(path.read_text())
        assert list(path.parent.iterdir()) == [path] and stat.S_IMODE(path.stat().st_mode) == 0o644
        assert ctl(fake, "metrics", "-o", str(tmp_path / "none" / "x")).code == 125

    def test_no_daemon_is_a_figure_too(self, tmp_path: Path) -> None:
        words: list[Any] = ["metrics", "--socket", str(tmp_path / "none")]
        ran = ctl(None, *words)
        assert ran.code == 125 and read(ran.out.decode()) == {("worker_up", ()): 0} and "not running" in ran.err
        assert ctl(None, *words, "-o", str(tmp_path / "file")).code == 0
        assert read((tmp_path / "file").read_text()) == {("worker_up", ()): 0}
