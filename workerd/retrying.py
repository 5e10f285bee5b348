"""Trying again what fails because the machine has run out of something for a while.

For the few places where giving up would lose what nobody else knows: a job that was just
started, or how one ended.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

log = logging.getLogger("workerd")

FIRST_PAUSE, LONGEST_PAUSE = 0.05, 10.0
"""seconds"""


async def until_possible(action: Callable[[], T], what: str, tries: int | None = None) -> T:
    """What `action` gives, tried again after growing pauses where it raises OSError, and
    `what` is said in the log. Raises the OSError of the last of so many tries."""
    pause, tried = FIRST_PAUSE, 0
    while True:
        try:
            return action()
        except OSError as error:
            tried += 1
            if tried == tries:
                raise
            if pause < LONGEST_PAUSE:  # it has been said often enough by then
                log.warning("%s, and is tried again: %s", what, error)
        await asyncio.sleep(pause)
        pause = min(pause * 2, LONGEST_PAUSE)
