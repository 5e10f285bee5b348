"""All jobs, however many answers they take."""

from __future__ import annotations

TYPE_CHECKING = False  # as typing has it, without its 9 ms
if TYPE_CHECKING:
    from typing import Any

    from workerctl.wire import Connection

PAGE = 1000
"""jobs that one answer of job.list has at most"""


def list_jobs(connection: Connection, most: int | None = None, **params: object) -> list[dict[str, Any]]:
    """The jobs that job.list gives for these parameters, newest first; `most` of them."""
    jobs: list[dict[str, Any]] = []
    more: dict[str, object] = {}
    while True:
        if most is not None:
            more["limit"] = min(PAGE, most - len(jobs))
        answer = connection.call("job.list", {**params, **more})
        jobs += answer["jobs"]
        if not answer.get("next") or (most is not None and len(jobs) >= most):
            return jobs
        more["before"] = answer["next"]


def ask_jobs(connection: Connection, **params: object) -> int:
    """Asks for the same and does not wait; `take_jobs` does, with the number that this gives."""
    return connection.ask("job.list", params)


def take_jobs(connection: Connection, number: int, **params: object) -> list[dict[str, Any]]:
    answer = connection.take(number)
    jobs: list[dict[str, Any]] = answer["jobs"]
    while answer.get("next"):
        answer = connection.call("job.list", {**params, "before": answer["next"]})
        jobs += answer["jobs"]
    return jobs
