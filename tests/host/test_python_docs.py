"""docs/python.md and examples/: each program is run against a real daemon, and prints what it is said to."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.host.daemon import ROOT, Daemon
from tests.processes import killed_after

PAGE = (ROOT / "docs" / "python.md").read_text()
BLOCK = re.compile(r"^```python\n(.*?)^```\n(?:\n```text( unordered)?\n(.*?)^```$)?", re.MULTILINE | re.DOTALL)
BLOCKS = [match.groups() for match in BLOCK.finditer(PAGE)]


LIMIT = re.compile(r", (?:(?:mem|pids|cpus)=[^,)]+|limits=Limits\(.*?\))")


def possible(daemon: Daemon, program: str) -> str:
    """Without limits where this machine's hierarchy lacks their controllers; the virtual
    machine's tests show that limits bite."""
    with daemon.client() as client:
        lacking = set(client.info().missing_controllers) & {"memory", "pids", "cpu"}
    return LIMIT.sub("", program) if lacking else program


def example(daemon: Daemon, name: str) -> str:
    return possible(daemon, (ROOT / "examples" / name).read_text())


def environment(daemon: Daemon) -> dict[str, str]:
    return {**os.environ, "WORKERD_SOCKET": str(daemon.socket), "PYTHONPATH": str(ROOT)}


def run(daemon: Daemon, place: Path, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-W", "error", "-c", program, *arguments]
    return subprocess.run(
        words, cwd=place, env=environment(daemon), capture_output=True, text=True, timeout=100, check=False
    )


def test_every_example_of_the_page_is_found() -> None:
    assert len(BLOCKS) == PAGE.count("```python") >= 9


@pytest.mark.parametrize("block", BLOCKS, ids=[f"block {number}" for number in range(len(BLOCKS))])
def test_an_example_of_the_page_prints_what_it_says(
    daemon: Daemon, place: Path, block: tuple[str, str | None, str | None]
) -> None:
    program, unordered, expected = block
    ran = run(daemon, place, possible(daemon, program))
    assert ran.returncode == 0, ran.stderr
    if unordered:
        assert sorted(ran.stdout.splitlines()) == sorted((expected or "").splitlines())
    else:
        assert ran.stdout == (expected or "")


class TestBuildFarm:
    def test_tells_good_from_bad(self, daemon: Daemon, place: Path) -> None:
        targets = ["lib=echo made", "docs=echo no such file >&2; exit 2", "slow=sleep 1000"]
        ran = run(daemon, place, example(daemon, "build_farm.py"), "2s", *targets)
        assert ran.returncode == 1 and ran.stderr == ""
        assert "lib: done, 5 bytes of output\n" in ran.stdout
        assert "docs: it ended by itself and reported failure: exit code 2\nno such file\n" in ran.stdout
        assert "slow: workerd stopped it: its time of 2s was over\n" in ran.stdout


class TestTailJobs:
    def test_follows_old_and_new_jobs_until_the_last_one_ends(self, daemon: Daemon, place: Path) -> None:
        gate = place / "gate"
        os.mkfifo(gate)
        first = daemon.run("sh", "-c", f"echo old; read x < {gate}; echo bye", name="first", labels={"app": "a"})
        command = [sys.executable, "-W", "error", "-c", example(daemon, "tail_jobs.py"), "app=a"]
        started = subprocess.Popen(command, env=environment(daemon), stdout=subprocess.PIPE, text=True)
        with killed_after(started) as tail:
            assert tail.stdout is not None
            assert tail.stdout.readline() == "first | old\n"
            daemon.run("echo", "not asked for", name="other", labels={"app": "b"})
            daemon.run("sh", "-c", "echo new; exit 3", name="second", labels={"app": "a"})
            assert [tail.stdout.readline() for _ in range(2)] == ["second | new\n", "second exited with 3\n"]
            with gate.open("w") as opened:
                opened.write("\n")
            rest = tail.stdout.read()
            assert rest == "first | bye\nfirst exited with 0\n" and tail.wait(60) == 0
        daemon.wait(first)
        gate.unlink()
