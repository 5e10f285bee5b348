"""The log, its index and the cap, as worker-init writes them and the daemon reads them."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.host.daemon import ROOT, Daemon
from workerd import protocol
from workerd.errors import Exhausted
from workerd.job import Job, Reason
from workerd.output import STDERR, STDOUT, Log

KIB, MIB = 1 << 10, 1 << 20
PYTHON = ["python3", "-c"]


def open_log(daemon: Daemon, job_id: str) -> Log:
    with daemon.client() as client:
        return client.open_output(job_id)


def disk_use(log: Log) -> int:
    return sum(os.fstat(fd).st_blocks * 512 for fd in (log.log_fd, log.index_fd))


class TestStreams:
    def test_each_stream_is_what_was_written_to_it_at_its_time(self, daemon: Daemon) -> None:
        script = "for i in 1 2 3; do echo out $i; sleep 0.05; echo err $i >&2; sleep 0.05; done"
        begin = time.time_ns()
        job, text = daemon.shell(script)
        with open_log(daemon, job.id) as log:
            records = list(log.records(0))
            pieces = list(log.timed_pieces(0, log.end()))
        assert text == "out 1\nerr 1\nout 2\nerr 2\nout 3\nerr 3\n"
        assert [stream for _, _, stream, _ in records] == [STDOUT, STDERR] * 3
        assert b"".join(data for _, stream, _, data in pieces if stream == STDERR) == b"err 1\nerr 2\nerr 3\n"
        times = [when for *_, when in records]
        assert times == sorted(times) and begin < times[0] and times[-1] < time.time_ns()
        assert all(later - earlier > 40e6 for earlier, later in itertools.pairwise(times))

    def test_what_comes_within_a_millisecond_is_one_record(self, daemon: Daemon) -> None:
        code = "import os\nfor i in range(20000): os.write(1, b'x\\n')"
        job = daemon.wait(daemon.run(*PYTHON, code))
        with open_log(daemon, job.id) as log:
            records = list(log.records(0))
        assert job.output_end == 40000
        assert sum(end - begin for begin, end, *_ in records) == 40000
        assert len(records) < 5000
        starts = [when for *_, when in records]
        assert all(later - earlier >= 1_000_000 for earlier, later in itertools.pairwise(starts))

    def test_every_byte_of_a_big_binary_output(self, daemon: Daemon) -> None:
        code = "import os, random; r = random.Random(1); [os.write(1 + i % 2, r.randbytes(65536)) for i in range(400)]"
        job = daemon.wait(daemon.run(*PYTHON, code))
        import random

        chance = random.Random(1)
        blocks = [chance.randbytes(65536) for _ in range(400)]
        with open_log(daemon, job.id) as log:
            for stream in (STDOUT, STDERR):
                data = b"".join(data for *_, data in log.pieces(0, log.end(), stream))
                assert data == b"".join(blocks[stream - 1 :: 2])

    def test_a_process_outside_that_holds_the_pipe_does_not_keep_the_job(self, daemon: Daemon, tmp_path: Path) -> None:
        # Its stdout travels to a process of the host's, which writes on and on.
        place = daemon.base / "meeting"
        place.mkdir()
        code = "import socket, array; s = socket.socket(socket.AF_UNIX); s.connect('here'); "
        code += "s.sendmsg([b'x'], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', [1]))]); s.recv(1)"
        import socket

        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(place / "here"))
            listener.listen()
            job_id = daemon.run(*PYTHON, code, cwd=str(place))
            listener.settimeout(30)
            peer, _ = listener.accept()
            _, fds, _, _ = socket.recv_fds(peer, 1, 1)
        stop = threading.Event()

        def write_on() -> None:
            while not stop.is_set():
                try:
                    os.write(fds[0], b"outside\n" * 4096)
                except BrokenPipeError:
                    return

        writer = threading.Thread(target=write_on)
        old = signal.signal(signal.SIGPIPE, signal.SIG_IGN)
        writer.start()
        try:
            peer.send(b"x")
            assert daemon.wait(job_id, 20).exit_code == 0
        finally:
            stop.set()
            writer.join(20)
            signal.signal(signal.SIGPIPE, old)
            os.close(fds[0])
            peer.close()


class TestCap:
    def test_disk_use_is_never_over_the_cap_and_a_mebibyte(self, daemon: Daemon) -> None:
        job_id = daemon.run("sh", "-c", "yes 0123456789 | head -c 200000000", max_output=8 * MIB)
        most = self.watch(daemon, job_id)
        job = daemon.wait(job_id)
        assert job.output_end == 200_000_000 and 8 * MIB > most - MIB
        kept = daemon.output_from(job_id, job.output_start)
        assert 7 * MIB < len(kept) < 9 * MIB
        assert kept == (b"0123456789\n" * 20_000_000)[job.output_start : 200_000_000]

    def test_index_counts_too_where_records_are_short(self, daemon: Daemon) -> None:
        code = "import os\nfor i in range(400000): os.write(1 + i % 2, b'%07d\\n' % i)"
        job_id = daemon.run(*PYTHON, code, max_output=MIB)
        most = self.watch(daemon, job_id)
        job = daemon.wait(job_id)
        assert job.output_end == 3_200_000 and most <= 2 * MIB
        with open_log(daemon, job_id) as log:
            parts = [(stream, data) for _, stream, data in log.pieces(job.output_start, log.end())]
            kept = list(log.records(job.output_start))
        assert sum(end - begin for begin, end, *_ in kept) == 3_200_000 - job.output_start
        for stream in (STDOUT, STDERR):
            # Two pipes: what is at the same time in both may change places, within one it may not.
            mine = b"".join(data for kind, data in parts if kind == stream)
            wrote = b"".join(b"%07d\n" % i for i in range(stream - 1, 400000, 2))
            assert mine and wrote.endswith(mine)
        assert sum(len(data) for _, data in parts) + 32 * len(kept) > MIB // 2

    def test_offsets_never_move_and_what_is_gone_is_told(self, daemon: Daemon) -> None:
        job_id = daemon.run("sh", "-c", "seq -f %09.0f 1 1000000", max_output=MIB)
        job = daemon.wait(job_id)
        with daemon.client() as client:
            part = client.call("output.read", protocol.OutputReadParams(job_id, 0, 1000))
        assert part.offset == job.output_start > 0
        assert part.data.split(b"\n")[1] == b"%09d" % (part.offset // 10 + 2)
        ran = daemon.ctl("out", job_id)
        assert f"{job.output_start} bytes of output are gone".encode() in ran.stderr
        assert ran.stdout.endswith(b"001000000\n") and len(ran.stdout) == 10_000_000 - job.output_start

    @staticmethod
    def watch(daemon: Daemon, job_id: str) -> int:
        """The most that log and index took while the job ran."""
        most = 0
        with daemon.client() as client, client.open_output(job_id) as log:
            while not log.header().complete:
                most = max(most, disk_use(log))
        return most


class TestInitKilled:
    def test_what_it_stored_can_be_read_and_followers_end(self, daemon: Daemon) -> None:
        job_id = daemon.run("sh", "-c", "while :; do echo still here; done")
        follower = subprocess.Popen(
            [sys.executable, "-m", "workerctl", "--socket", str(daemon.socket), "out", "-f", job_id],
            cwd=ROOT,
            stdout=subprocess.PIPE,
        )
        assert follower.stdout is not None
        head = follower.stdout.read(100_000)
        with daemon.client() as client:
            pid = client.status(job_id).pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        text = head + follower.stdout.read()
        follower.stdout.close()
        assert follower.wait(30) == 0
        job = daemon.wait(job_id)
        assert job.reason is Reason.LOST and job.output_end is not None
        assert len(text) == job.output_end
        assert text == (b"still here\n" * (len(text) // 11 + 1))[: len(text)]


class TestDamage:
    @pytest.fixture
    def finished(self, daemon: Daemon) -> Job:
        return daemon.shell("for i in 1 2 3; do echo out; echo err >&2; sleep 0.01; done")[0]

    def test_a_truncated_index_shows_what_it_knows(self, daemon: Daemon, finished: Job) -> None:
        os.truncate(daemon.state / "jobs" / finished.id / "output.idx", 64 + 2 * 32 + 17)
        assert daemon.ctl("out", "-f", finished.id).stdout == b"out\nerr\n"

    def test_an_index_that_ends_in_zeros_shows_what_it_knows(self, daemon: Daemon, finished: Job) -> None:
        index = daemon.state / "jobs" / finished.id / "output.idx"
        with index.open("r+b") as file:
            file.seek(64 + 3 * 32)
            file.write(bytes(50 * 32))
        assert daemon.ctl("out", "-f", finished.id).stdout == b"out\nerr\nout\n"

    def test_a_log_shorter_than_its_index_ends(self, daemon: Daemon, finished: Job) -> None:
        os.truncate(daemon.state / "jobs" / finished.id / "output", 10)
        assert daemon.ctl("out", "-f", finished.id).stdout == b"out\nerr\nou"

    def test_a_damaged_header_is_told(self, daemon: Daemon, finished: Job) -> None:
        (daemon.state / "jobs" / finished.id / "output.idx").write_bytes(b"nonsense" * 40)
        ran = daemon.ctl("out", finished.id)
        assert ran.returncode == 125 and b"is damaged" in ran.stderr


@contextmanager
def on_file_system(kind: str, options: str, *, source: str = "none") -> Iterator[Daemon]:
    """A daemon whose state lies on a file system of its own, in its own mount namespace."""

    class Elsewhere(Daemon):
        def command(self) -> list[str]:
            mount = f'mkdir -p "$0" && mount -t {kind} {options} {source} "$0" && exec "$@"'
            return ["unshare", "-m", "sh", "-c", mount, str(self.state), *super().command()]

    daemon = Elsewhere()
    try:
        daemon.start()
        yield daemon
    finally:
        daemon.close()


class TestFullDisk:
    def test_stops_neither_the_job_nor_its_record_and_is_counted(self) -> None:
        with on_file_system("tmpfs", "-o size=8M") as daemon:
            job, _ = daemon.shell("head -c 20000000 /dev/zero; echo the end >&2; exit 7")
            assert (job.reason, job.exit_code) == (Reason.EXITED, 7)
            assert job.output_end is not None
            assert job.output_lost > 10_000_000
            assert job.output_end + job.output_lost == 20_000_000 + len("the end\n")
            ran = daemon.ctl("out", job.id)
            assert len(ran.stdout) == job.output_end and not ran.stdout.strip(b"\0")
            assert f"{job.output_lost} bytes of output could not be stored".encode() in ran.stderr
            assert b"could not be stored" in daemon.ctl("status", job.id).stdout

    def test_what_comes_once_there_is_room_is_stored(self) -> None:
        with on_file_system("tmpfs", "-o size=8M") as daemon:
            place = daemon.base / "work"
            place.mkdir()
            until = "while [ ! -e $1 ]; do sleep 0.05; done"
            script = f"w() {{ {until}; }}; w one; head -c 3000000 /dev/zero; w two; echo after"
            job_id = daemon.run("sh", "-c", script, cwd=str(place))
            assert daemon.process is not None
            ballast = Path(f"/proc/{daemon.process.pid}/root{daemon.state}/ballast")
            with ballast.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space"):
                while True:
                    file.write(bytes(4096))
            (place / "one").touch()
            with daemon.client() as client:
                while ((job := client.status(job_id)).output_end or 0) + job.output_lost < 3_000_000:
                    time.sleep(0.05)
            ballast.unlink()
            (place / "two").touch()
            job = daemon.wait(job_id)
            assert job.output_lost > 2_000_000
            assert daemon.output(job_id).strip(b"\0") == b"after\n"


def fill(ballast: Path) -> None:
    """Until not one more block can be had, also once what is allotted late has been allotted."""
    with ballast.open("wb", buffering=0) as file:
        while True:
            before = file.tell()
            for piece in (MIB, KIB):
                with contextlib.suppress(OSError):
                    while True:
                        file.write(bytes(piece))
            subprocess.run(["sync", "-f", str(ballast)], check=True)
            if file.tell() == before:
                return


class TestFullExt4:
    """Where space is allotted late, and punching a hole may need some itself."""

    @pytest.fixture
    def image(self, tmp_path: Path) -> str:
        path = tmp_path / "image"
        with path.open("wb") as file:
            file.truncate(24 * MIB)
        subprocess.run(["mkfs.ext4", "-q", "-F", str(path)], check=True)
        place = tmp_path / "mounted"
        place.mkdir()
        tried = subprocess.run(["unshare", "-m", "mount", "-o", "loop", str(path), str(place)], capture_output=True)
        if tried.returncode:
            pytest.skip(f"no loop device here: {tried.stderr.decode().strip()}")
        return str(path)

    def test_the_outcome_is_known_and_the_loss_counted(self, image: str) -> None:
        with on_file_system("ext4", "-o loop", source=image) as daemon:
            job, _ = daemon.shell("head -c 40000000 /dev/zero; exit 7")
            assert (job.reason, job.exit_code) == (Reason.EXITED, 7)
            assert job.output_lost > 10_000_000
            assert (job.output_end or 0) + job.output_lost == 40_000_000

    def test_a_job_that_comes_when_nothing_is_left_is_refused_until_there_is_room(self, image: str) -> None:
        with on_file_system("ext4", "-o loop", source=image) as daemon:
            assert daemon.process is not None
            place = Path(f"/proc/{daemon.process.pid}/root{daemon.state}")
            fill(place / "ballast")
            with pytest.raises(Exhausted, match="No space left"):
                daemon.run("sh", "-c", "exit 1")
            with daemon.client() as client:
                listed = client.call("job.list", protocol.ListParams(all=True))
            assert listed.jobs == () and os.listdir(place / "jobs") == []
            (place / "ballast").unlink()
            job, text = daemon.shell("echo room again; exit 4")
            assert (job.exit_code, job.output_lost, text) == (4, 0, "room again\n")

    def test_a_cap_that_fits_loses_nothing(self, image: str) -> None:
        with on_file_system("ext4", "-o loop", source=image) as daemon:
            job = daemon.wait(daemon.run("sh", "-c", "seq -f %09.0f 1 3000000", max_output=4 * MIB))
            assert (job.output_end, job.output_lost) == (30_000_000, 0)
            assert daemon.output(job.id).endswith(b"003000000\n")


class TestFileSystems:
    def test_without_hole_punching_the_newest_is_lost_rather_than_the_cap_exceeded(self) -> None:
        with on_file_system("ramfs", "") as daemon:
            job = daemon.wait(daemon.run("sh", "-c", "seq -f %09.0f 1 1000000; exit 3", max_output=MIB))
            assert job.exit_code == 3 and job.output_start == 0 and job.output_end is not None
            assert job.output_end + job.output_lost == 10_000_000
            assert MIB <= job.output_end <= 2 * MIB
            whole = b"".join(b"%09d\n" % i for i in range(1, 300_000))
            assert daemon.output(job.id) == whole[: job.output_end]
