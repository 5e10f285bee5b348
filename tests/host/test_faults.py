"""System calls fail, in the daemon and in worker-init: nothing is lost, nothing is half
made, nobody waits for ever. `make faults` has each of them fail."""

from __future__ import annotations

import platform

import pytest

from tests.host import faults

pytestmark = pytest.mark.skipif(
    platform.machine() not in ("x86_64", "aarch64"), reason="calls are passed on as these machines do"
)


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("phase", "stride"), [("start", 13), ("stop", 11), ("recovery", 67), ("init", 13)])
def test_a_failed_call_loses_nothing_and_leaves_nothing(phase: str, stride: int) -> None:
    result = faults.Faults(stride=stride, first=1 + stride // 2).run([phase])
    assert not result.wrong, result.text()
    assert result.cases >= 4, result.text()


def test_what_cannot_be_removed_at_the_start_of_workerd_is_removed_later() -> None:
    result = faults.Faults(only="rmdir").run(["recovery"])
    assert not result.wrong, result.text()
    assert result.failed["rmdir"] == result.cases >= 4, result.text()
