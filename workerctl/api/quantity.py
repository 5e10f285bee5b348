"""Sizes and durations as programs give them: numbers, or what people write.

A size is a number of bytes or `"256M"`; a duration is a number of seconds, `"1m30s"` or
a timedelta. What is wrong is InvalidParams, as the daemon's own refusal is, and names
the argument.
"""

from __future__ import annotations

from datetime import timedelta

from workerd.errors import InvalidParams
from workerd.units import DURATION_FORMS, MAX_DURATION, SIZE_FORMS, parse_duration, parse_size

Size = int | str
Duration = float | str | timedelta


def size(given: Size, name: str, *, minimum: int = 1) -> int:
    """Bytes."""
    if isinstance(given, str):
        try:
            return parse_size(given, minimum=minimum)
        except ValueError as error:
            raise InvalidParams(f"{name}: {error}", field=name) from None
    if isinstance(given, bool) or not isinstance(given, int) or given < minimum:
        raise InvalidParams(f"{name}={given!r}: give bytes, or text as {SIZE_FORMS}", field=name)
    return given


def duration(given: Duration, name: str) -> int:
    """Microseconds."""
    if isinstance(given, str):
        try:
            return parse_duration(given)
        except ValueError as error:
            raise InvalidParams(f"{name}: {error}", field=name) from None
    if isinstance(given, timedelta):
        usec = given // timedelta(microseconds=1)
    elif isinstance(given, bool) or not isinstance(given, (int, float)) or given != given:
        raise InvalidParams(f"{name}={given!r}: give seconds, a timedelta, or text as {DURATION_FORMS}", field=name)
    else:
        usec = round(min(given, MAX_DURATION / 1e6) * 1_000_000) if given >= 0 else -1
    if not 0 <= usec:
        raise InvalidParams(f"{name}={given!r}: a duration is not negative", field=name)
    return min(usec, MAX_DURATION)


def maybe_duration(given: Duration | None, name: str) -> int | None:
    return None if given is None else duration(given, name)
