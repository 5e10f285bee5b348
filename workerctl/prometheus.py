"""Prometheus' text exposition format, version 0.0.4, from the daemon's facts and its live jobs.

What must hold: a metric's samples stand together under its HELP and TYPE; names and
units follow Prometheus' rules (base units, _total for counters); what is not known is
left out, never 0.
"""

from __future__ import annotations

from workerctl.accounts import user_name

TYPE_CHECKING = False  # as typing has it, without its 9 ms
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    Samples = list[tuple[dict[str, str], float | None]]

BYTES, SECONDS = 1, 1_000_000
USAGE = (
    ("memory_bytes", "gauge", "memory_current", BYTES, "Memory in use"),
    ("memory_peak_bytes", "gauge", "memory_peak", BYTES, "Most memory that was in use"),
    ("cpu_seconds_total", "counter", "cpu_usec", SECONDS, "CPU time used"),
    ("cpu_throttled_seconds_total", "counter", "throttled_usec", SECONDS, "Time held back by the CPU limit"),
    ("read_bytes_total", "counter", "io_read_bytes", BYTES, "Bytes read from disks"),
    ("written_bytes_total", "counter", "io_write_bytes", BYTES, "Bytes written to disks"),
    ("processes", "gauge", "pids_current", 1, "Processes and threads"),
    ("memory_limit_hits_total", "counter", "memory_max_hits", 1, "Times that the memory limit was reached"),
    ("oom_kills_total", "counter", "oom_kills", 1, "Processes killed for lack of memory"),
)
STALLS = (("cpu", "cpu_pressure_usec"), ("memory", "memory_pressure_usec"), ("io", "io_pressure_usec"))
STATES = ("queued", "starting", "running", "paused", "stopping")


def exposition(info: dict[str, Any] | None, jobs: Sequence[dict[str, Any]]) -> str:
    """`info` is daemon.info's, None where workerd does not answer; `jobs` are the live ones."""
    text = _family("worker_up", "gauge", "Whether workerd answers", [({}, float(info is not None))])
    if info is None:
        return text
    text += _family("worker_info", "gauge", "The daemon's version", [({"version": info["version"]}, 1)])
    text += _family("worker_start_time_seconds", "gauge", "When workerd started", [({}, info["started"] / SECONDS)])
    counts: Samples = [({"state": state}, sum(job["state"] == state for job in jobs)) for state in STATES]
    text += _family("worker_jobs", "gauge", "Jobs that wait or live, by state", counts)
    kept: Samples = [({}, info["jobs_finished"])]
    text += _family("worker_jobs_finished", "gauge", "Finished jobs that are remembered", kept)
    return text + _of_jobs([job for job in jobs if job["state"] != "queued"])


def _of_jobs(jobs: Sequence[dict[str, Any]]) -> str:
    labels = [_labels(job) for job in jobs]
    text = ""
    for name, kind, field, unit, meaning in USAGE:
        values = [(job.get("usage") or {}).get(field) for job in jobs]
        samples: Samples = [
            (own, None if value is None else value / unit) for own, value in zip(labels, values, strict=True)
        ]
        text += _family(f"worker_job_{name}", kind, meaning, samples)
    limits: Samples = [(own, (job.get("effective") or {}).get("memory")) for own, job in zip(labels, jobs, strict=True)]
    text += _family("worker_job_memory_limit_bytes", "gauge", "The memory limit", limits)
    stalls: Samples = []
    for own, job in zip(labels, jobs, strict=True):
        for resource, field in STALLS:
            value = (job.get("usage") or {}).get(field)
            stalls.append(({**own, "resource": resource}, None if value is None else value / SECONDS))
    text += _family("worker_job_stalled_seconds_total", "counter", "Time in which something had to wait", stalls)
    tries: Samples = [(own, job.get("restarts", 0)) for own, job in zip(labels, jobs, strict=True)]
    return text + _family("worker_job_restarts_total", "counter", "Times that it was tried again", tries)


def _labels(job: dict[str, Any]) -> dict[str, str]:
    return {"id": job["id"], "name": job["spec"].get("name") or "", "user": user_name(job["uid"])}


def _family(name: str, kind: str, meaning: str, samples: Samples) -> str:
    known = [(labels, value) for labels, value in samples if value is not None]
    if not known:
        return ""
    lines = [f"# HELP {name} {meaning}.", f"# TYPE {name} {kind}"]
    return "\n".join([*lines, *(f"{name}{_braced(labels)} {_number(value)}" for labels, value in known)]) + "\n"


def _braced(labels: dict[str, str]) -> str:
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items()) + "}" if labels else ""


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(value)
