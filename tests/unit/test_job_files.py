"""A job's files as the daemon makes them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from workerd import jobfiles, trylog
from workerd.output import Log


@pytest.fixture
def files(tmp_path: Path) -> jobfiles.JobFiles:
    for name in ("state/jobs", "run/jobs"):
        (tmp_path / name).mkdir(parents=True)
    return jobfiles.JobFiles(str(tmp_path / "state"), str(tmp_path / "run"), "abc")


def header_of(files: jobfiles.JobFiles) -> bytes:
    return Path(files.index).read_bytes()


class TestIndex:
    def test_of_a_job_that_waits_has_its_header_and_is_readable(self, files: jobfiles.JobFiles) -> None:
        jobfiles.open_output(files).close()
        assert header_of(files).startswith(b"WKIDX001") and len(header_of(files)) == 64
        with Log(os.open(files.log, os.O_RDONLY), os.open(files.index, os.O_RDONLY)) as log:
            extent = log.extent()
        assert (extent.start, extent.end, extent.lost, extent.complete) == (0, 0, 0, False)

    def test_is_left_as_it_is_by_the_next_try(self, files: jobfiles.JobFiles) -> None:
        opened = jobfiles.open_output(files)
        trylog.begin(opened.index)
        os.pwrite(opened.index, (7).to_bytes(8, "little"), 24)  # lost
        before = header_of(files)
        opened.close()
        opened = jobfiles.open_output(files)
        trylog.begin(opened.index)
        opened.close()
        assert header_of(files) == before
        trylog.end(files.index)
        assert header_of(files)[32] == trylog.MORE | 1 and header_of(files)[24] == 7


class TestOutput:
    def test_that_cannot_be_opened_leaves_nothing(self, files: jobfiles.JobFiles) -> None:
        Path(files.index).mkdir(parents=True)
        with pytest.raises(IsADirectoryError):
            jobfiles.open_output(files)
        assert not Path(files.log).exists()

    def test_that_is_half_there_is_made_whole_or_left_so(
        self, files: jobfiles.JobFiles, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As where the daemon was killed between the two."""
        Path(files.state).mkdir()
        Path(files.log).touch()

        def full(*_: object) -> int:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "pwrite", full)
        with pytest.raises(OSError, match="No space"):
            jobfiles.open_output(files)
        monkeypatch.undo()
        assert os.listdir(files.state) == ["output"]
        jobfiles.open_output(files).close()
        assert len(header_of(files)) == 64

    def test_is_made_where_somebody_removed_its_directory(self, files: jobfiles.JobFiles) -> None:
        assert not Path(files.state).exists()
        jobfiles.open_output(files).close()
        assert sorted(os.listdir(files.state)) == ["output", "output.idx"]

    def test_of_an_earlier_try_stays_where_the_next_cannot_have_it(self, files: jobfiles.JobFiles) -> None:
        jobfiles.open_output(files).close()
        Path(files.log).write_text("of the first try")
        Path(files.index).unlink()
        Path(files.index).mkdir()
        with pytest.raises(IsADirectoryError):
            jobfiles.open_output(files)
        assert Path(files.log).read_text() == "of the first try"


class TestRuntime:
    def test_what_could_not_be_made_leaves_that_no_word_was_given(self, files: jobfiles.JobFiles) -> None:
        """A PID 1 may be there by then, which the next daemon would find."""
        assert not files.never_had_the_word()
        files.make_runtime()
        assert files.never_had_the_word()
        Path(files.control).touch()
        with pytest.raises(FileExistsError):
            jobfiles.create_runtime(files, tty=False)
        assert files.never_had_the_word()
        jobfiles.create_runtime(files, tty=True).close()
        assert not files.never_had_the_word()


class TestRemoval:
    def test_all_is_gone_though_somebody_else_took_some_of_it_meanwhile(
        self, files: jobfiles.JobFiles, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """He was killed then, say: what he had not come to yet is nobody's but ours."""
        jobfiles.open_output(files).close()
        Path(files.state, "more").touch()
        listed = os.listdir

        def behind(path: str) -> list[str]:
            return ["job", *listed(path)]  # gone since it was listed

        monkeypatch.setattr(os, "listdir", behind)
        files.remove_state()
        assert not Path(files.state).exists()
        files.remove_state()

    @pytest.mark.parametrize("tty", [False, True])
    def test_no_link_is_followed_and_nothing_stays(self, files: jobfiles.JobFiles, tmp_path: Path, tty: bool) -> None:
        kept = tmp_path / "kept"
        kept.write_text("somebody else's")
        files.make_runtime()
        jobfiles.create_runtime(files, tty=tty).close()
        files.write_names("", "")
        Path(files.exit).unlink()
        for name in ("exit", "more"):
            Path(files.runtime, name).symlink_to(kept)
        files.remove_runtime()
        assert not Path(files.runtime).exists()
        files.remove_runtime()
        assert kept.read_text() == "somebody else's"

    def test_the_usual_is_removed_without_a_look(
        self, files: jobfiles.JobFiles, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        files.make_runtime()
        jobfiles.create_runtime(files, tty=False).close()
        jobfiles.open_output(files).close()
        monkeypatch.delattr(os, "listdir")
        files.remove_runtime()
        files.remove_state()
        monkeypatch.undo()
        assert [os.listdir(os.path.dirname(path)) for path in (files.runtime, files.state)] == [[], []]
