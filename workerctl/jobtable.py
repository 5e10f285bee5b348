"""`ps`: jobs as a table, one a line, fitted to the terminal.

What must hold: on a terminal no line is wider than it, a job's id and state are there at
any width, and what a job waits for is told whole, on a line of its own; in a pipe nothing
is cut off, and every job is one line. What matters least goes first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from rich.console import Group, OverflowMethod, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from workerctl import stdio, words
from workerctl.accounts import user_name
from workerctl.bars import bar, memory_of
from workerctl.escape import quoted, visible
from workerctl.render import UNBOUNDED, draw, now, state_style, terminal_width
from workerd.units import format_size

GAP = 2
LEAST = {"NAME": 10, "COMMAND": 16}
"""columns that these may shrink to; the first gets what is left first"""
LONGEST_NAME = 20
BAR = 8
"""columns of a bar"""
FIRST_TO_GO = ("BAR", "CPU", "USER", "AGE", "MEMORY", "NAME")
TITLES = {"BAR": ""}
RIGHT = ("AGE", "CPU")


def draw_jobs(jobs: list[dict[str, Any]], *, whole: bool = False) -> None:
    """`whole`: nothing is cut off on a terminal either."""
    terminal = stdio.is_terminal(stdio.STDOUT)
    width = terminal_width() if terminal and not whole else UNBOUNDED
    draw(job_table(jobs, width, bars=terminal), whole=whole)


def job_table(jobs: list[dict[str, Any]], width: int, *, bars: bool) -> RenderableType:
    columns = {title: [cell(job) for job in jobs] for title, cell in COLUMNS.items()}
    for title in ("NAME", "WAITS", "BAR"):
        if all(cell.plain.strip(" -") == "" for cell in columns[title]) or (title == "BAR" and not bars):
            del columns[title]
    reasons = columns.pop("WAITS", []) if width != UNBOUNDED else []
    widths = _fitted({title: _natural(title, cells, width) for title, cells in columns.items()}, width)
    rows = list(zip(*(columns[title] for title in widths), strict=True))
    return Group(*_with_reasons(widths, rows, reasons)) if reasons else _table(widths, rows)


def _with_reasons(
    widths: dict[str, int], rows: list[tuple[Text, ...]], reasons: list[Text]
) -> Iterator[RenderableType]:
    """The table in pieces, each of which ends with a job that waits."""
    begin = 0
    for place, reason in enumerate(reasons, 1):
        if reason.plain != "-":
            yield _table(widths, rows[begin:place], heading=begin == 0)
            yield Padding(Text.assemble("waits: ", reason, style="dim"), (0, 0, 0, GAP))
            begin = place
    yield _table(widths, rows[begin:], heading=begin == 0)


def _table(widths: dict[str, int], rows: list[tuple[Text, ...]], *, heading: bool = True) -> Table:
    table = Table(
        box=None, pad_edge=False, show_edge=False, show_header=heading, header_style="bold", padding=(0, GAP, 0, 0)
    )
    for title, size in widths.items():
        justify = "right" if title in RIGHT else "left"
        table.add_column(TITLES.get(title, title), width=size, no_wrap=True, overflow=_cut(), justify=justify)  # type: ignore[arg-type]
    for row in rows:
        table.add_row(*row)
    return table


def _natural(title: str, cells: list[Text], width: int) -> int:
    natural = max([len(TITLES.get(title, title)), *(cell.cell_len for cell in cells)])
    longest = {"NAME": LONGEST_NAME, "USER": LONGEST_NAME}.get(title, natural)
    return min(natural, longest) if width != UNBOUNDED else natural


def _fitted(widths: dict[str, int], width: int) -> dict[str, int]:
    """The columns that there is room for, in their order. Names and commands give way first;
    then columns go, the least important first, and those come back that fit all the same."""
    least = {**widths, **{title: min(widths[title], size) for title, size in LEAST.items() if title in widths}}
    kept = dict(least)
    for title in FIRST_TO_GO:
        if _total(kept) > width:
            kept.pop(title, None)
    for title in reversed(FIRST_TO_GO):
        if title in least and title not in kept and _total({**kept, title: least[title]}) <= width:
            kept[title] = least[title]
    for title in LEAST:
        if title in kept:
            kept[title] = max(1, min(widths[title], kept[title] + width - _total(kept)))
    return {title: kept[title] for title in widths if title in kept}


def _total(widths: dict[str, int]) -> int:
    return sum(widths.values()) + GAP * (len(widths) - 1)


def _cut() -> OverflowMethod:
    return "ellipsis" if stdio.is_unicode() else "crop"


def _short_state(job: dict[str, Any]) -> Text:
    return Text(visible(words.short_state(job)), style=state_style(job))


def _cpu(job: dict[str, Any]) -> Text:
    used = (job.get("usage") or {}).get("cpu_usec")
    return Text("-" if used is None else words.brief(used))


def _memory(job: dict[str, Any]) -> Text:
    """Now (or at its peak, once finished) against the limit."""
    used, limit = memory_of(job)
    if used is None:
        return Text(f"- / {format_size(limit)}" if limit else "-")
    text = format_size(used) + (f" / {format_size(limit)}" if limit else "")
    return Text(text, style=_pressing(used, limit))


def _bar(job: dict[str, Any]) -> Text:
    used, limit = memory_of(job)
    if not limit:
        return Text("")
    return Text(bar((used or 0) / limit, BAR), style=_pressing(used or 0, limit) or "green")


def _pressing(used: int, limit: int | None) -> str:
    if not limit or used <= 0.75 * limit:
        return ""
    return "red" if used > 0.9 * limit else "yellow"


COLUMNS: dict[str, Callable[[dict[str, Any]], Text]] = {
    "ID": lambda job: Text(visible(job["id"])),
    "NAME": lambda job: Text(visible(job["spec"].get("name") or "-")),
    "USER": lambda job: Text(visible(user_name(job["uid"]))),
    "COMMAND": lambda job: Text(quoted(job["spec"]["argv"])),
    "STATE": _short_state,
    "AGE": lambda job: Text(words.age(job, now())),
    "CPU": _cpu,
    "BAR": _bar,
    "MEMORY": _memory,
    "WAITS": lambda job: Text(visible(job.get("waits_for") or "-")),
}
