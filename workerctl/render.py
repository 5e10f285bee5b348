"""What people see: tables and panels, drawn with rich.

Every text that a job or a user chose passes `visible` and becomes a Text, so that
neither control characters nor rich's own markup in it mean anything. On a terminal
things are fitted to its width; elsewhere nothing is cut off.
"""

from __future__ import annotations

import io
import os
import time
from collections.abc import Callable
from typing import Any

from rich.console import Console, OverflowMethod, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from workerctl import stdio, words
from workerctl.accounts import user_name
from workerctl.escape import quoted, visible
from workerd.units import format_size

UNBOUNDED = 100_000
"""columns where the output is no terminal"""
GAP = 2
LEAST_COMMAND = 20
LONGEST_NAME = 20
LONGEST_WAIT = 48
STATE_STYLES = {
    "queued": "cyan",
    "starting": "cyan",
    "running": "green",
    "paused": "yellow",
    "stopping": "yellow",
}


class _Page(io.StringIO):
    """Where rich draws to: it asks it for the encoding, to choose its box characters."""

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return stdio.encoding()


def draw(thing: RenderableType) -> None:
    """To stdout, in colour and to width only on a terminal."""
    terminal = stdio.is_terminal(stdio.STDOUT)
    page = _Page()
    console = Console(
        file=page,
        width=terminal_width() if terminal else UNBOUNDED,
        force_terminal=stdio.colour(),
        no_color=not stdio.colour(),
        markup=False,
        emoji=False,
        highlight=False,
        legacy_windows=False,
    )
    console.print(thing, no_wrap=not terminal or None, crop=terminal)
    # Padding to the width means nothing where there is no width.
    stdio.put("".join(line.rstrip() + "\n" for line in page.getvalue().splitlines()))


def terminal_width() -> int:
    try:
        return max(20, os.get_terminal_size(stdio.STDOUT).columns)
    except OSError:
        return 80


def job_table(jobs: list[dict[str, Any]]) -> Table:
    """One job a line; what matters least goes first where the terminal is narrow."""
    width = terminal_width() if stdio.is_terminal(stdio.STDOUT) else UNBOUNDED
    columns = {title: [cell(job) for job in jobs] for title, cell in COLUMNS.items()}
    for title in ("NAME", "WAITS"):
        if all(cell.plain == "-" for cell in columns[title]):
            del columns[title]
    widths = {title: _column_width(title, cells) for title, cells in columns.items()}
    command = widths["COMMAND"]
    for title in ("CPU", "USER", "AGE", "MEMORY", "NAME", "WAITS"):
        if sum(widths.values()) + GAP * (len(widths) - 1) - command + min(command, LEAST_COMMAND) > width:
            widths.pop(title, None)
    rest = width - (sum(widths.values()) - command) - GAP * (len(widths) - 1)
    widths["COMMAND"] = max(1, min(command, rest))
    table = Table(box=None, pad_edge=False, show_edge=False, header_style="bold", padding=(0, GAP, 0, 0))
    for title, size in widths.items():
        right = title in ("AGE", "CPU")
        table.add_column(title, width=size, no_wrap=True, overflow=_cut(), justify="right" if right else "left")
    for row in zip(*(columns[title] for title in widths), strict=True):
        table.add_row(*row)
    return table


def _column_width(title: str, cells: list[Text]) -> int:
    natural = max([len(title), *(cell.cell_len for cell in cells)])
    longest = {"NAME": LONGEST_NAME, "USER": LONGEST_NAME, "WAITS": LONGEST_WAIT}.get(title, natural)
    return min(natural, longest) if stdio.is_terminal(stdio.STDOUT) else natural


def _cut() -> OverflowMethod:
    return "ellipsis" if stdio.is_unicode() else "crop"


def _now() -> int:
    return time.time_ns() // 1000


def _id(job: dict[str, Any]) -> Text:
    return Text(visible(job["id"]))


def _name(job: dict[str, Any]) -> Text:
    return Text(visible(job["spec"].get("name") or "-"))


def _command(job: dict[str, Any]) -> Text:
    return Text(quoted(job["spec"]["argv"]))


def _short_state(job: dict[str, Any]) -> Text:
    return Text(visible(words.short_state(job)), style=state_style(job))


def state_style(job: dict[str, Any]) -> str:
    if job["state"] != "finished":
        return STATE_STYLES.get(job["state"], "")
    if job.get("reason") == "exited" and job.get("exit_code") == 0:
        return "dim"
    return "red"


def _user(job: dict[str, Any]) -> Text:
    return Text(visible(user_name(job["uid"])))


def _waits(job: dict[str, Any]) -> Text:
    return Text(visible(job.get("waits_for") or "-"))


def _age(job: dict[str, Any]) -> Text:
    return Text(words.age(job, _now()))


def _cpu(job: dict[str, Any]) -> Text:
    used = (job.get("usage") or {}).get("cpu_usec")
    return Text("-" if used is None else words.brief(used))


def _memory(job: dict[str, Any]) -> Text:
    """Now (or at its peak, once finished) against the limit."""
    usage = job.get("usage") or {}
    field = "memory_peak" if job["state"] == "finished" else "memory_current"
    used, limit = usage.get(field), (job["spec"].get("limits") or {}).get("memory")
    if used is None:
        return Text(f"- / {format_size(limit)}" if limit else "-")
    text = format_size(used) + (f" / {format_size(limit)}" if limit else "")
    return Text(text, style="yellow" if limit and used > 0.9 * limit else "")


COLUMNS: dict[str, Callable[[dict[str, Any]], Text]] = {
    "ID": _id,
    "NAME": _name,
    "USER": _user,
    "COMMAND": _command,
    "STATE": _short_state,
    "AGE": _age,
    "CPU": _cpu,
    "MEMORY": _memory,
    "WAITS": _waits,
}


def job_panel(job: dict[str, Any]) -> RenderableType:
    """All about one job, a fact a line."""
    spec = job["spec"]
    rows: list[tuple[str, Text]] = [("state", Text(visible(words.state(job)), style=state_style(job)))]
    rows.append(("command", Text(quoted(spec["argv"]))))
    if job.get("rerun_of"):
        rows.append(("again", Text(f"as job {visible(job['rerun_of'])}")))
    rows.append(("user", Text(visible(user_name(job["uid"])))))
    rows.append(("directory", Text(visible(spec.get("cwd", "/")))))
    rows += _section("network", words.network(job))
    rows += [(name, Text(text)) for name, text in _times(job)]
    rows += _section("earlier tries", words.tries(job))
    rows += _section("limits", words.limits_in_force(job) + words.time_limits(job))
    rows += _section("used", [f"{name} {text}" for name, text in words.usage(job)])
    if written := words.output(job):
        rows.append(("output", Text(written, style="yellow" if job.get("output_lost") else "")))
    if job["state"] not in ("queued", "finished") and job.get("pid"):
        rows.append(("host pid", Text(str(job["pid"]))))
    rows += _section("warnings", job.get("warnings") or [], style="yellow")
    title = visible(job["id"]) + (f" ({visible(spec['name'])})" if spec.get("name") else "")
    return _panel(title, rows)


def _section(title: str, lines: list[str], style: str = "") -> list[tuple[str, Text]]:
    return [(title if place == 0 else "", Text(visible(line), style=style)) for place, line in enumerate(lines)]


def _panel(title: str, rows: list[tuple[str, Text]]) -> RenderableType:
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in rows:
        grid.add_row(name, value)
    return Panel(grid, title=Text(title, style="bold"), title_align="left", expand=False, padding=(0, 1))


def _times(job: dict[str, Any]) -> list[tuple[str, str]]:
    rows = [("created", local_time(job["created"]))]
    if job["state"] == "queued" and job.get("start_at"):
        rows.append(("not before", local_time(job["start_at"])))
    if job.get("started"):
        rows.append(("started", local_time(job["started"])))
        if not job.get("finished"):
            rows.append(("runs for", words.ran_for(job, _now())))
    if job.get("finished"):
        after = f", after {words.ran_for(job, _now())}" if job.get("started") else ""
        rows.append(("finished", local_time(job["finished"]) + after))
    return rows


def local_time(usec: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(usec // 1_000_000))


def info_panel(info: dict[str, Any]) -> RenderableType:
    rows: list[tuple[str, Text]] = [
        ("version", Text(visible(info["version"]))),
        ("running", Text(f"since {local_time(info['started'])}, pid {info['pid']}")),
        ("socket", Text(visible(info["socket"]))),
        ("state", Text(visible(info["state_dir"]))),
        ("cgroup", Text(visible(info["cgroup"]))),
        ("can limit", Text(visible(", ".join(info["controllers"]) or "none"))),
    ]
    if info.get("missing_controllers"):
        rows.append(("cannot", Text(visible(", ".join(info["missing_controllers"])), style="yellow")))
    rows.append(
        ("jobs", Text(f"{info['jobs_live']} live, {info['jobs_queued']} waiting, {info['jobs_finished']} finished"))
    )
    rank = "an admin: sees all jobs" if info["admin"] else "sees own jobs"
    rows.append(("you are", Text(f"{visible(user_name(info['uid']))}, {rank}")))
    rows += _section("defaults", [f"{name} {figure}" for name, figure in words.limits(info.get("defaults") or {})])
    return _panel("workerd", rows)
