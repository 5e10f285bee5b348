"""Taking turns, and showing what came out."""

from __future__ import annotations

import shutil
import statistics
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

Rounds = dict[str, Callable[[], list[float]]]
HERE = Path(__file__).resolve().parent


def by_turns(cases: Rounds, rounds: int) -> dict[str, list[float]]:
    """Milliseconds of each case: each is asked once a round, so that all see the same
    machine."""
    taken: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(rounds):
        for name, measure in cases.items():
            taken[name] += measure()
    return taken


def show(title: str, taken: dict[str, list[float]], base: str) -> None:
    """Median, quartiles and the ratio to the case `base`."""
    print(f"\n{title}")
    print(f"  {'':34} {'median':>9} {'25 %':>9} {'75 %':>9} {'ratio':>7}   n")
    against = statistics.median(taken[base])
    for name, values in taken.items():
        low, middle, high = statistics.quantiles(values, n=4)
        ratio = f"{middle / against:.2f}"
        print(f"  {name:34} {middle:6.2f} ms {low:6.2f} ms {high:6.2f} ms {ratio:>7}   {len(values)}")


@contextmanager
def compiled(source: str) -> Iterator[Path]:
    """A C program of this folder, built static."""
    compiler = shutil.which("musl-gcc") or shutil.which("cc")
    assert compiler is not None, "no C compiler"
    with tempfile.TemporaryDirectory(prefix="worker-bench-") as folder:
        binary = Path(folder) / "program"
        more = ["-idirafter", "/usr/include", "-idirafter", f"/usr/include/{_multiarch()}"]
        command = [compiler, "-O2", "-static", "-o", str(binary), str(HERE / source)]
        subprocess.run(command + (more if compiler.endswith("musl-gcc") else []), check=True)
        yield binary


def _multiarch() -> str:
    return subprocess.run(["cc", "-print-multiarch"], capture_output=True, text=True, check=True).stdout.strip()
