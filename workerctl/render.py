"""What people see: panels, and the drawing of everything that rich draws.

Every text that a job or a user chose passes `visible` and becomes a Text, so that
neither control characters nor rich's own markup in it mean anything. On a terminal
things are fitted to its width; elsewhere nothing is cut off.
"""

from __future__ import annotations

import io
import time
from typing import Any

from rich.console import Console, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from workerctl import stdio, words
from workerctl.accounts import user_name
from workerctl.escape import quoted, visible

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


def draw(thing: RenderableType, *, whole: bool = False) -> None:
    """To stdout, in colour only on a terminal, and to its width unless it is to be `whole`."""
    terminal = stdio.is_terminal(stdio.STDOUT) and not whole
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
    return max(20, stdio.width())


def now() -> int:
    return time.time_ns() // 1000


def state_style(job: dict[str, Any]) -> str:
    if job["state"] != "finished":
        return STATE_STYLES.get(job["state"], "")
    if job.get("reason") == "exited" and job.get("exit_code") == 0:
        return "dim"
    return "red"


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
            rows.append(("runs for", words.ran_for(job, now())))
    if job.get("finished"):
        after = f", after {words.ran_for(job, now())}" if job.get("started") else ""
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
    rows.append(("free for you", Text(words.room(info.get("free") or {}, info.get("total") or {}))))
    rows += _section("defaults", [f"{name} {figure}" for name, figure in words.limits(info.get("defaults") or {})])
    return _panel("workerd", rows)
