"""What `top` shows: the view and a sample as lines of at most the terminal's width. Pure."""

from __future__ import annotations

from workerctl import stdio, words
from workerctl.bars import bar
from workerctl.cells import columns, fitted
from workerctl.escape import quoted, visible
from workerctl.statstable import figures, lines, percent
from workerctl.top.view import SORTS
from workerd.units import format_size

TYPE_CHECKING = False  # as typing has it, without its 9 ms
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from workerctl.top.screen import Line
    from workerctl.top.view import Row, View

HEAD, FOOT = 5, 1
"""lines above and below the jobs"""
TITLES = ("ID", "NAME", "USER", "STATE", "CPU%", "BAR", "MEMORY", "PIDS", "READ/s", "WRITE/s", "STALL%", "AGE")
FIRST_TO_GO = ("BAR", "AGE", "USER", "READ/s", "WRITE/s", "PIDS", "STALL%", "NAME", "STATE", "MEMORY")
LEAST_COMMAND = 12
LONGEST = {"NAME": 16, "USER": 12, "STATE": 9}
KEYS = "h help   q quit   / filter   o output   s stop   p pause   c m d w a n sort"
HELP = """\
  up, down, page up, page down, home, end    choose a job
  o, enter      its output, live; Ctrl-C there comes back
  s             stop it (asks first); K kills it at once (asks first)
  p             pause it, or let it go on
  c m d w a n   sort by CPU, memory, disks, waiting, age, name; again: the other way round
  /             show only jobs with these words in id, name, user, state or command
  escape        show all again
  space         a sample now
  q, Ctrl-C     leave; the jobs run on

  CPU% is of one CPU. STALL% is the share of the time in which something in the job had to
  wait for CPU, memory or disks. The bar is memory against its limit.\
"""


def page(view: View, machine: dict[str, Any], width: int, height: int, now: int) -> list[Line]:
    """`machine`: load, memory, pressure, cpus, clock; what is not known is left out."""
    body = max(1, height - HEAD - FOOT)
    shown = view.window(body)
    made: list[Line] = [(_head(view, machine), "bold"), (_machine(view, machine), ""), (_waiting(machine), "")]
    made.append(_state(view))
    if view.help:
        made += [("", ""), *((line, "") for line in HELP.splitlines())]
    else:
        made += _table(shown, view.selected, width, now)
    made = made[: height - FOOT]
    made += [("", "")] * (height - FOOT - len(made))
    made.append((KEYS, "dim"))
    dots = _dots()
    return [(fitted(text, width, dots=dots).rstrip() if columns(text) > width else text, style) for text, style in made]


def _dots() -> str:
    return "…" if stdio.is_unicode() else ""


def _head(view: View, machine: dict[str, Any]) -> str:
    counts: dict[str, int] = {}
    for row in view.rows:
        counts[row["state"]] = counts.get(row["state"], 0) + 1
    parts = ", ".join(f"{count} {state}" for state, count in sorted(counts.items())) or "no jobs"
    load = f"   load {machine['load']}" if machine.get("load") else ""
    return f"{machine['clock']}   {parts}{load}"


def _machine(view: View, machine: dict[str, Any]) -> str:
    used = sum(row["cpu_percent"] or 0 for row in view.rows)
    of = f" of {machine['cpus']} CPUs" if machine.get("cpus") else ""
    held = sum(row["memory"] or 0 for row in view.rows)
    text = f"jobs: CPU {percent(used)}%{of}, memory {format_size(held)}"
    if machine.get("memory"):
        taken, whole = machine["memory"]
        text += f"   machine: {bar(taken / whole, 10)} {format_size(taken)} of {format_size(whole)}"
    return text


def _waiting(machine: dict[str, Any]) -> str:
    names = {"cpu": "CPU", "memory": "memory", "io": "disks"}
    known = [f"{names[name]} {share:.1f}%" for name, share in (machine.get("pressure") or {}).items()]
    return "machine waits (10 s) for: " + ", ".join(known) if known else ""


def _state(view: View) -> Line:
    if view.asked is not None:
        return f"{view.asked[1]} y/n", "title"
    if view.typing:
        return f"filter: {visible(view.filter)}_", "bold"
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


def _table(rows: Sequence[Row], selected: str | None, width: int, now: int) -> list[Line]:
    shown = [_cells(row, now) for row in rows]
    titles = [title for title in TITLES if title not in ("BAR", "NAME") or any(row[title] != "" for row in shown)]
    for title in ("", *FIRST_TO_GO):
        titles = [name for name in titles if name != title]
        table = lines(shown, titles, LONGEST, _dots())
        left = max(map(columns, table))
        if left + 2 + LEAST_COMMAND <= width:
            break
    commands = ["COMMAND", *(row["COMMAND"] for row in shown)]
    whole = [f"{fitted(line, left)}  {command}" for line, command in zip(table, commands, strict=True)]
    styles = ["bold", *("reverse" if row["id"] == selected else _style(row) for row in rows)]
    return [
        (fitted(line, width, dots=_dots()), style) if style == "reverse" else (line, style)
        for line, style in zip(whole, styles, strict=True)
    ]


def _cells(row: Row, now: int) -> dict[str, str]:
    job = row["job"]
    cells = {**figures(row, row["user"]), "STATE": words.short_state(job), "AGE": words.age(job, now)}
    return {**cells, "NAME": visible(row["name"] or ""), "COMMAND": quoted(job["spec"]["argv"])}


def _style(row: Row) -> str:
    if row["memory_limit"] and (row["memory"] or 0) > 0.9 * row["memory_limit"]:
        return "red"
    return {"paused": "yellow", "stopping": "yellow", "queued": "cyan", "starting": "cyan"}.get(row["state"], "")
