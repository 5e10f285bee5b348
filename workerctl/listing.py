"""All jobs, however many answers they take."""

from __future__ import annotations

TYPE_CHECKING = False  # as typing has it, without its 9 ms
if TYPE_CHECKING:
    from typing import Any

    from workerctl.wire import Connection


def list_jobs(connection: Connection, **params: object) -> list[dict[str, Any]]:
    """The jobs that job.list gives for these parameters, newest first."""
    jobs: list[dict[str, Any]] = []
    before: dict[str, object] = {}
    while True:
        answer = connection.call("job.list", {**params, **before})
        jobs += answer["jobs"]
        if not answer.get("next"):
            return jobs
        before = {"before": answer["next"]}
