"""What many machines answer, as the answer of one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from workerctl.dask import ids, resources
from workerctl.dask.command import lost_job
from workerctl.dask.daemon import Plain

if TYPE_CHECKING:
    from workerctl.dask.routes import Routes

PAGE = 1000


def waiting_job(view: Plain) -> Plain:
    """A command that no machine has begun, as a job."""
    asked = view["asked"]
    need = resources.in_words(asked["resources"])
    return {
        "id": ids.queue_id(view["key"]),
        "uid": asked["uid"],
        "gid": 0,
        "groups": [],
        "spec": asked["spec"],
        "state": "queued",
        "created": asked["created"],
        "waits_for": f"no machine has {need} free now",
    }


async def listed(routes: Routes, params: Plain) -> Plain:
    """job.list: every machine's jobs, those that wait for one, and, among all, those that
    were lost with one. Newest first, in one answer."""
    jobs = []
    answers = await routes.everywhere("job.list", params)
    for machine, answer in answers.items():
        while answer is not None:
            jobs += [ids.outward(job, machine) for job in answer["jobs"]]
            if not answer.get("next") or len(answer["jobs"]) >= params.get("limit", PAGE + 1):
                break
            answer = await routes.ask(machine, "job.list", {**params, "before": answer["next"]})
    states = set(params.get("states") or ())
    if not states or "queued" in states:
        jobs += [job for job in map(waiting_job, await routes.scheduler("waiting")) if _has(job, params)]
    if "finished" in states or (params.get("all") and not states):
        known = {job["id"] for job in jobs}
        lost = [job for job in map(lost_job, await routes.scheduler("lost")) if _has(job, params)]
        jobs += [job for job in lost if job["id"] not in known]
    jobs.sort(key=lambda job: -job["created"])
    return {"jobs": jobs[: params.get("limit")]}


def offers(machines: dict[str, Plain]) -> str:
    """What each has in all."""
    return "; ".join(f"{name} has {resources.in_words(machine['total'])}" for name, machine in sorted(machines.items()))


def _has(job: Plain, params: Plain) -> bool:
    """Whether it has the labels that are asked for."""
    labels = job["spec"].get("labels") or {}
    return all(key in labels and value in (None, labels[key]) for key, value in (params.get("labels") or {}).items())
