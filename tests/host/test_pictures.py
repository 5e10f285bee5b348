"""`make pictures` and `make tour`, in short: the stage, the drawing, on a daemon of this machine."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.host.daemon import ROOT, running
from tools import pictures, theatre, tour
from tools.theatre import Step

CTL = f"{sys.executable} -m workerctl"
JOBS: list[Step] = [
    {"command": f"cd {ROOT}; {CTL} run --name steady sleep 1000"},
    {"command": f"cd {ROOT}; {CTL} run --wait --name hello echo 世界"},
]
PICTURES: dict[str, Step] = {
    "ps": {"command": f"cd {ROOT}; {CTL} ps -a"},
    "top": {"command": f"cd {ROOT}; {CTL} top", "watch": 2, "keys": "q", "rows": 12},
}


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The command that plays steps on a daemon which is there as long as the test."""
    with running() as daemon:
        monkeypatch.setenv("WORKERD_SOCKET", str(daemon.socket))
        yield [sys.executable, str(theatre.STAGE)]


def letters(picture: Path) -> str:
    """All words of an SVG; raises where it is no XML."""
    return " ".join(" ".join(ElementTree.parse(picture).getroot().itertext()).split())  # noqa: S314 - our own


class TestPictures:
    def test_show_what_the_program_shows(self, stage: list[str], tmp_path: Path) -> None:
        pictures.make(JOBS, PICTURES, tmp_path, stage)
        shown = letters(tmp_path / "ps.svg")
        assert re.search(r"steady.*running", shown, re.DOTALL) and "世界" in shown
        assert re.search(r"1 running", letters(tmp_path / "top.svg"))
        assert "fill: #56d364" in (tmp_path / "ps.svg").read_text(), "running is green"

    def test_a_command_that_fails_draws_nothing(self, stage: list[str], tmp_path: Path) -> None:
        with pytest.raises(SystemExit, match="no verb"):
            pictures.make([{"command": f"cd {ROOT}; {CTL} pss"}], PICTURES, tmp_path, stage)
        assert not list(tmp_path.iterdir())


class TestTour:
    def test_its_commands_are_typed_and_answered_in_place(self, stage: list[str]) -> None:
        page = "a\n```console\n$ echo one; echo two\nold\n$ true\nroot# id -u\n```\nb\n```\n$ no console\n```\n"
        steps = [{**step, "user": None} for step in tour.commands(page)]
        played = theatre.play(steps, stage)
        filled = tour.filled(page, [tour.printed(step["output"]) for step in played])
        assert filled == page.replace("old", "one\ntwo").replace("id -u\n", "id -u\n0\n")
        assert [step["user"] for step in tour.commands(page)] == ["alice", "alice", "root"]

    def test_the_page_has_been_typed(self) -> None:
        page = tour.PAGE.read_text()
        assert len(tour.commands(page)) > 50
        outputs = re.split(r"^(?:[a-z]+[#$]|\$) .+$", "".join(tour.BLOCK.findall(page)), flags=re.MULTILINE)[1:]
        assert sum(bool(output.strip()) for output in outputs) > 40
