"""The cgroup tree and jobs' cgroups, in a real cgroup2 file system.

Needs no controllers but in TestLimits, which takes them where the machine hands
them to the cgroups below its root (a systemd machine with workerd installed).
"""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from workerd import cgrouplimits
from workerd.cgroup import CgroupTree, JobCgroup, default_root, find_mount
from workerd.cgrouplimits import CONTROLLERS
from workerd.clearing import Remains
from workerd.errors import ConfigError, InvalidParams, MissingController
from workerd.job import IoLimit, Limits
from workerd.jobfiles import JobFiles

MOUNT = find_mount()
UID = 1000
Start = Callable[..., "subprocess.Popen[bytes]"]

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="making cgroups takes root"),
    pytest.mark.skipif(MOUNT is None, reason="no cgroup2 file system is mounted"),
]


def remove_tree(path: Path) -> None:
    """With whatever a failed test left in it."""
    for directory, _, _ in os.walk(path):
        for pid in listed(Path(directory)):
            os.kill(int(pid), signal.SIGKILL)
    for directory, _, _ in os.walk(path, topdown=False):
        deadline = time.monotonic() + 10
        while "populated 1" in Path(directory, "cgroup.events").read_text() and time.monotonic() < deadline:
            time.sleep(0.01)
        os.rmdir(directory)


@pytest.fixture
def base() -> Iterator[Path]:
    """A cgroup for the test, from which nothing is handed down."""
    assert MOUNT is not None
    base = MOUNT / f"worker-test-{os.getpid()}"
    base.mkdir()
    yield base
    remove_tree(base)


@pytest.fixture
def tree(base: Path) -> CgroupTree:
    tree = CgroupTree(base / "unit", allow_missing=True)
    tree.prepare()
    return tree


@pytest.fixture
def job(tree: CgroupTree) -> Iterator[JobCgroup]:
    with tree.create("abc", UID) as job:
        yield job


@pytest.fixture
def start() -> Iterator[Start]:
    """start(cgroup directory, *argv): a process in it from its first instruction on."""
    started = []

    def start(path: Path, *argv: str) -> subprocess.Popen[bytes]:
        line = 'echo $$ > "$0/cgroup.procs"; exec "$@"'
        process = subprocess.Popen(["sh", "-c", line, str(path), *(argv or ("sleep", "1000"))])
        started.append(process)
        while process.poll() is None and str(process.pid) not in listed(path):
            pass
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


def listed(path: Path) -> list[str]:
    return (path / "cgroup.procs").read_text().split()


class TestTree:
    def test_default_root_is_the_keepers_unit(self) -> None:
        assert default_root().parts[-2:] == ("worker.slice", "workerd-jobs.service")
        assert (default_root().parent.parent / "cgroup.controllers").exists()

    def test_missing_controllers_are_refused_and_nothing_is_left(self, base: Path) -> None:
        tree = CgroupTree(base / "unit", allow_missing=False)
        with pytest.raises(MissingController, match="cpu, cpuset, io, memory, pids"):
            tree.prepare()
        assert not (base / "unit").exists()

    def test_allow_missing_says_what_is_missing(self, tree: CgroupTree) -> None:
        assert tree.available == frozenset()
        assert tree.missing == CONTROLLERS
        assert (tree.root / "keeper").is_dir()
        assert (tree.root / "jobs").is_dir()

    def test_what_sits_in_root_moves_to_the_keeper(self, base: Path, start: Start) -> None:
        root = base / "unit"
        root.mkdir()
        pids = {str(start(root).pid) for _ in range(3)}
        CgroupTree(root, allow_missing=True).prepare()
        assert listed(root) == []
        assert set(listed(root / "keeper")) == pids

    def test_prepare_again_leaves_a_live_job_alone(self, tree: CgroupTree, job: JobCgroup, start: Start) -> None:
        process = start(job.path)
        again = CgroupTree(tree.root, allow_missing=True)
        again.prepare()
        assert job.procs() == [process.pid]
        assert again.scan() == [(UID, "abc")]
        with again.open("abc", UID) as opened:
            assert os.path.samestat(os.fstat(opened.fd), os.fstat(job.fd))

    def test_the_root_of_the_hierarchy_is_refused(self) -> None:
        assert MOUNT is not None
        if (MOUNT / "cgroup.events").exists():
            pytest.skip("the mount shows a part of the hierarchy (a cgroup namespace)")
        with pytest.raises(ConfigError, match="root of the cgroup hierarchy"):
            CgroupTree(MOUNT, allow_missing=True).prepare()

    def test_another_file_system_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="not in a cgroup2 file system"):
            CgroupTree(tmp_path / "x" / "y", allow_missing=True).prepare()
        assert not (tmp_path / "x").exists()

    def test_scan_finds_jobs_and_nothing_else(self, tree: CgroupTree) -> None:
        for job_id, uid in (("a", 0), ("b", 0), ("c", 1000)):
            tree.create(job_id, uid).close()
        for other in ("uid-0/other", "uid-0/job-a/job-nested", "uid-x", "uid-x/job-d", "other"):
            (tree.root / "jobs" / other).mkdir()
        assert sorted(tree.scan()) == [(0, "a"), (0, "b"), (1000, "c")]

    def test_an_id_is_used_once(self, tree: CgroupTree, job: JobCgroup) -> None:
        with pytest.raises(FileExistsError):
            tree.create("abc", UID)

    def test_opening_what_is_not_there(self, tree: CgroupTree) -> None:
        with pytest.raises(FileNotFoundError):
            tree.open("abc", UID)

    @pytest.mark.parametrize("job_id", ["", "../x", "a/b", "..", "a\n"])
    def test_what_is_no_id_is_no_path(self, tree: CgroupTree, job_id: str) -> None:
        with pytest.raises(ValueError, match="not a job id"):
            tree.create(job_id, UID)

    def test_prune_removes_users_without_jobs(self, tree: CgroupTree, job: JobCgroup) -> None:
        tree.create("other", 0).remove()
        tree.prune()
        assert not (tree.root / "jobs" / "uid-0").exists()
        assert job.path.exists()

    def test_a_total_without_its_controller_is_refused(self, tree: CgroupTree) -> None:
        tree.user_limits(UID, Limits())
        with pytest.raises(MissingController, match="memory"):
            tree.user_limits(UID, Limits(memory=1 << 30))

    def test_create_while_users_are_pruned(self, tree: CgroupTree) -> None:
        done = threading.Event()

        def prune() -> None:
            while not done.is_set():
                tree.prune()

        pruner = threading.Thread(target=prune)
        pruner.start()
        try:
            for number in range(200):
                with tree.create(str(number), UID) as job:
                    job.remove()
        finally:
            done.set()
            pruner.join()
        assert tree.scan() == []


class TestJobCgroup:
    def test_a_child_can_be_cloned_into_it(self, job: JobCgroup) -> None:
        assert not os.get_inheritable(job.fd)
        assert os.path.samestat(os.fstat(job.fd), os.stat(job.path))

    def test_populated_and_procs_count_nested_ones(self, job: JobCgroup, start: Start) -> None:
        assert not job.populated()
        nested = job.path / "a" / "b"
        nested.mkdir(parents=True)
        process = start(nested)
        assert job.populated()
        assert job.procs() == [process.pid]

    def test_usage_tells_what_this_host_accounts(self, job: JobCgroup, start: Start) -> None:
        start(job.path, sys.executable, "-c", "sum(range(3_000_000))").wait()
        usage = job.usage()
        assert usage.cpu_usec is not None and usage.cpu_usec > 1_000
        assert usage.memory_peak is None
        assert usage.io_read_bytes is None
        assert usage.pids_current is None
        assert not job.oom_killed()

    def test_freeze_stops_and_lets_go_on(self, job: JobCgroup, start: Start) -> None:
        process = start(job.path, sys.executable, "-c", "while True: pass")
        job.freeze(True)
        while "frozen 1" not in (job.path / "cgroup.events").read_text():
            pass
        before = job.usage().cpu_usec
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.2)
        assert job.usage().cpu_usec == before
        job.freeze(False)
        assert "frozen 0" in (job.path / "cgroup.events").read_text()

    @pytest.mark.parametrize("frozen", [False, True])
    @pytest.mark.parametrize("way", ["kill", "_kill_each"])
    def test_kill_reaches_all_nested_and_frozen_ones(
        self, job: JobCgroup, start: Start, way: str, frozen: bool
    ) -> None:
        nested = job.path / "nested"
        nested.mkdir()
        processes = [start(path) for path in (job.path, nested, nested)]
        job.freeze(frozen)
        getattr(job, way)()
        assert job.wait_empty(10)
        assert [process.wait() for process in processes] == [-9, -9, -9]
        assert not job.populated()

    def test_killing_each_outruns_one_that_forks(self, job: JobCgroup, start: Start) -> None:
        start(job.path, sys.executable, "-c", "import os\nfor _ in range(8): os.fork()\nwhile True: pass")
        job._kill_each()
        assert job.wait_empty(10)

    def test_wait_empty_gives_up(self, job: JobCgroup, start: Start) -> None:
        start(job.path)
        assert not job.wait_empty(0.05)

    def test_wait_empty_is_woken(self, job: JobCgroup, start: Start) -> None:
        process = start(job.path)
        timer = threading.Timer(0.2, process.kill)
        timer.start()
        assert job.wait_empty(30)
        timer.join()

    def test_remove_refuses_while_processes_remain(self, job: JobCgroup, start: Start) -> None:
        start(job.path)
        with pytest.raises(OSError) as caught:
            job.remove()
        assert caught.value.errno == errno.EBUSY
        assert caught.value.filename == str(job.path)

    def test_remove_takes_nested_ones_and_runs_twice(self, tree: CgroupTree, job: JobCgroup) -> None:
        (job.path / "a" / "b" / "memory").mkdir(parents=True)
        (job.path / "c").mkdir()
        job.remove()
        job.remove()
        assert tree.scan() == []

    def test_what_is_left_of_a_job_goes_in_order_or_stays(self, job: JobCgroup, start: Start, tmp_path: Path) -> None:
        """As long as there is a cgroup, the exit record is what tells how the job ended."""
        (tmp_path / "jobs").mkdir()
        files = JobFiles(str(tmp_path), str(tmp_path), "job")
        files.make_runtime()
        Path(files.exit).touch()
        process = start(job.path)
        remains = Remains(job, files)
        remains.remove()
        assert not remains.are_gone
        assert job.path.exists()
        assert os.path.exists(files.exit)
        process.kill()
        process.wait()
        assert job.wait_empty(10)
        remains.remove()
        assert remains.are_gone
        assert not job.path.exists()
        assert not os.path.exists(files.runtime)
        remains.remove()  # and again

    def test_a_removed_one_answers_without_errors(self, job: JobCgroup) -> None:
        job.remove()
        assert not job.populated()
        assert job.procs() == []
        assert not job.oom_killed()
        assert job.usage().cpu_usec is None
        assert job.wait_empty(0)
        job.kill()

    def test_an_fd_never_reaches_the_next_of_the_same_name(self, tree: CgroupTree, job: JobCgroup) -> None:
        job.remove()
        with tree.create("abc", UID) as another:
            assert another.usage().cpu_usec is not None
            assert job.usage().cpu_usec is None

    def test_close_twice(self, tree: CgroupTree) -> None:
        job = tree.create("x", UID)
        fd = job.fd
        job.close()
        job.close()
        assert job.fd == -1
        with pytest.raises(OSError):
            os.fstat(fd)

    @pytest.mark.parametrize(
        "limits",
        [
            Limits(memory=1 << 20),
            Limits(swap=0),
            Limits(cpus=1.0),
            Limits(cpu_weight=1),
            Limits(cpuset="0"),
            Limits(pids=1),
            Limits(io=(IoLimit(read_bps=1),)),
            Limits(io_weight=1),
        ],
    )
    def test_a_limit_that_cannot_be_held_is_refused(self, tree: CgroupTree, job: JobCgroup, limits: Limits) -> None:
        with pytest.raises(MissingController):
            job.apply(limits)
        job.remove()
        assert tree.scan() == []

    def test_no_limits_need_no_controllers(self, job: JobCgroup) -> None:
        assert job.apply(Limits()) == (Limits(), ())


def handed_down() -> frozenset[str]:
    return frozenset((MOUNT / "cgroup.subtree_control").read_text().split()) if MOUNT else frozenset()


@pytest.mark.skipif(not handed_down() >= CONTROLLERS, reason="the root cgroup does not hand down all controllers")
class TestLimits:
    """Against the kernel's own controllers: written, rounded, refused, and biting."""

    @pytest.fixture
    def tree(self, base: Path) -> CgroupTree:
        (base / "cgroup.subtree_control").write_text(" ".join(f"+{name}" for name in CONTROLLERS))
        tree = CgroupTree(base / "unit", allow_missing=False)
        tree.prepare()
        return tree

    def test_all_controllers_are_on_down_to_the_job(self, tree: CgroupTree, job: JobCgroup) -> None:
        assert tree.available == CONTROLLERS
        assert tree.missing == frozenset()
        assert CONTROLLERS.issubset((job.path / "cgroup.controllers").read_text().split())

    def test_prepare_again_keeps_limits(self, tree: CgroupTree, job: JobCgroup, start: Start) -> None:
        start(job.path)
        job.apply(Limits(memory=64 << 20))
        CgroupTree(tree.root, allow_missing=False).prepare()
        assert (job.path / "memory.max").read_text() == f"{64 << 20}\n"

    def test_read_back(self, job: JobCgroup) -> None:
        asked = Limits(memory=(64 << 20) + 1, cpus=0.005, cpu_weight=7, cpuset="0", pids=4_194_303, io_weight=300)
        held, warnings = job.apply(asked)
        assert held == Limits(
            memory=64 << 20, swap=0, cpus=0.005, cpu_weight=7, cpuset="0", pids=4_194_303, io_weight=300
        )
        assert len(warnings) <= 1  # the I/O weight, as the machine is
        assert (job.path / "memory.oom.group").read_text() == "1\n"

    @pytest.mark.parametrize("cpus", [cgrouplimits.MIN_CPUS, 0.0015, 0.01, 1.0, 100_000.0])
    def test_the_kernel_takes_every_quota(self, job: JobCgroup, cpus: float) -> None:
        held, _ = job.apply(Limits(cpus=cpus))
        assert held.cpus == pytest.approx(cpus, rel=0.01)

    def test_the_largest_numbers_are_no_limit(self, job: JobCgroup) -> None:
        held, _ = job.apply(Limits(memory=2**63 - 1, swap=2**63 - 1))
        assert (held.memory, held.swap) == (None, None)

    def test_cpus_that_are_not_there(self, job: JobCgroup) -> None:
        with pytest.raises(InvalidParams, match="there for jobs"):
            job.apply(Limits(cpuset="0,4095"))

    def test_io_rates_of_every_disk(self, job: JobCgroup) -> None:
        held, warnings = job.apply(Limits(io=(IoLimit(read_bps=1 << 20, write_iops=2**63 - 1),)))
        assert all(limit.read_bps == 1 << 20 and limit.write_iops is None for limit in held.io)
        assert held.io or "no disk" in warnings[0]

    def test_memory(self, job: JobCgroup, start: Start) -> None:
        job.apply(Limits(memory=32 << 20))
        assert start(job.path, sys.executable, "-c", "x = bytearray(200 << 20)").wait() == -9
        assert job.oom_killed()
        usage = job.usage()
        assert usage.oom_kills and usage.memory_max_hits
        assert usage.memory_peak is None or 16 << 20 < usage.memory_peak <= 32 << 20

    def test_a_users_total_kills_whole_jobs(self, tree: CgroupTree, job: JobCgroup, start: Start) -> None:
        tree.user_limits(UID, Limits(memory=32 << 20, swap=0, pids=1000, cpus=2.0))
        job.apply(Limits())
        bystander = start(job.path)
        assert start(job.path, sys.executable, "-c", "x = bytearray(200 << 20)").wait() == -9
        assert bystander.wait(10) == -9
        assert job.oom_killed()
        tree.user_limits(UID, Limits())
        assert (job.path.parent / "memory.max").read_text() == "max\n"
        assert (job.path.parent / "pids.max").read_text() == "max\n"

    def test_totals_of_an_earlier_daemon_are_lifted(self, tree: CgroupTree, job: JobCgroup) -> None:
        tree.user_limits(UID, Limits(pids=10))
        again = CgroupTree(tree.root, allow_missing=False)
        again.prepare()
        again.user_limits(UID, Limits())
        assert (job.path.parent / "pids.max").read_text() == "max\n"

    def test_pids(self, job: JobCgroup, start: Start) -> None:
        job.apply(Limits(pids=3))
        script = (
            "import os, signal\nforked = 0\n"
            "try:\n while forked < 50:\n  if not os.fork(): signal.pause()\n  forked += 1\n"
            "except OSError: os._exit(forked)\n"
        )
        process = start(job.path, sys.executable, "-c", script)
        assert process.wait(60) == 3  # with its own four, which is one for PID 1 and three
        usage = job.usage()
        assert usage.pids_current == 3
        assert usage.pids_max_hits
        job.kill()
        assert job.wait_empty(10)

    def test_cpus(self, job: JobCgroup, start: Start) -> None:
        job.apply(Limits(cpus=0.2))
        process = start(job.path, sys.executable, "-c", "while True: pass")
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(3)
        usage = job.usage()
        assert usage.cpu_usec is not None and usage.cpu_usec < 0.3 * 3_000_000
        assert usage.throttled_periods and usage.throttled_usec
