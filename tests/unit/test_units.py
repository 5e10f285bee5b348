"""Sizes and durations: what is accepted, what is refused, and that both directions agree."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import workerd
from workerd.units import (
    MAX_DURATION,
    MAX_SIZE,
    format_duration,
    format_size,
    parse_duration,
    parse_size,
)

SECOND = 1_000_000


class TestParseSize:
    @pytest.mark.parametrize(
        ("text", "size"),
        [
            ("1024", 1024),
            ("1", 1),
            ("10B", 10),
            ("256M", 256 << 20),
            ("256m", 256 << 20),
            ("256MB", 256 << 20),
            ("256MiB", 256 << 20),
            ("256mib", 256 << 20),
            ("1.5G", 3 << 29),
            ("1GiB", 1 << 30),
            ("0.5K", 512),
            ("2T", 2 << 40),
            ("1P", 1 << 50),
            ("8191P", 8191 << 50),
            ("0.1K", 102),
            (str(MAX_SIZE), MAX_SIZE),
        ],
    )
    def test_accepts(self, text: str, size: int) -> None:
        assert parse_size(text) == size

    @pytest.mark.parametrize(
        "text",
        [
            "",
            " ",
            "x",
            "-1",
            "-1M",
            "+1M",
            "1.5",
            "1.5B",
            ".5G",
            "1.G",
            "1,5G",
            "1 G",
            " 1G",
            "1G ",
            "1G\n",
            "1GG",
            "1E",
            "1iB",
            "1Bi",
            "0x10",
            "1e3",
            "nan",
            "inf",
            "1_000",
            "٣M",
            "1G\0",
            pytest.param("9" * 5000, id="5000 digits"),
        ],
    )
    def test_refuses_anything_else_and_lists_the_accepted_forms(self, text: str) -> None:
        with pytest.raises(ValueError, match=re.escape("1024, 256M, 1.5G, 1GiB")):
            parse_size(text)

    @pytest.mark.parametrize("text", ["0", "0M", "0.0001K"])
    def test_nothing_is_too_small_unless_it_is_allowed(self, text: str) -> None:
        with pytest.raises(ValueError, match="too small"):
            parse_size(text)
        assert parse_size(text, minimum=0) == 0

    @pytest.mark.parametrize("text", ["8192P", str(MAX_SIZE + 1), "9" * 19 + "P"])
    def test_more_than_the_kernel_counts_to_is_too_large(self, text: str) -> None:
        with pytest.raises(ValueError, match=r"too large.*256M"):
            parse_size(text)


class TestParseDuration:
    @pytest.mark.parametrize(
        ("text", "usec"),
        [
            ("90s", 90 * SECOND),
            ("5m", 300 * SECOND),
            ("1h30m", 5400 * SECOND),
            ("500ms", SECOND // 2),
            ("250us", 250),
            ("7d", 7 * 86_400 * SECOND),
            ("2w", 14 * 86_400 * SECOND),
            ("1d1h1m1s1ms1us", 90_061 * SECOND + 1001),
            ("1.5h", 5400 * SECOND),
            ("10", 10 * SECOND),
            ("0.25", SECOND // 4),
            ("0", 0),
            ("0s", 0),
        ],
    )
    def test_accepts(self, text: str, usec: int) -> None:
        assert parse_duration(text) == usec

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "s",
            "-1s",
            "1 s",
            "1m1h",
            "1h1h",
            "1s5",
            "5x",
            "1h30",
            "1.5.5s",
            "1e3",
            "nan",
            "inf",
            "1S",
            "٣s",
            pytest.param("9" * 5000, id="5000 digits"),
            "s1",
            "1ss",
            "1s\n",
        ],
    )
    def test_refuses_anything_else_and_lists_the_accepted_forms(self, text: str) -> None:
        with pytest.raises(ValueError, match="500ms, 10s"):
            parse_duration(text)

    def test_less_than_the_minimum_is_too_small(self) -> None:
        with pytest.raises(ValueError, match="too small"):
            parse_duration("0s", minimum=1)

    def test_more_than_the_protocol_takes_is_too_large(self) -> None:
        assert parse_duration(f"{MAX_DURATION}us") == MAX_DURATION
        with pytest.raises(ValueError, match="too large"):
            parse_duration(f"{MAX_DURATION + 1}us")


class TestFormatSize:
    @pytest.mark.parametrize(
        ("size", "text"),
        [
            (0, "0"),
            (1, "1"),
            (1023, "1023"),
            (1024, "1K"),
            (1536, "1.5K"),
            (256 << 20, "256M"),
            (3 << 29, "1.5G"),
            ((1 << 20) - 1, "1M"),
            (1023 << 10, "1023K"),
            (MAX_SIZE, "8192P"),
            (-1536, "-1.5K"),
        ],
    )
    def test_examples(self, size: int, text: str) -> None:
        assert format_size(size) == text

    @given(st.integers(1, (1 << 60) - (1 << 50)))
    @settings(derandomize=True, max_examples=300, deadline=None)
    def test_is_short_and_within_a_twentieth_of_its_unit(self, size: int) -> None:
        text = format_size(size)
        assert len(text) <= 7
        assert abs(parse_size(text) - size) <= max(1, size) * 0.051

    @given(st.integers(1, 1023), st.sampled_from(range(6)))
    @settings(derandomize=True, max_examples=300, deadline=None)
    def test_whole_numbers_of_a_unit_come_back_exactly(self, count: int, power: int) -> None:
        assert parse_size(format_size(count << 10 * power)) == count << 10 * power


class TestFormatDuration:
    @pytest.mark.parametrize(
        ("usec", "text"),
        [
            (0, "0s"),
            (340, "340us"),
            (12_345, "12ms"),
            (1_250_000, "1.25s"),
            (59_999_999, "59.999s"),
            (60 * SECOND, "1m"),
            (310 * SECOND, "5m10s"),
            (5400 * SECOND, "1h30m"),
            (3605 * SECOND, "1h"),
            (7 * 86_400 * SECOND, "7d"),
            (90_061 * SECOND, "1d1h"),
            (-90 * SECOND, "-1m30s"),
        ],
    )
    def test_examples(self, usec: int, text: str) -> None:
        assert format_duration(usec) == text

    @given(st.integers(0, MAX_DURATION))
    @settings(derandomize=True, max_examples=300, deadline=None)
    def test_can_be_read_back_and_is_never_more_than_has_passed(self, usec: int) -> None:
        read = parse_duration(format_duration(usec))
        assert read <= usec
        assert usec - read <= usec * 0.05 + 1 or usec < 100_000


class TestImport:
    def test_imports_nothing_heavy(self) -> None:
        code = "import sys, workerd.units; print({'asyncio', 'msgspec', 'decimal', 'fractions'} & set(sys.modules))"
        root = Path(workerd.__file__).parents[1]
        ran = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
        assert ran.stdout == "set()\n"
