"""What `run` takes as words, sizes and seconds, and the parameters that it makes."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.unit.workerctl_fakes import make_job
from workerctl import After, JobSpec, Limits, Mount, MountKind, Net, Outcome, Publish, Restart, RestartPolicy
from workerctl.api import quantity, stdin
from workerctl.api.options import run_params, update_limits
from workerctl.api.pieces import Reader, newest
from workerd.errors import InvalidParams
from workerd.job import OnTimeout
from workerd.output import Log


def spec_of(**options: Any) -> JobSpec:
    return run_params(["true"], options).spec


class TestQuantities:
    @pytest.mark.parametrize(("given", "expected"), [(5, 5), ("256M", 256 << 20), ("1.5G", 3 << 29)])
    def test_sizes_are_bytes(self, given: Any, expected: int) -> None:
        assert quantity.size(given, "mem") == expected

    @pytest.mark.parametrize("given", ["much", -1, 0, 1.5, True, None])
    def test_what_is_no_size_names_its_argument(self, given: Any) -> None:
        with pytest.raises(InvalidParams, match="mem"):
            quantity.size(given, "mem")

    @pytest.mark.parametrize(
        ("given", "expected"),
        [
            (5, 5_000_000),
            (0.25, 250_000),
            ("10m", 600_000_000),
            (timedelta(hours=1), 3_600_000_000),
            (0, 0),
            (1e99, 2**62),
        ],
    )
    def test_durations_are_microseconds(self, given: Any, expected: int) -> None:
        assert quantity.duration(given, "timeout") == expected

    @pytest.mark.parametrize("given", ["soon", -1, -0.1, float("nan"), timedelta(-1), True, None])
    def test_what_is_no_duration_names_its_argument(self, given: Any) -> None:
        with pytest.raises(InvalidParams, match="timeout"):
            quantity.duration(given, "timeout")


class TestSpec:
    def test_limits(self) -> None:
        made = spec_of(mem="1M", swap=0, cpus=0.5, pids=10, cpu_weight=5)
        assert made.limits == Limits(memory=1 << 20, swap=0, cpus=0.5, pids=10, cpu_weight=5)

    def test_runs_here_unless_told_otherwise(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        (tmp_path / "link").symlink_to(tmp_path)
        assert spec_of().cwd == str(tmp_path) == spec_of(cwd="link").cwd == spec_of(cwd=Path("link/link")).cwd

    def test_mounts_become_absolute_and_keep_their_order(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        tmpfs = Mount(MountKind.TMPFS, "/scratch")
        assert spec_of(rw=["out"], ro=["/usr"], mounts=[tmpfs]).mounts == (
            Mount(MountKind.RW, f"{tmp_path}/out"),
            Mount(MountKind.RO, "/usr"),
            tmpfs,
        )

    def test_paths_in_another_root_are_taken_as_written(self) -> None:
        made = spec_of(rootfs="/usr/..", cwd="/bin", rw=["/bin/../var"])
        assert (made.rootfs, made.cwd, made.mounts) == ("/", "/bin", (Mount(MountKind.RW, "/var"),))
        assert spec_of(rootfs="/").cwd == "/"
        with pytest.raises(InvalidParams, match="begins with /"):
            spec_of(rootfs="/", cwd="bin")

    @pytest.mark.parametrize(
        ("given", "expected"),
        [
            ("always", RestartPolicy(Restart.ALWAYS)),
            (Restart.NEVER, RestartPolicy()),
            ("on-failure:5", RestartPolicy(Restart.ON_FAILURE, 5)),
            (RestartPolicy(Restart.ALWAYS, 2), RestartPolicy(Restart.ALWAYS, 2)),
        ],
    )
    def test_restart(self, given: Any, expected: RestartPolicy) -> None:
        assert spec_of(restart=given).restart == expected

    def test_choices(self) -> None:
        made = spec_of(publish=[Publish(80, 8080)], timeout=5, on_timeout="pause")
        assert (made.net, made.timeout, made.on_timeout) == (Net.BRIDGE, 5_000_000, OnTimeout.PAUSE)
        for wrong in ({"net": "wifi"}, {"on_timeout": "cry"}, {"restart": "perhaps"}, {"restart": "always:0"}):
            with pytest.raises(InvalidParams, match=next(iter(wrong))):
                spec_of(**wrong)


class TestCommand:
    @pytest.mark.parametrize("command", ["make -j4", b"make", None, {"make"}])
    def test_that_is_no_list_of_words(self, command: Any) -> None:
        with pytest.raises(TypeError, match="a list of words"):
            run_params(command, {})

    def test_without_words(self) -> None:
        with pytest.raises(InvalidParams, match="no words"):
            run_params([], {})

    def test_words_may_be_paths_and_never_bytes(self) -> None:
        assert run_params([Path("/bin/ls"), "-l"], {}).spec.argv == ("/bin/ls", "-l")
        with pytest.raises(TypeError, match="give text"):
            run_params(["ls", b"-l"], {})  # type: ignore[list-item]
        with pytest.raises(InvalidParams, match="not UTF-8"):
            run_params(["ls", "\udce9"], {})

    def test_a_spec_is_taken_whole_with_when_and_what_it_starts(self) -> None:
        spec = JobSpec(argv=("true",), umask=0o77)
        at = datetime(2030, 1, 1, tzinfo=UTC)
        made = run_params(spec, {"env": {"A": "b"}, "at": at, "queue": False})
        assert (made.spec, made.env, made.at, made.queue) == (spec, {"A": "b"}, 1_893_456_000_000_000, False)
        with pytest.raises(TypeError, match="mem"):
            run_params(spec, {"mem": "1G"})

    def test_waits_for_jobs_however_they_are_named(self) -> None:
        made = run_params(["true"], {"after": ["a", make_job(id="b"), After("c", Outcome.OK)], "delay": "1s"})
        assert made.after == (After("a"), After("b"), After("c", Outcome.OK)) and made.delay == 1_000_000


class TestEnvironment:
    def test_is_a_few_variables_unless_given_whole(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("LC_ALL", "C.UTF-8")
        monkeypatch.setenv("SECRET", "s")
        monkeypatch.setenv("LC_TIME", "\udce9")
        env = run_params(["true"], {}).env
        assert env["PATH"] == os.environ["PATH"] and env["LC_ALL"] == "C.UTF-8"
        assert not {"SECRET", "LC_TIME"} & set(env)
        assert run_params(["true"], {"env": {}}).env == {}


class TestUpdate:
    def test_takes_limits_by_name_on_top_of_those_given(self) -> None:
        assert update_limits(Limits(pids=5), {"mem": "1K"}) == Limits(pids=5, memory=1024)
        with pytest.raises(TypeError, match="cwd"):
            update_limits(Limits(), {"cwd": "/"})


class TestStdin:
    def test_is_a_descriptor_of_its_own(self) -> None:
        read_end, write_end = os.pipe()
        (copy,) = stdin.opened(read_end)
        os.close(read_end)
        os.write(write_end, b"x")
        assert os.read(copy, 10) == b"x" and stdin.opened(None) == ()
        for fd in (copy, write_end):
            os.close(fd)

    def test_may_be_bytes(self) -> None:
        data = b"y" * 300_000
        (fd,) = stdin.opened(data)
        with open(fd, "rb") as file:
            assert file.read() == data


class TestReader:
    @pytest.fixture
    def log(self, tmp_path: Path) -> Any:
        from tests.unit.workerctl_fakes import LogWriter

        writer = LogWriter(tmp_path)
        yield writer, lambda: Log(*(os.open(tmp_path / name, os.O_RDONLY) for name in ("output", "output.idx")))
        writer.close()

    def test_gives_every_byte_once_and_the_end_last(self, log: Any) -> None:
        writer, opened = log
        writer.write(1, b"a" * 10)
        with Reader(opened(), 0, None, None) as reader:
            assert [piece.data for piece in reader.turn()] == [b"a" * 10] and not reader.complete
            writer.write(2, b"b")
            writer.finish()
            assert reader.behind
            assert [(piece.stream, piece.offset, piece.data) for piece in reader.turn()] == [("stderr", 10, b"b")]
            assert reader.complete and list(reader.turn()) == []

    def test_of_one_stream_counts_what_is_gone_once(self, log: Any) -> None:
        writer, opened = log
        for number in range(4):
            writer.write(1 + number % 2, b"%d" % number * 10)
        writer.punch(25)
        writer.finish()
        with Reader(opened(), 0, "stderr", None) as reader:
            assert [(piece.offset, piece.gone) for piece in reader.turn()] == [(30, 25)]

    def test_the_newest_bytes(self, log: Any) -> None:
        writer, opened = log
        for number in range(100):
            writer.write(1 + number % 2, b"%02d" % number)
        writer.finish()
        with opened() as whole:
            assert newest(whole, "stdout", 5) == (b"49698", True)
            assert newest(whole, None, 4) == (b"9899", True)
            assert newest(whole, None, 200)[1] is False
            assert newest(whole, "stderr", 1000)[0][-4:] == b"9799"
