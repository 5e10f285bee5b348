"""Programs that a test starts beside itself."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from typing import AnyStr


@contextlib.contextmanager
def killed_after(process: subprocess.Popen[AnyStr]) -> Iterator[subprocess.Popen[AnyStr]]:
    """Within `with`; where a test fails or takes too long, nobody waits for it for ever
    (as Popen's own `with` does)."""
    with process:
        try:
            yield process
        finally:
            process.kill()
