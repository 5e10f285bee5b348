"""Who gives way: whoever has most, and nobody else."""

from __future__ import annotations

import itertools

import pytest

from workerd.fairshare import level


@pytest.mark.parametrize(
    ("counts", "kept", "expected"),
    [
        ({}, 5, (0, 5)),
        ({1: 10}, 7, (7, 0)),
        ({1: 10}, 0, (0, 0)),
        ({1: 1000, 2: 3}, 1000, (997, 0)),
        ({1: 1000, 2: 3}, 3, (1, 1)),
        ({1: 5, 2: 5}, 7, (3, 1)),
        ({1: 5, 2: 4, 3: 1}, 5, (2, 0)),
    ],
)
def test_level(counts: dict[int, int], kept: int, expected: tuple[int, int]) -> None:
    assert level(counts, kept) == expected


def test_whatever_the_counts_as_many_are_kept_as_may_be() -> None:
    for counts in itertools.product(range(5), repeat=3):
        for kept in range(sum(counts) + 1):
            most, spare = level(dict(enumerate(counts)), kept)
            assert sum(min(count, most) for count in counts) + spare == kept
            above = [count for count in counts if count > most]
            assert spare < len(above) or (spare, above) == (0, [])
