"""The guard compares ratios, in their own direction, and nothing else."""

from __future__ import annotations

import pytest

from tests.bench.figures import Goal, Recorded, Row, Table
from tests.bench.guard import compared, regressions
from tests.bench.report import Report, markdown, merged


def found(new: Goal, old: Goal) -> list[str]:
    return regressions(Recorded(goals=[new]), Recorded(goals=[old]))


class TestRegressions:
    @pytest.mark.parametrize(("value", "worse"), [(2.0, False), (2.5, False), (2.51, True), (0.1, False)])
    def test_a_ratio_that_is_to_be_small(self, value: float, worse: bool) -> None:
        assert bool(found(Goal("a", value, 9), Goal("a", 2.0, 9))) is worse

    @pytest.mark.parametrize(("value", "worse"), [(1.0, False), (0.8, False), (0.79, True), (9.0, False)])
    def test_a_ratio_that_is_to_be_large(self, value: float, worse: bool) -> None:
        assert bool(found(Goal("a", value, 0, at_least=True), Goal("a", 1.0, 0, at_least=True))) is worse

    def test_times_are_not_compared(self) -> None:
        slow = Goal("a", 9.0, 1, relative=False, unit="ms")
        assert found(slow, Goal("a", 1.0, 1, relative=False, unit="ms")) == []
        assert compared(Recorded(goals=[slow]), Recorded(goals=[slow])) == 0

    def test_what_was_not_measured_before_is_no_regression(self) -> None:
        assert found(Goal("new", 9.0, 1), Goal("old", 1.0, 1)) == []


class TestMerged:
    def test_some_cases_measured_again_replace_theirs_and_leave_the_others(self) -> None:
        row = Row("ours", 1.0, 1.0, 1.0, 1.0, 1)
        old = Recorded(
            [Table("launch", "ms", "ours", (row,)), Table("rpc", "/s", "ours", (row,))],
            [Goal("launch / loop", 4.0, 1.4), Goal("rpc / echo", 0.5, 0.6, at_least=True)],
            ["bwrap: not installed"],
        )
        again = Table("rpc", "/s", "ours", (row, row))
        new = Recorded([again], [Goal("rpc / echo", 0.7, 0.6, at_least=True)], [])
        made = merged(Report("2026-01-01", "a machine", old), Report("2026-01-02", "the same", new))
        assert made.date == "2026-01-02"
        assert made.recorded.tables == [old.tables[0], again]
        assert [goal.value for goal in made.recorded.goals] == [4.0, 0.7]
        assert made.recorded.left_out == ["bwrap: not installed"]


class TestPage:
    def test_a_bar_in_a_name_begins_no_column(self) -> None:
        row = Row("cat file | cat", 1.0, 1.0, 1.0, 1.0, 1)
        recorded = Recorded([Table("output", "ms", row.name, (row,))], [Goal("out / cat | cat", 1.0, 2)])
        lines = markdown(Report("2026-01-01", "a machine", recorded)).splitlines()
        assert r"| cat file \| cat | 1.00 | 1.00 | 1.00 | 1.00 |" in lines
        assert r"| out / cat \| cat | 1.00 | ≤ 2 | reached |" in lines
