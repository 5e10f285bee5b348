"""What `top` shows: the view and a sample as lines of at most the terminal's width. Pure."""

from __future__ import annotations

from workerctl import stdio, words
from workerctl.cells import columns, fitted
from workerctl.escape import quoted, visible
from workerctl.statstable import figures, lines, size
from workerctl.top import keyhelp, summary
from workerctl.top.view import SORTS

TYPE_CHECKING = False  # as typing has it, without its 9 ms
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from workerctl.top.screen import Line
    from workerctl.top.view import Row, View

HEAD, FOOT = 5, 1
"""lines above and below the jobs"""
TITLES = ("ID", "NAME", "USER", "STATE", "CPU%", "BAR", "MEMORY", "PIDS", "READ/s", "WRITE/s", "STALL%", "AGE")
FIRST_TO_GO = ("BAR", "AGE", "USER", "READ/s", "WRITE/s", "PIDS", "STALL%", "MEMORY", "NAME", "MEM", "CPU%")
"""where there is no room; what the jobs are sorted by goes last, and the state of a job never"""
SHORTER = {"MEMORY": "MEM"}
"""what stands in place of a column that goes: without the limit"""
SORTED_BY = {"c": ("CPU%",), "m": ("MEMORY", "MEM"), "d": ("READ/s", "WRITE/s"), "w": ("STALL%",), "a": ("AGE",)}
LEAST_COMMAND = 10
LONGEST = {"NAME": 16, "USER": 12, "STATE": 9}


def page(view: View, machine: dict[str, Any], width: int, height: int, now: int) -> list[Line]:
    """`machine`: load, memory, pressure, cpus, clock; what is not known is left out."""
    body = max(1, height - HEAD - FOOT)
    shown = view.window(body)
    made: list[Line] = [(summary.head(view, machine, width), "bold"), (summary.figures(view, machine, width), "")]
    made += [(summary.waiting(machine, width), ""), _state(view, width)]
    if view.help:
        made = _help(made, width, height)
    else:
        made += _table(shown, view, width, now)
    made = made[: height - FOOT]
    made += [("", "")] * (height - FOOT - len(made))
    made.append((summary.keys(width), "dim"))
    dots = _dots()
    return [(fitted(text, width, dots=dots).rstrip() if columns(text) > width else text, style) for text, style in made]


def _dots() -> str:
    return "…" if stdio.is_unicode() else ""


def _help(above: list[Line], width: int, height: int) -> list[Line]:
    """The help below the other lines; in place of them where there is no room for both."""
    helping: list[Line] = [(line, "") for line in keyhelp.lines(width)]
    whole = [*above, ("", ""), *helping]
    return whole if len(whole) <= height - FOOT else helping


def _state(view: View, width: int) -> Line:
    if view.asked is not None:
        return f"{view.asked[1]} y/n", "title"
    if view.typing:
        return summary.typed(visible(view.filter), width), "bold"
    if view.message:
        return visible(view.message), "yellow"
    line = f"by {SORTS[view.sort][0]}{', reversed' if view.reverse else ''}"
    style = "dim"
    if view.filter:
        line, style = f"{line}   filter: {visible(view.filter)}   (escape shows all)", "cyan"
    chosen = view.rows[view.place]["job"] if view.rows else {}
    if chosen.get("waits_for"):
        line, style = f"{line}   {chosen['id']} waits: {visible(chosen['waits_for'])}", "cyan"
    return line, style


def _table(rows: Sequence[Row], view: View, width: int, now: int) -> list[Line]:
    shown = [_cells(row, now) for row in rows]
    titles = [title for title in TITLES if title not in ("BAR", "NAME") or any(row[title] != "" for row in shown)]
    wanted = SORTED_BY.get(view.sort, ())
    for gone in ("", *(title for title in FIRST_TO_GO if title not in wanted), *wanted):
        titles = [short for name in titles if (short := SHORTER.get(name, "") if name == gone else name)]
        table = lines(shown, titles, LONGEST, _dots())
        left = max(map(columns, table))
        if left + 2 + LEAST_COMMAND <= width:
            break
    commands = ["COMMAND", *(row["COMMAND"] for row in shown)]
    whole = [f"{fitted(line, left)}  {command}" for line, command in zip(table, commands, strict=True)]
    styles = ["bold", *("reverse" if row["id"] == view.selected else _style(row) for row in rows)]
    return [
        (fitted(line, width, dots=_dots()), style) if style == "reverse" else (line, style)
        for line, style in zip(whole, styles, strict=True)
    ]


def _cells(row: Row, now: int) -> dict[str, str]:
    job = row["job"]
    cells = {**figures(row, row["user"]), "STATE": words.short_state(job), "AGE": words.age(job, now)}
    cells |= {"MEM": size(row["memory"]), "NAME": visible(row["name"] or "")}
    return {**cells, "COMMAND": quoted(job["spec"]["argv"])}


def _style(row: Row) -> str:
    if row["memory_limit"] and (row["memory"] or 0) > 0.9 * row["memory_limit"]:
        return "red"
    return {"paused": "yellow", "stopping": "yellow", "queued": "cyan", "starting": "cyan"}.get(row["state"], "")
