"""What people see: tables and panels, drawn with rich.

Every text that a job or a user chose passes `visible` and becomes a Text, so that
neither control characters nor rich's own markup in it mean anything. On a terminal
things are fitted to its width; elsewhere nothing is cut off.
"""

from __future__ import annotations

import io
import os
import time
from typing import Any

from rich import box
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from workerctl import stdio, words
from workerctl.accounts import user_name
from workerctl.escape import quoted, visible
from workerd.units import format_duration, format_size

UNBOUNDED = 100_000
"""columns where the output is no terminal"""
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
    several_users = len({job["uid"] for job in jobs} | {os.getuid()}) > 1
    named = any(job["spec"].get("name") for job in jobs)
    table = Table(box=None, pad_edge=False, show_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    columns: list[tuple[str, Any]] = [("ID", _id)]
    if named:
        columns.append(("NAME", _name))
    if several_users or width >= 100:
        columns.append(("USER", lambda job: Text(visible(user_name(job["uid"])))))
    columns += [("COMMAND", _command), ("STATE", _short_state)]
    if width >= 60:
        columns.append(("AGE", lambda job: Text(words.age(job, _now()))))
    if width >= 72:
        columns.append(("CPU", _cpu))
    if width >= 50:
        columns.append(("MEMORY", _memory))
    for title, _ in columns:
        if title == "COMMAND":
            table.add_column(
                title, ratio=1 if width < UNBOUNDED else None, no_wrap=True, overflow="ellipsis", min_width=8
            )
        else:
            right = title in ("AGE", "CPU")
            table.add_column(title, no_wrap=True, overflow="ellipsis", justify="right" if right else "left")
    for job in jobs:
        table.add_row(*(cell(job) for _, cell in columns))
    return table


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


def _cpu(job: dict[str, Any]) -> Text:
    used = (job.get("usage") or {}).get("cpu_usec")
    return Text("-" if used is None else format_duration(used // 1000 * 1000))


def _memory(job: dict[str, Any]) -> Text:
    """Now (or at its peak, once finished) against the limit."""
    usage = job.get("usage") or {}
    field = "memory_peak" if job["state"] == "finished" else "memory_current"
    used, limit = usage.get(field), (job["spec"].get("limits") or {}).get("memory")
    if used is None:
        return Text(f"- / {format_size(limit)}" if limit else "-")
    text = format_size(used) + (f" / {format_size(limit)}" if limit else "")
    return Text(text, style="yellow" if limit and used > 0.9 * limit else "")


def job_panel(job: dict[str, Any]) -> RenderableType:
    """All about one job, a fact a line."""
    rows: list[tuple[str, RenderableType]] = [("state", Text(visible(words.state(job)), style=state_style(job)))]
    spec = job["spec"]
    rows.append(("command", Text(quoted(spec["argv"]))))
    rows.append(("user", Text(visible(user_name(job["uid"])))))
    rows.append(("directory", Text(visible(spec.get("cwd", "/")))))
    rows += [(name, Text(text)) for name, text in _times(job)]
    rows += [(name, Text(visible(text))) for name, text in _limits(job)]
    rows += [(name, Text(text)) for name, text in words.usage(job)]
    if job.get("output_end") is not None:
        rows.append(("output", Text(words.size(job["output_end"]))))
    if job["state"] not in ("queued", "finished") and job.get("pid"):
        rows.append(("host pid", Text(str(job["pid"]))))
    rows += [("warning", Text(visible(warning), style="yellow")) for warning in job.get("warnings") or []]
    title = Text(visible(job["id"]), style="bold")
    if spec.get("name"):
        title.append(" " + visible(spec["name"]), style="bold cyan")
    return _panel(title, rows)


def _panel(title: Text, rows: list[tuple[str, RenderableType]]) -> RenderableType:
    table = Table(box=box.ROUNDED, show_header=False, title=title, title_justify="left")
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(name, value)
    return table


def _times(job: dict[str, Any]) -> list[tuple[str, str]]:
    rows = [("created", local_time(job["created"]))]
    if job.get("started"):
        rows.append(("started", local_time(job["started"])))
    if job.get("finished"):
        rows.append(("finished", local_time(job["finished"])))
    if job.get("started"):
        rows.append(("ran for" if job.get("finished") else "runs for", words.age(job, _now())))
    return rows


def local_time(usec: int) -> str:
    moment = time.localtime(usec // 1_000_000)
    return time.strftime("%Y-%m-%d %H:%M:%S", moment)


def _limits(job: dict[str, Any]) -> list[tuple[str, str]]:
    """What was asked for; what is in force beside it where that is something else."""
    wanted = dict(words.limits(job["spec"].get("limits") or {}))
    effective = None if job.get("effective") is None else dict(words.limits(job["effective"]))
    rows = []
    for name, figure in wanted.items():
        real = figure if effective is None else effective.get(name, "none")
        rows.append((f"limit: {name}", figure if real == figure else f"{real} in force, {figure} asked for"))
    return rows


def info_panel(info: dict[str, Any]) -> RenderableType:
    rows: list[tuple[str, RenderableType]] = [
        ("version", Text(visible(info["version"]))),
        ("running since", Text(f"{local_time(info['started'])}, pid {info['pid']}")),
        ("socket", Text(visible(info["socket"]))),
        ("state", Text(visible(info["state_dir"]))),
        ("cgroup", Text(visible(info["cgroup"]))),
        ("limits it can hold", Text(visible(", ".join(info["controllers"]) or "none"))),
    ]
    if info.get("missing_controllers"):
        rows.append(("and cannot", Text(visible(", ".join(info["missing_controllers"])), style="yellow")))
    rows.append(("jobs", Text(f"{info['jobs_live']} live, {info['jobs_finished']} finished")))
    rank = "an admin: sees all jobs" if info["admin"] else "sees own jobs"
    rows.append(("you are", Text(f"{visible(user_name(info['uid']))}, {rank}")))
    rows += [(f"default: {name}", Text(figure)) for name, figure in words.limits(info.get("defaults") or {})]
    return _panel(Text("workerd", style="bold"), rows)
