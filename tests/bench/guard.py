"""`make bench-check`: the ratios of a new run against the committed ones.

Ratios alone, never times: both sides of a ratio were taken by turns on one machine, so it
means the same on another. A ratio may be worse than the committed one by MARGIN.
"""

from __future__ import annotations

from tests.bench.figures import Goal, Recorded

MARGIN = 0.25


def regressions(new: Recorded, committed: Recorded) -> list[str]:
    """What has become worse by more than MARGIN, in words; what only one of them has is
    not compared."""
    before = {goal.name: goal for goal in committed.goals if goal.relative}
    found = []
    for goal in new.goals:
        old = before.get(goal.name)
        if old is not None and goal.relative and _is_worse(goal, old):
            found.append(f"{goal.name}: {goal.value:.2f}, committed {old.value:.2f}")
    return found


def compared(new: Recorded, committed: Recorded) -> int:
    names = {goal.name for goal in committed.goals if goal.relative}
    return sum(goal.relative and goal.name in names for goal in new.goals)


def _is_worse(goal: Goal, old: Goal) -> bool:
    if goal.at_least:
        return goal.value < old.value / (1 + MARGIN)
    return goal.value > old.value * (1 + MARGIN)
