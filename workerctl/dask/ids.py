"""Ids that carry the machine, `host/id`, into and out of what one machine's workerd says. Pure.

What waits for a machine has none yet: its id is `queue/…`, and stays valid afterwards.
"""

from __future__ import annotations

from typing import Any

QUEUE = "queue"
"""in the machine's place; no machine may have this name"""
KEY_PREFIX = "command-"
"""of the Dask tasks that are commands"""
LABEL = "cluster/task"
"""the label by which a job is found again: the Dask task that it belongs to"""
TRY_LABEL = "cluster/try"
MOST_NAME = 64


def split(ref: str) -> tuple[str | None, str]:
    """(machine, id); the machine is None where only an id or a name was given."""
    machine, slash, job = ref.rpartition("/")
    return (machine, job) if slash else (None, ref)


def join(machine: str, job: str) -> str:
    return f"{machine}/{job}"


def queue_id(key: str) -> str:
    """Of a task that has no machine yet."""
    return join(QUEUE, key.removeprefix(KEY_PREFIX))


def key_of(job: str) -> str:
    """The task that `queue/JOB` means."""
    return KEY_PREFIX + job


def machine_name(given: object, address: str, hostname: str) -> str:
    """What a machine is called in ids: its Dask worker's name, or else its host name. Raises
    ValueError where that cannot be in an id."""
    name = hostname if given in (None, address) else str(given)
    plain = name.replace(".", "a").replace("-", "a").replace("_", "a")
    if not (plain.isascii() and plain.isalnum() and len(name) <= MOST_NAME) or name == QUEUE:
        raise ValueError(
            f"the Dask worker is called {name!r}; to be part of job ids a name has letters, digits, dot, dash "
            f"and underscore, {MOST_NAME} at most, and is not {QUEUE!r}: say dask worker --name NAME"
        )
    return name


def user_name(uid: int) -> str:
    """As this machine knows the account; machines of a cluster have the same ones."""
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def outward(job: dict[str, Any], machine: str) -> dict[str, Any]:
    """A job, or what else has a job's id, as those outside know it."""
    shown = {**job, "id": join(machine, job["id"])}
    if job.get("after"):
        shown["after"] = [{**after, "id": join(machine, after["id"])} for after in job["after"]]
    if job.get("rerun_of"):
        shown["rerun_of"] = join(machine, job["rerun_of"])
    return shown
