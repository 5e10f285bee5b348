"""The jobs that there are, for completion: asked quickly, or not at all."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # not signal: its enums cost 5 ms

TYPE_CHECKING = False  # as typing has it, without its 9 ms
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

PATIENCE = 0.4
"""seconds that a person may wait for the daemon at the press of a key"""
MOST = 200
"""of the newest jobs; nobody looks through more"""
LIVE = ("queued", "starting", "running", "paused", "stopping")
USEFUL: dict[str, tuple[str, ...]] = {
    "attach": ("running", "paused"),
    "exec": ("running", "paused"),
    "kill": LIVE,
    "pause": ("running",),
    "replay": ("running", "paused", "stopping", "finished"),
    "rerun": ("finished",),
    "resume": ("paused",),
    "signal": LIVE,
    "stats": LIVE,
    "stop": LIVE,
    "update": LIVE,
    "wait": LIVE,
}
"""the states in which a verb has something to do; all, where it is not named"""


def names(verb: str, word: str) -> list[tuple[str, str]]:
    """The jobs' names, or ids where they have none, the newest first. Who began to type
    means an id perhaps, though the job has a name."""
    from workerctl import words
    from workerctl.escape import quoted

    jobs = _asked(USEFUL.get(verb, ()))
    seen: dict[str, str] = {}
    for job in jobs:
        seen.setdefault(_handle(job), f"{words.short_state(job)}: {quoted(job['spec']['argv'])[:60]}")
    for job in jobs if word else ():
        seen.setdefault(job["id"], words.short_state(job))
    return list(seen.items())


def given_names() -> list[tuple[str, str]]:
    return [(name, "") for name in dict.fromkeys(job["spec"].get("name") or "" for job in _asked(())) if name]


def labels() -> list[tuple[str, str]]:
    """KEY=VALUE as jobs have them; KEY alone where the value is no plain word."""
    found: dict[str, str] = {}
    for job in _asked(()):
        for key, value in (job["spec"].get("labels") or {}).items():
            found[f"{key}={value}" if value and value.isprintable() and " " not in value else key] = ""
    return list(found.items())


def _handle(job: dict[str, Any]) -> str:
    return str(job["spec"].get("name") or job["id"])


def _asked(states: Sequence[str]) -> list[dict[str, Any]]:
    """Nothing where the daemon cannot be reached, or not in time; nor over ssh, which may
    take longer, and ask for a password."""
    import os

    from workerctl.wire import Connection

    if os.environ.get("WORKER_HOST") or os.environ.get("WORKER_CLUSTER"):
        return []

    def late(*_: object) -> None:
        raise TimeoutError

    _signal.signal(_signal.SIGALRM, late)
    try:
        _signal.setitimer(_signal.ITIMER_REAL, PATIENCE)
        with Connection() as connection:
            which = {"states": states} if states else {"all": True}
            jobs: list[dict[str, Any]] = connection.call("job.list", {**which, "limit": MOST})["jobs"]
            return jobs
    except Exception:
        return []  # whatever it is, a person who presses Tab is not to be told of it
    finally:
        _signal.setitimer(_signal.ITIMER_REAL, 0)
