"""Taking turns, showing what came out, and keeping it for the table and the guard.

A case is measured by turns with what it is compared with, and shown beside it. What
must hold of it is a `goal`: the ratio of two medians of the same run wherever there is
something to compare with, else a figure against a fixed limit.
"""

from __future__ import annotations

import shutil
import statistics
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from msgspec import Struct

Rounds = Mapping[str, Callable[[], list[float]]]
Taken = dict[str, list[float]]
HERE = Path(__file__).resolve().parent


class Row(Struct, frozen=True):
    """One line of a table: the median and the quartiles, in the table's unit."""

    name: str
    median: float
    low: float
    high: float
    ratio: float
    """its median over that of the table's base"""
    count: int


class Table(Struct, frozen=True):
    title: str
    unit: str
    base: str
    rows: tuple[Row, ...]


class Goal(Struct, frozen=True):
    """What a case is to reach."""

    name: str
    value: float
    limit: float
    at_least: bool = False
    relative: bool = True
    """a ratio of two figures of one run; the guard looks at these alone"""
    unit: str = "x"

    @property
    def reached(self) -> bool:
        return self.value >= self.limit if self.at_least else self.value <= self.limit

    def sentence(self) -> str:
        bound = "at least" if self.at_least else "at most"
        unit = "" if self.unit == "x" else f" {self.unit}"
        verdict = "reached" if self.reached else "missed"
        return f"{self.name}: {self.value:.2f}{unit}, goal {bound} {self.limit:.3g}{unit}: {verdict}"


class Recorded(Struct):
    """All that one run of the suite has shown."""

    tables: list[Table] = []
    goals: list[Goal] = []
    left_out: list[str] = []


recorded = Recorded()


def by_turns(cases: Rounds, rounds: int) -> Taken:
    """What each case measures: each is asked once a round, so that all see the same machine."""
    taken: Taken = {name: [] for name in cases}
    for _ in range(rounds):
        for name, measure in cases.items():
            taken[name] += measure()
    return taken


def show(title: str, taken: Taken, base: str, unit: str = "ms") -> Table:
    """Print and keep median, quartiles and the ratio to the case `base`."""
    against = statistics.median(taken[base])
    rows = tuple(_row(name, values, against) for name, values in taken.items())
    wide = max(34, *(len(row.name) for row in rows))
    print(f"\n{title}")
    print(f"  {'':{wide}} {'median':>11} {'25 %':>11} {'75 %':>11} {'ratio':>7}   n")
    for row in rows:
        figures = " ".join(f"{_rounded(value):>{10 - len(unit)}} {unit}" for value in (row.median, row.low, row.high))
        print(f"  {row.name:{wide}} {figures} {row.ratio:7.2f}   {row.count}")
    table = Table(title, unit, base, rows)
    recorded.tables.append(table)
    return table


def goal(
    name: str, value: float, limit: float, *, at_least: bool = False, relative: bool = True, unit: str = "x"
) -> None:
    """Print and keep whether `value` is within `limit`."""
    made = Goal(name, value, limit, at_least, relative, unit)
    print(f"  {made.sentence()}")
    recorded.goals.append(made)


def leave_out(what: str) -> None:
    """Say and keep what could not be measured, and why."""
    print(f"left out: {what}")
    recorded.left_out.append(what)


def ratio(table: Table, name: str, base: str | None = None) -> float:
    """The median of one row over that of another."""
    medians = {row.name: row.median for row in table.rows}
    return medians[name] / medians[base or table.base]


def _row(name: str, values: list[float], against: float) -> Row:
    low, middle, high = statistics.quantiles(values, n=4) if len(values) > 1 else [values[0]] * 3
    return Row(name, middle, low, high, middle / against, len(values))


def _rounded(value: float) -> str:
    return f"{value:.2f}" if value < 1000 else f"{value:.0f}"


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
