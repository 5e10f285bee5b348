"""A figure against its limit as a bar, in the characters that the terminal has."""

from __future__ import annotations

from workerctl import stdio

TYPE_CHECKING = False  # as typing has it, without its 9 ms
if TYPE_CHECKING:
    from typing import Any

EIGHTHS = " ▏▎▍▌▋▊▉█"


def bar(share: float, width: int) -> str:
    """`share` of 1 filled, of `width` columns: █████▎··, or #####... in ASCII."""
    share = min(1.0, max(0.0, share))
    if not stdio.is_unicode():
        full = round(share * width)
        return "#" * full + "." * (width - full)
    full, part = divmod(round(share * width * 8), 8)
    text = "█" * full + (EIGHTHS[part] if part else "")
    return text + "·" * (width - len(text))


def memory_of(job: dict[str, Any]) -> tuple[int | None, int | None]:
    """Bytes used, now or at its peak once it is finished, and the limit in force."""
    usage, limits = job.get("usage") or {}, job["spec"].get("limits") or {}
    used = usage.get("memory_peak" if job["state"] == "finished" else "memory_current")
    return used, (job.get("effective") or {}).get("memory") or limits.get("memory")
