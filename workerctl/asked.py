"""A job's spec as it was asked for: without what the daemon put in for what was left out."""

from __future__ import annotations

TYPE_CHECKING = False  # as typing has it, without its 9 ms
if TYPE_CHECKING:
    from typing import Any

    from workerctl.wire import Connection

DEFAULT_OUTPUT = 64 << 20
"""bytes of output kept, where neither the job nor the policy says"""


def asked(spec: dict[str, Any], default_output: int = DEFAULT_OUTPUT) -> dict[str, Any]:
    """Whoever asked for just the default has it without asking, too."""
    return {**spec, "max_output": None} if spec.get("max_output") == default_output else spec


def default_output(connection: Connection) -> int:
    """What this daemon keeps of a job of ours that does not say."""
    from workerd.errors import ConnectionFailed, WorkerError

    try:
        return int(connection.call("daemon.info", {}).get("default_output", DEFAULT_OUTPUT))
    except ConnectionFailed:
        raise
    except WorkerError:
        return DEFAULT_OUTPUT  # of a cluster, where that is each daemon's own
