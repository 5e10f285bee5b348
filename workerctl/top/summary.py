"""The lines above the jobs in `top`: the longest way to say each that the terminal has room for. Pure."""

from __future__ import annotations

from workerctl.bars import bar
from workerctl.cells import columns
from workerctl.statstable import percent
from workerd.units import format_size

TYPE_CHECKING = False  # as typing has it, without its 9 ms
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from workerctl.top.view import View


def head(view: View, machine: dict[str, Any], width: int) -> str:
    """The time, how many jobs there are, and the machine's load."""
    counts: dict[str, int] = {}
    for row in view.rows:
        counts[row["state"]] = counts.get(row["state"], 0) + 1
    clock, jobs = machine["clock"], f"{len(view.rows)} jobs"
    states = ", ".join(f"{count} {state}" for state, count in sorted(counts.items())) or "no jobs"
    load = machine.get("load")
    loads = [f"{clock}   {states}   load {text}" for text in (load, load.split()[0])] if load else []
    return _first_that_fits([*loads, f"{clock}   {states}", states, f"{clock}   {jobs}", jobs], width)


def figures(view: View, machine: dict[str, Any], width: int) -> str:
    """What the jobs take together, and of what."""
    cpu = percent(sum(row["cpu_percent"] or 0 for row in view.rows))
    held = format_size(sum(row["memory"] or 0 for row in view.rows))
    of = f" of {machine['cpus']} CPUs" if machine.get("cpus") else ""
    jobs, brief = f"jobs: CPU {cpu}%{of}, memory {held}", f"jobs: CPU {cpu}%, memory {held}"
    if not machine.get("memory"):
        return _first_that_fits([jobs, brief], width)
    taken, whole = machine["memory"]
    memory = f"{format_size(taken)} of {format_size(whole)}"
    ways = [f"{jobs}   machine: {bar(taken / whole, 10)} {memory}", f"{jobs}   machine: {memory}"]
    least = f"jobs: {cpu}%, {held}   machine: {format_size(taken)}/{format_size(whole)}"
    return _first_that_fits([*ways, f"{brief}   machine: {memory}", least, brief], width)


def waiting(machine: dict[str, Any], width: int) -> str:
    """For what the machine has had to wait; nothing where the kernel does not say."""
    names = {"cpu": "CPU", "memory": "memory", "io": "disks"}
    pressure = (machine.get("pressure") or {}).items()
    if not pressure:
        return ""
    exact = ", ".join(f"{names[name]} {share:.1f}%" for name, share in pressure)
    whole = ", ".join(f"{names[name]} {share:.0f}%" for name, share in pressure)
    return _first_that_fits([f"machine waits (10 s) for: {exact}", f"waits (10 s): {exact}", f"waits: {whole}"], width)


def keys(width: int) -> str:
    """The keys, the most important first; none is cut in the middle."""
    named = ("h help", "q quit", "/ filter", "o output", "s stop", "p pause", "c m d w a n sort")
    ways = ["   ".join(named[:count]) for count in range(len(named), 0, -1)]
    return _first_that_fits(ways, width)


def typed(text: str, width: int) -> str:
    """What is being typed, of which the end is what matters."""
    while columns(f"filter: {text}_") > width and text:
        text = text[1:]
    return f"filter: {text}_"


def _first_that_fits(ways: Sequence[str], width: int) -> str:
    return next((text for text in ways if columns(text) <= width), ways[-1])
