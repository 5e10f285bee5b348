"""Sizes and durations, as people write them and as they are shown.

Imported by workerctl's shortest paths, so nothing but `re`. Sizes are bytes and
1024-based, durations are microseconds; arithmetic is on integers, so that what is
written is what is meant.
"""

from __future__ import annotations

import re

SIZE_FORMS = "1024, 256M, 1.5G, 1GiB (K, M, G, T, P are powers of 1024)"
DURATION_FORMS = "500ms, 10s, 1.5s, 5m, 1h30m, 7d (a bare number is seconds)"
MAX_SIZE = 2**63 - 1
MAX_DURATION = 2**62
"""microseconds; what the protocol takes"""

_SIZE = re.compile(r"([0-9]{1,19})(?:\.([0-9]{1,19}))?(?:([KMGTP])(?:I?B)?|B)?", re.IGNORECASE)
_SIZE_UNITS = " KMGTP"
_DURATION_UNITS = {
    "w": 604_800_000_000,
    "d": 86_400_000_000,
    "h": 3_600_000_000,
    "m": 60_000_000,
    "s": 1_000_000,
    "ms": 1_000,
    "us": 1,
}
_DURATION_PART = re.compile(r"([0-9]{1,19})(?:\.([0-9]{1,19}))?(w|d|h|ms|m|s|us)")
_SECONDS = re.compile(r"[0-9]{1,19}(?:\.[0-9]{1,19})?")


def parse_size(text: str, *, minimum: int = 1) -> int:
    """Bytes; a part of a byte is dropped. Raises ValueError, which lists the
    accepted forms, for anything else and for less than `minimum`."""
    match = _SIZE.fullmatch(text)
    if match is None or (match[2] is not None and match[3] is None):
        raise ValueError(f"not a size: {text[:40]!r}; accepted are {SIZE_FORMS}")
    unit = 1 << 10 * _SIZE_UNITS.index((match[3] or " ").upper())
    return _bounded(_scaled(match[1], match[2], unit), text, minimum, MAX_SIZE, f"size; accepted are {SIZE_FORMS}")


def parse_duration(text: str, *, minimum: int = 0) -> int:
    """Microseconds; a part of one is dropped. Units go from large to small, each
    once. Raises ValueError, which lists the accepted forms, for anything else and
    for less than `minimum`."""
    written = text + "s" if _SECONDS.fullmatch(text) else text
    total, place, smallest = 0, 0, MAX_DURATION
    while match := _DURATION_PART.match(written, place):
        unit = _DURATION_UNITS[match[3]]
        if unit >= smallest:
            break
        total += _scaled(match[1], match[2], unit)
        place, smallest = match.end(), unit
    if not written or place != len(written):
        raise ValueError(f"not a duration: {text[:40]!r}; accepted are {DURATION_FORMS}")
    return _bounded(total, text, minimum, MAX_DURATION, f"duration; accepted are {DURATION_FORMS}")


def format_size(size: int) -> str:
    """A size of at most six characters, rounded to one decimal: 512, 1.5K, 256M."""
    sign, size = ("-", -size) if size < 0 else ("", size)
    power = 0
    # From 1023.95 on a value would be shown as 1024.0 of its unit: the next one is used.
    while power < len(_SIZE_UNITS) - 1 and size * 20 >= 1024**power * (20_479 if power else 20_480):
        power += 1
    if not power:
        return f"{sign}{size}"
    tenths = (size * 20 + 1024**power) // (2 * 1024**power)
    return f"{sign}{_decimal(tenths, 10)}{_SIZE_UNITS[power]}"


def format_duration(usec: int) -> str:
    """The two largest units: 340us, 12ms, 1.25s, 5m10s, 1h30m, 7d. Cut off, not
    rounded: no time is shown before it has passed."""
    if usec < 0:
        return "-" + format_duration(-usec)
    if usec < 1_000:
        return f"{usec}us" if usec else "0s"
    if usec < 1_000_000:
        return f"{usec // 1_000}ms"
    if usec < 60_000_000:
        return f"{_decimal(usec // 1_000, 1_000)}s"
    return _two_units(usec)


def _two_units(usec: int) -> str:
    names = ["d", "h", "m", "s"]
    first = next(place for place, name in enumerate(names) if usec >= _DURATION_UNITS[name])
    text, rest = "", usec
    for name in names[first : first + 2]:
        count, rest = divmod(rest, _DURATION_UNITS[name])
        text += f"{count}{name}" if count else ""
    return text


def _scaled(whole: str, fraction: str | None, unit: int) -> int:
    fraction = fraction or ""
    scale = int("1" + "0" * len(fraction))
    return int(whole + fraction) * unit // scale


def _bounded(value: int, text: str, minimum: int, maximum: int, what: str) -> int:
    if not minimum <= value <= maximum:
        raise ValueError(f"{text!r} is too {'small' if value < minimum else 'large'} for a {what}")
    return value


def _decimal(value: int, scale: int) -> str:
    """value / scale without trailing zeros."""
    whole, rest = divmod(value, scale)
    digits = len(str(scale)) - 1
    return f"{whole}.{rest:0{digits}d}".rstrip("0").rstrip(".") if rest else str(whole)
