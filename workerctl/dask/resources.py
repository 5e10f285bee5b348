"""What a job takes of a machine and what a machine has, as Dask resources. Pure.

MEMORY is in bytes, CPUS in CPUs, and each job takes one of JOBS: only machines that have a
workerd announce that, so a command goes nowhere else.
"""

from __future__ import annotations

from typing import Any

MEMORY, CPUS, JOBS = "MEMORY", "CPUS", "JOBS"
NAMES = {MEMORY: "memory", CPUS: "cpus", JOBS: "jobs"}
"""the fields of daemon.info's rooms"""
UNBOUNDED = float(1 << 50)
"""what is announced where workerd sets no bound: more than any job asks for"""

Amounts = dict[str, float]


def wanted(spec: dict[str, Any]) -> Amounts:
    """Of a job's spec."""
    limits = spec.get("limits") or {}
    found = {MEMORY: limits.get("memory"), CPUS: limits.get("cpus")}
    return {JOBS: 1.0, **{name: float(amount) for name, amount in found.items() if amount}}


def offered(room: dict[str, Any]) -> Amounts:
    """Of a room, as daemon.info has it."""
    found = {name: room.get(field) for name, field in NAMES.items()}
    return {name: UNBOUNDED if amount is None else float(amount) for name, amount in found.items()}


def nothing() -> Amounts:
    return dict.fromkeys(NAMES, 0.0)


def plus(one: Amounts, other: Amounts) -> Amounts:
    """An unbounded amount stays so."""
    return {name: min(UNBOUNDED, amount + other.get(name, 0.0)) for name, amount in one.items()}


def minus(one: Amounts, other: Amounts) -> Amounts:
    return {name: amount if amount >= UNBOUNDED else amount - other.get(name, 0.0) for name, amount in one.items()}


def fits(need: Amounts, room: Amounts) -> bool:
    return all(room.get(name, 0.0) >= amount for name, amount in need.items())


def in_words(need: Amounts) -> str:
    from workerd.units import format_size

    parts = [f"{format_size(int(need[MEMORY]))} of memory"] if need.get(MEMORY) else []
    parts += [f"{need[CPUS]:g} CPUs"] if need.get(CPUS) else []
    return " and ".join(parts) or "room for one more job"
