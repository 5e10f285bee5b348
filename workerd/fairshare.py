"""Who gives way when there is too much: those who have most of it. Pure."""

from __future__ import annotations

from collections.abc import Mapping


def level(counts: Mapping[int, int], kept: int) -> tuple[int, int]:
    """How many each may keep at most, so that all keep no more than `kept` together; and
    of how many who have more than that each may keep one more."""
    low, high = 0, max(counts.values(), default=0)
    while low < high:
        middle = (low + high + 1) // 2
        if _together(counts, middle) <= kept:
            low = middle
        else:
            high = middle - 1
    return low, max(0, kept - _together(counts, low))


def _together(counts: Mapping[int, int], most: int) -> int:
    return sum(min(count, most) for count in counts.values())
