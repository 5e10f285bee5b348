"""Paths that change between the look and the deed: at least 10^5 swaps to each test."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.host.attackers import USER, Attacker
from tests.host.daemon import Daemon
from tests.processes import killed_after
from workerd.errors import StartFailed
from workerd.job import Mount, MountKind

SWAPS = 100_000
SECONDS = 6


@pytest.fixture
def user(daemon: Daemon, place: Path) -> Attacker:
    return Attacker(daemon, USER, place)


@pytest.fixture
def prize(place: Path) -> Path:
    """What the user must not see: in a directory that only root may enter."""
    closed = place / "prize"
    closed.mkdir(mode=0o700, exist_ok=True)
    (closed / "inner").mkdir(mode=0o777, exist_ok=True)
    (closed / "inner" / "flag").write_text("the prize")
    (closed / "inner").chmod(0o777)
    return closed / "inner"


@contextlib.contextmanager
def swapping(path: Path, target: Path | str) -> Iterator[subprocess.Popen[bytes]]:
    """`path` is by turns itself and a symbolic link to `target`, until the end of the
    block and for SWAPS times at least."""
    binary = path.parent / "swapper"
    subprocess.run(["cc", "-O1", "-o", binary, Path(__file__).with_name("swapper.c")], check=True)
    command: list[str | Path] = [binary, path, str(target), str(SWAPS), str(SECONDS)]
    with killed_after(subprocess.Popen(command, stdout=subprocess.PIPE)) as process:
        yield process
        assert process.stdout is not None
        swaps = int(process.stdout.read())
        assert (process.wait(), swaps >= SWAPS) == (0, True)


def attempts(user: Attacker, swapper: subprocess.Popen[bytes], script: str, **spec: object) -> tuple[int, int, str]:
    """(jobs that ran, jobs refused, all their output) while the swapper runs."""
    ran = refused = 0
    text = ""
    while swapper.poll() is None:
        try:
            text += user.shell(script, **spec)[1]
            ran += 1
        except StartFailed:
            refused += 1
    return ran, refused, text


class TestSwappedSymlinks:
    def test_a_binds_source(self, user: Attacker, prize: Path) -> None:
        own = user.own_directory() / "source"
        own.mkdir()
        mounts = (Mount(MountKind.BIND, "/tmp/x", source=str(own)),)
        with swapping(own, prize) as swapper:
            ran, refused, text = attempts(user, swapper, "cat /tmp/x/flag 2>/dev/null; echo .", mounts=mounts)
        assert ran > 0 and refused > 0, (ran, refused)
        assert "prize" not in text
        assert not (prize / "made").exists()

    @pytest.mark.parametrize("target", ["/etc", "/run"])
    def test_a_path_to_write(self, user: Attacker, target: str) -> None:
        """Never what the user has no right to write, nor the sockets of /run."""
        own = user.own_directory() / "rw"
        own.mkdir()
        mounts = (Mount(MountKind.RW, str(own)),)
        with swapping(own, target) as swapper:
            script = f"touch {own}/worker-was-here {target}/worker-was-here 2>/dev/null; ls -A /run; echo ."
            ran, _, text = attempts(user, swapper, script, mounts=mounts)
        assert ran > 0
        assert set(text.split()) <= {"."}
        assert not os.path.exists(f"{target}/worker-was-here")

    def test_the_working_directory(self, user: Attacker, prize: Path) -> None:
        own = user.own_directory() / "cwd"
        own.mkdir()
        os.chown(own, USER, USER)
        with swapping(own, prize) as swapper:
            ran, refused, text = attempts(user, swapper, "cat flag 2>/dev/null; touch made; echo .", cwd=str(own))
        assert ran > 0 and refused > 0, (ran, refused)
        assert "prize" not in text
        assert not (prize / "made").exists()

    def test_the_proc_of_a_root_tree(self, user: Attacker, place: Path) -> None:
        tree = user.own_directory("root")
        for name in ("proc", "sys", "dev", "bin", "etc"):
            (tree / name).mkdir()
        (tree / "bin" / "probe").write_bytes(user.probe.read_bytes())
        (tree / "bin" / "probe").chmod(0o755)
        ran = refused = 0
        with swapping(tree / "proc", "etc") as swapper:
            while swapper.poll() is None:
                try:
                    # proc is there, with its masks, or the job does not run
                    _, text = user.run("/bin/probe", "call", "2", "/proc/sysrq-trigger", "1", rootfs=str(tree))
                    assert text in ("E30\n", "E13\n", "E2\n"), text
                    ran += 1
                except StartFailed:
                    refused += 1
        assert ran + refused > 0
        assert not list((tree / "etc").iterdir())

    def test_a_directory_above_a_second_proc(self, user: Attacker) -> None:
        """A kernel file system stays hidden although its path changes all the time."""
        own = user.own_directory() / "above"
        (own / "proc").mkdir(parents=True)
        subprocess.run(["mount", "-t", "proc", "proc", own / "proc"], check=True)
        try:
            with swapping(own, "/etc") as swapper:
                look = f"ls -d {own}/proc/[0-9]* {own}.other/proc/[0-9]* 2>/dev/null; echo ."
                ran, _, text = attempts(user, swapper, look)
        finally:
            for path in (own / "proc", own.parent / "above.other" / "proc"):
                if os.path.ismount(path):
                    subprocess.run(["umount", "-l", path], check=True)
        assert ran > 0
        assert set(text.split()) == {"."}
