"""What all tests may rely on, however they were started."""

from __future__ import annotations

import signal
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).resolve().parent
LANES = {"system": "machine"}
"""by directory; all else is one lane, `here`"""

# In the background of a shell Ctrl-C is ignored, and what is ignored stays so for the
# programs that the tests start and interrupt (execve(2)).
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGQUIT, signal.SIG_DFL)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """`make test` runs two lanes side by side (pytest-xdist): the virtual machine, in which a
    test mostly waits for one processor, and all others, which share this machine and keep
    their order."""
    for item in items:
        directory = item.path.relative_to(HERE).parts[0]
        item.add_marker(pytest.mark.xdist_group(LANES.get(directory, "here")))


@pytest.hookimpl(wrapper=True)
def pytest_report_to_serializable() -> Generator[None, Any, Any]:
    """What a test said, on its way between the lanes, as UTF-8: some say what is none."""
    return _encodable((yield))


def _encodable(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode(errors="backslashreplace").decode()
    if isinstance(value, dict):
        return {_encodable(key): _encodable(item) for key, item in value.items()}
    return type(value)(map(_encodable, value)) if isinstance(value, (list, tuple)) else value
