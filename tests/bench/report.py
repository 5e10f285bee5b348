"""What a run has shown: as JSON, as tables for docs/performance.md, as a plot."""

from __future__ import annotations

import datetime
import os
import platform
import re
from pathlib import Path
from typing import Any

import msgspec

from tests.bench.figures import Goal, Recorded, Table

BEGIN, END = "<!-- figures: made by `make bench`, do not edit -->", "<!-- end of figures -->"


class Report(msgspec.Struct, frozen=True):
    date: str
    machine: str
    recorded: Recorded


def make(recorded: Recorded) -> Report:
    processor = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    name = processor.group(1) if processor else platform.machine()
    machine = f"{os.cpu_count()} CPUs ({name}), Linux {platform.release()}, Python {platform.python_version()}"
    return Report(datetime.datetime.now(datetime.UTC).date().isoformat(), machine, recorded)


def write_json(report: Report, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=1) + b"\n")


def merged(old: Report, new: Report) -> Report:
    """The new figures, and of the old ones those of cases that were not measured again."""
    tables = {table.title: table for table in (*old.recorded.tables, *new.recorded.tables)}
    goals = {goal.name: goal for goal in (*old.recorded.goals, *new.recorded.goals)}
    left_out = dict.fromkeys((*old.recorded.left_out, *new.recorded.left_out))
    recorded = Recorded(list(tables.values()), list(goals.values()), list(left_out))
    return Report(new.date, new.machine, recorded)


def read_json(path: Path) -> Report:
    return msgspec.json.decode(path.read_bytes(), type=Report)


def write_page(report: Report, path: Path) -> None:
    """Put the tables between the marks of the page. Raises ValueError where it has none."""
    text = path.read_text()
    begin, end = text.index(BEGIN) + len(BEGIN), text.index(END)
    path.write_text(f"{text[:begin]}\n\n{markdown(report)}\n{text[end:]}")


def markdown(report: Report) -> str:
    parts = [f"Measured {report.date} on {report.machine}.", "", "| goal | figure | limit | |", "|---|---|---|---|"]
    parts += [_goal_line(goal) for goal in report.recorded.goals]
    for table in report.recorded.tables:
        parts += _table_lines(table)
    if report.recorded.left_out:
        parts += ["", "Left out: " + "; ".join(report.recorded.left_out) + "."]
    return "\n".join(parts) + "\n"


def _table_lines(table: Table) -> list[str]:
    lines = ["", f"**{table.title}**", "", f"| | median, {table.unit} | 25 % | 75 % | ratio |", "|---|---|---|---|---|"]
    for row in table.rows:
        figures = (row.median, row.low, row.high, row.ratio)
        lines.append(" | ".join([f"| {_cell(row.name)}", *(f"{figure:.2f}" for figure in figures)]) + " |")
    return lines


def _cell(text: str) -> str:
    """A bar in it would begin another column."""
    return text.replace("|", "\\|")


def _goal_line(goal: Goal) -> str:
    bound = "≥" if goal.at_least else "≤"
    unit = "" if goal.unit == "x" else f" {goal.unit}"
    verdict = "reached" if goal.reached else "**missed**"
    return f"| {_cell(goal.name)} | {goal.value:.2f}{unit} | {bound} {goal.limit:.3g}{unit} | {verdict} |"


def plot(report: Report, path: Path) -> None:
    """One panel a table: medians with their quartiles. Raises ImportError without matplotlib."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "worker"
    from matplotlib import pyplot

    tables = report.recorded.tables
    figure, panels = pyplot.subplots(len(tables), 1, figsize=(9, 0.7 + 1.5 * len(tables)), squeeze=False)
    for panel, table in zip(panels[:, 0], tables, strict=True):
        _draw(panel, table)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def _draw(panel: Any, table: Table) -> None:
    names = [row.name for row in table.rows]
    medians = [row.median for row in table.rows]
    spread = [[row.median - row.low for row in table.rows], [row.high - row.median for row in table.rows]]
    colours = ["#9aa4b1" if row.name == table.base else "#2f6fb4" for row in table.rows]
    panel.barh(names, medians, xerr=spread, color=colours, ecolor="#333333", capsize=2)
    panel.set_title(f"{table.title} ({table.unit})", fontsize=9, loc="left")
    panel.invert_yaxis()
    panel.tick_params(labelsize=8)
