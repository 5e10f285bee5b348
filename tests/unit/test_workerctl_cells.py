"""Text in columns: broken between words, wide characters counted as two."""

from __future__ import annotations

import pytest

from workerctl.cells import columns, wrapped


class TestWrapped:
    @pytest.mark.parametrize(
        ("text", "width", "lines"),
        [
            ("a few words", 80, ["a few words"]),
            ("a few words", 5, ["a few", "words"]),
            ("a few words", 6, ["a few", "words"]),
            ("", 5, [""]),
            ("abcdefgh ij", 4, ["abcd", "efgh", "ij"]),
            ("漢字漢字 x", 5, ["漢字", "漢字", "x"]),
            ("漢", 1, ["漢"]),
        ],
    )
    def test_is_broken_between_words_and_within_only_those_that_are_too_wide(
        self, text: str, width: int, lines: list[str]
    ) -> None:
        assert wrapped(text, width) == lines

    def test_nothing_is_lost_and_no_line_is_wider(self) -> None:
        text = "one two three 漢字漢字漢字 " * 9
        for width in range(2, 60):
            found = wrapped(text, width)
            assert "".join(found).replace(" ", "") == text.replace(" ", "")
            assert max(map(columns, found)) <= width
