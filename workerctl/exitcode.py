"""workerctl's own exit codes, and a job's from its plain JSON.

The second is workerd.job.shell_code for those who do not import msgspec; a test
holds the two equal over all outcomes.
"""

from __future__ import annotations

TYPE_CHECKING = False  # as typing has it, without its 9 ms
if TYPE_CHECKING:
    from typing import Any

FAILED = 125
"""whatever went wrong was workerctl's or workerd's, not the job's"""
TIMED_OUT = 124
CANNOT_EXECUTE = 126
NOT_FOUND = 127
BROKEN_PIPE = 128 + 13
INTERRUPTED = 128 + 2
ENOENT = 2


def of_job(job: dict[str, Any]) -> int:
    """The code that a shell would give for a finished job."""
    reason = job.get("reason")
    if reason == "timeout":
        return TIMED_OUT
    if reason == "start-failed":
        return _start_failed(job.get("start_error"))
    if job.get("signal") is not None:
        return 128 + int(job["signal"])
    code = job.get("exit_code")
    return FAILED if code is None else int(code)


def _start_failed(error: dict[str, Any] | None) -> int:
    if error is None or error["step"] != "exec":
        return FAILED
    return NOT_FOUND if error["errno"] == ENOENT else CANNOT_EXECUTE
