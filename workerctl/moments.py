"""Moments as people write them after --since and --until, and as -t shows them."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

from workerctl.options import UsageError
from workerd.units import parse_duration

FORMS = "10m (ago), 14:30, 2026-01-31, '2026-01-31 14:30:05.5', 2026-01-31T14:30:05Z, @1767225600"


def moment_of(text: str, option: str) -> int:
    """Nanoseconds since the epoch; a time without a zone is local. Raises UsageError."""
    try:
        return time.time_ns() - parse_duration(text) * 1000
    except ValueError:
        pass
    try:
        if text.startswith("@"):
            return int(float(text[1:]) * 1e9)
        if len(text) in (5, 8) and text[2] == ":":
            text = f"{datetime.now():%Y-%m-%d}T{text}"
        at = datetime.fromisoformat(text).astimezone(UTC)
        return (at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) * 1000
    except (ValueError, OverflowError) as error:
        raise UsageError(f"{option} {text}: write {FORMS}") from error


def shown(time_ns: int, *, utc: bool) -> str:
    """ISO 8601 with milliseconds (what a record's time is exact to) and the zone."""
    at = datetime.fromtimestamp(time_ns // 1_000_000_000, UTC)
    at = at.replace(microsecond=time_ns // 1000 % 1_000_000)
    text = (at if utc else at.astimezone()).isoformat(timespec="milliseconds")
    return text.removesuffix("+00:00") + "Z" if utc else text
