"""A job's state, end and figures in words. Pure, over a job's plain JSON.

Everything returned is for one line; text that users chose is still to be escaped
by whoever shows it.
"""

from __future__ import annotations

from workerd.units import format_duration, format_size

TYPE_CHECKING = False  # as typing has it, without its 9 ms
if TYPE_CHECKING:
    from typing import Any


IO_OF = "IO of "
BRIEFEST = 1_000
"""microseconds: less than that is 0s in `brief`"""


def size(count: int) -> str:
    """1536 → 1.5 KiB."""
    text = format_size(count)
    return f"{text[:-1]} {text[-1]}iB" if text[-1].isalpha() else f"{text} B"


def state(job: dict[str, Any]) -> str:
    """The state, and why: `running`, `finished: exited with 3`."""
    if job["state"] == "finished":
        return f"finished: {ending(job)}"
    if job["state"] == "queued" and job.get("waits_for"):
        return f"queued, waits: {job['waits_for']}"
    if job["state"] == "stopping":
        over = job.get("timed_out") and not job.get("stop_requested")
        return f"stopping: {'its time is over' if over else 'asked to'}, not gone yet"
    if job["state"] == "paused" and job.get("timed_out"):
        return "paused: its time was over; resume lets it run on without that limit"
    return str(job["state"])


def short_state(job: dict[str, Any]) -> str:
    """A word or two for a table."""
    if job["state"] == "queued" and (job.get("restarts") or job.get("start_attempts")):
        return "retrying"
    if job["state"] != "finished":
        return str(job["state"])
    reason = job.get("reason")
    if reason == "exited":
        return "done" if job.get("exit_code") == 0 else f"exit {job.get('exit_code')}"
    if reason == "signaled":
        return _signal(job)
    if reason == "oom":
        return "out of memory"
    return {"timeout": "timed out", "start-failed": "not started"}.get(str(reason), str(reason))


def ending(job: dict[str, Any]) -> str:
    """Why a finished job is finished."""
    reason = job.get("reason")
    detail = f" ({job['detail']})" if job.get("detail") else ""
    if reason == "oom":
        return "killed by the kernel, out of memory" + _memory(job)
    if reason == "timeout":
        return f"its time was over{detail}"
    if reason == "start-failed":
        error = job.get("start_error")
        return f"could not start: {error['message']}" if error else f"could not start{detail}"
    if reason == "lost":
        return f"lost{detail}: how it ended is not known"
    if reason == "skipped":
        return f"never started{detail}"
    if reason == "stopped" and job.get("signal") is None and job.get("exit_code") is None:
        return f"stopped on request{detail}"
    if reason == "stopped":
        return f"stopped on request, {_exit(job)}{detail}"
    return _exit(job) + detail


def _exit(job: dict[str, Any]) -> str:
    if job.get("signal") is not None:
        return f"killed by {_signal(job)}"
    return f"exited with {job.get('exit_code')}"


def _signal(job: dict[str, Any]) -> str:
    from workerctl.signals import name

    return name(job["signal"])


def _memory(job: dict[str, Any]) -> str:
    limit = (job.get("spec", {}).get("limits") or {}).get("memory")
    peak = (job.get("usage") or {}).get("memory_peak")
    parts = [f"limit {size(limit)}"] if limit else []
    parts += [f"peak {size(peak)}"] if peak else []
    return f" ({', '.join(parts)})" if parts else ""


def limits(found: dict[str, Any]) -> list[tuple[str, str]]:
    """Each limit's name and figure, in the order that `run` lists them."""
    shown = []
    for field, name, figure in (
        ("memory", "memory", size),
        ("swap", "swap", size),
        ("cpus", "CPUs", lambda cpus: f"{cpus:g}"),
        ("cpu_weight", "CPU weight", str),
        ("cpuset", "on CPUs", str),
        ("pids", "processes", str),
        ("io_weight", "IO weight", str),
    ):
        if found.get(field) is not None:
            shown.append((name, figure(found[field])))
    for device in found.get("io") or []:
        shown.append((f"{IO_OF}{device.get('device') or 'every disk'}", _io(device)))
    return shown


def room(free: dict[str, Any], total: dict[str, Any]) -> str:
    """What is free of a total: `6 GiB of 8 GiB memory, 1.5 of 2 CPUs`."""
    parts = []
    for field, name, figure in (("memory", "memory", size), ("cpus", "CPUs", "{:g}".format), ("jobs", "jobs", str)):
        if free.get(field) is not None:
            parts.append(f"{figure(free[field])} of {figure(total.get(field, free[field]))} {name}")
    return ", ".join(parts) or "all there is"


def _io(device: dict[str, Any]) -> str:
    parts = []
    for field, text in (("read_bps", "read {}/s"), ("write_bps", "write {}/s")):
        if device.get(field):
            parts.append(text.format(size(device[field])))
    for field, text in (("read_iops", "{} reads/s"), ("write_iops", "{} writes/s")):
        if device.get(field):
            parts.append(text.format(device[field]))
    return ", ".join(parts)


def output(job: dict[str, Any]) -> str:
    """How much it wrote, and what of that is not there; empty where that is not known."""
    end, start, lost = job.get("output_end"), job.get("output_start") or 0, job.get("output_lost") or 0
    if end is None:
        return ""
    parts = [size(end + lost)]
    if start:
        parts.append(f"the last {size(end - start)} kept")
    if lost:
        parts.append(f"{size(lost)} could not be stored")
    return ", ".join(parts)


def usage(job: dict[str, Any]) -> list[tuple[str, str]]:
    """What the job has used, as far as the host counts it."""
    used = job.get("usage") or {}
    if job["state"] == "finished":  # what there was of it at the end means nothing any more
        used = {name: figure for name, figure in used.items() if name not in ("memory_current", "pids_current")}
    rows = [("memory", _of_memory(used)), ("CPU", _of_cpu(used)), ("disk", _of_io(used)), ("processes", _of_pids(used))]
    rows.append(("stalled", _stalls(used)))
    return [(name, text) for name, text in rows if text]


def _of_memory(used: dict[str, Any]) -> str:
    parts = _figures(
        used, (("memory_current", "{} now"), ("memory_peak", "{} peak"), ("swap_peak", "{} swap peak")), size
    )
    return ", ".join(parts + _counts(used, (("memory_max_hits", "limit reached {} times"), ("oom_kills", "{} killed"))))


def _of_cpu(used: dict[str, Any]) -> str:
    fields = (
        ("cpu_usec", "{}"),
        ("cpu_user_usec", "{} user"),
        ("cpu_system_usec", "{} system"),
        ("throttled_usec", "held back for {}"),
    )
    return ", ".join(_times(used, fields))


def _of_io(used: dict[str, Any]) -> str:
    return ", ".join(_figures(used, (("io_read_bytes", "{} read"), ("io_write_bytes", "{} written")), size))


def _of_pids(used: dict[str, Any]) -> str:
    fields = (("pids_current", "{} now"), ("pids_peak", "{} at most"), ("pids_max_hits", "limit reached {} times"))
    return ", ".join(_counts(used, fields))


def _stalls(used: dict[str, Any]) -> str:
    fields = (
        ("cpu_pressure_usec", "{} for CPU"),
        ("memory_pressure_usec", "{} for memory"),
        ("io_pressure_usec", "{} for disks"),
    )
    return ", ".join(_times(used, fields))


def _figures(used: dict[str, Any], fields: tuple[tuple[str, str], ...], show: Any, least: int = 1) -> list[str]:
    """Without those under `least`, which would be shown as nothing."""
    return [text.format(show(used[field])) for field, text in fields if (used.get(field) or 0) >= least]


def _times(used: dict[str, Any], fields: tuple[tuple[str, str], ...]) -> list[str]:
    return _figures(used, fields, brief, BRIEFEST)


def _counts(used: dict[str, Any], fields: tuple[tuple[str, str], ...]) -> list[str]:
    return _figures(used, fields, str)


def age(job: dict[str, Any], now: int) -> str:
    """How long ago it was created."""
    return brief(now - job["created"], least=1_000_000)


def ran_for(job: dict[str, Any], now: int) -> str:
    """How long the command runs, or ran."""
    return brief((job.get("finished") or now) - job["started"])


def brief(usec: int, *, least: int = BRIEFEST) -> str:
    """A duration without digits that nobody reads: 340ms, 1.2s, 12s, 5m10s, 12d."""
    steps = ((864_000_000_000, 86_400_000_000), (10_000_000, 1_000_000), (1_000_000, 100_000))
    step = max(least, next((step for above, step in steps if usec >= above), BRIEFEST))
    return format_duration(max(0, usec) // step * step)


def limits_in_force(job: dict[str, Any]) -> list[str]:
    """A line for each limit: the figure in force, and the one asked for where it is another."""
    wanted = dict(limits(job["spec"].get("limits") or {}))
    if job.get("effective") is None:
        return [f"{name} {figure}" for name, figure in wanted.items()]
    real = dict(limits(job["effective"]))
    lines = []
    # A device is asked for by a path on it and in force by its number, so these do not compare.
    for name in [name for name in {**wanted, **real} if not name.startswith(IO_OF)]:
        figure, asked = real.get(name), wanted.get(name)
        if figure == asked:
            lines.append(f"{name} {figure}")
        elif asked is None:
            lines.append(f"{name} {figure} (by default)")
        else:
            lines.append(f"{name} {figure or 'without limit'} (asked for: {asked})")
    lines += [f"{name}: {figure} (asked for)" for name, figure in wanted.items() if name.startswith(IO_OF)]
    return lines + [f"{name}: {figure}" for name, figure in real.items() if name.startswith(IO_OF)]


def time_limits(job: dict[str, Any]) -> list[str]:
    """A line for each limit in time."""
    spec = job["spec"]
    then = f", then {spec['on_timeout']}" if spec.get("on_timeout") else ""
    lines = [f"time {format_duration(spec['timeout'])}{then}"] if spec.get("timeout") else []
    return lines + ([f"CPU time {format_duration(spec['cpu_time'])}{then}"] if spec.get("cpu_time") else [])


def network(job: dict[str, Any]) -> list[str]:
    """What it has of one, a line each; nothing for a job without."""
    spec = job["spec"]
    if spec.get("net", "none") == "none":
        return []
    lines = [spec["net"] + (f", {job['address']}" if job.get("address") else "")]
    for port in spec.get("publish") or []:
        protocol = port.get("protocol", "tcp")
        lines.append(f"port {port['host']}/{protocol} leads to {port['job']}/{protocol}")
    return lines


def tries(job: dict[str, Any]) -> list[str]:
    """A line for each try before this one, the oldest first."""
    kept = job.get("tries") or []
    first = (job.get("restarts") or 0) - len(kept) + 1
    return [f"{number}: {_try(tried)}" for number, tried in enumerate(kept, first)]


def _try(tried: dict[str, Any]) -> str:
    after = f" after {brief(tried['finished'] - tried['started'])}" if tried.get("started") else ""
    written = tried.get("output_end", 0) - tried.get("output_start", 0)
    return f"{ending(tried)}{after}, {size(written)} of output"
