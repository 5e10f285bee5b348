"""The version that pages speak of, and its date: that of CHANGELOG.md, once there is one."""

from __future__ import annotations

import re
from pathlib import Path

from workerd import __version__ as VERSION

CHANGELOG = Path(__file__).resolve().parents[2] / "CHANGELOG.md"


def _date() -> str:
    """YYYY-MM-DD of the newest version that has one; of the project's beginning else."""
    found = re.search(r"^## \[[0-9.]+\] - ([0-9-]+)$", CHANGELOG.read_text(), re.MULTILINE)
    return found[1] if found else "2026-11-25"


DATE = _date()

__all__ = ["DATE", "VERSION"]
