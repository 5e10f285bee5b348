"""The machine where a job is to run, as its caller sees it: this one, or that behind ssh."""

from __future__ import annotations

import os

from workerctl.wire import far

TYPE_CHECKING = False  # as typing has it, without its 9 ms
if TYPE_CHECKING:
    from typing import Protocol
else:
    Protocol = object


class Machine(Protocol):
    """`remote.link.Link` is the other one."""

    def directory(self) -> str: ...
    def umask(self) -> int: ...
    def environment(self) -> dict[str, str]: ...
    def real(self, path: str) -> str: ...


class Here:
    def directory(self) -> str:
        """Where a job runs unless it is said. Raises FileNotFoundError where that is gone."""
        return os.getcwd()

    def umask(self) -> int:
        mask = os.umask(0o077)
        os.umask(mask)
        return mask & 0o777

    def environment(self) -> dict[str, str]:
        """What a job's can be made from."""
        return dict(os.environ)

    def real(self, path: str) -> str:
        """Absolute, symbolic links resolved. Raises OSError."""
        return os.path.realpath(path)


HERE = Here()


def machine() -> Machine:
    return far() or HERE
