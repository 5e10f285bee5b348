"""The figures of running jobs as text, a column each: for `stats` and `top`."""

from __future__ import annotations

from workerctl.bars import bar
from workerctl.cells import columns, fitted
from workerctl.escape import visible
from workerd.units import format_size

TYPE_CHECKING = False  # as typing has it, without its 9 ms
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

RIGHT = ("CPU%", "PIDS", "READ/s", "WRITE/s", "STALL%", "AGE", "TIME")
BAR = 8


def percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.0f}" if share >= 100 else f"{share:.1f}"


def size(count: float | None) -> str:
    return "-" if count is None else format_size(int(count))


def stall(row: dict[str, Any]) -> float | None:
    """The worst of the three: the share of the time in which something had to wait."""
    known = [row[name] for name in ("cpu_stall_percent", "memory_stall_percent", "io_stall_percent")]
    return max((share for share in known if share is not None), default=None)


def memory(row: dict[str, Any]) -> str:
    used, limit = row["memory"], row["memory_limit"]
    return size(used) + (f" / {format_size(limit)}" if limit else "")


def memory_bar(row: dict[str, Any]) -> str:
    limit = row["memory_limit"]
    return bar((row["memory"] or 0) / limit, BAR) if limit else ""


def figures(row: dict[str, Any], user: str) -> dict[str, str]:
    """All that a table may show of one row of `Rates`, harmless and ready."""
    return {
        "ID": visible(row["id"]),
        "NAME": visible(row["name"] or "-"),
        "USER": visible(user),
        "CPU%": percent(row["cpu_percent"]),
        "BAR": memory_bar(row),
        "MEMORY": memory(row),
        "PIDS": "-" if row["pids"] is None else str(row["pids"]),
        "READ/s": size(row["read_bps"]),
        "WRITE/s": size(row["write_bps"]),
        "STALL%": percent(stall(row)),
    }


def lines(rows: Sequence[dict[str, str]], titles: Sequence[str], longest: dict[str, int], dots: str) -> list[str]:
    """A heading and a line for each row; columns that `longest` names are cut there."""
    heading = {title: "" if title == "BAR" else title for title in titles}
    widths = {
        title: min(max(columns(row[title]) for row in (heading, *rows)), longest.get(title, 10_000)) for title in titles
    }
    return [
        "  ".join(fitted(row[title], widths[title], right=title in RIGHT, dots=dots) for title in titles).rstrip()
        for row in (heading, *rows)
    ]
