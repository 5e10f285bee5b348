"""The machine's own figures for `top`: load, memory, pressure (Documentation/accounting/psi.rst).

None where the kernel does not tell, or where workerd is on another machine.
"""

from __future__ import annotations

import os


def load() -> str | None:
    try:
        return " ".join(f"{figure:.2f}" for figure in os.getloadavg())
    except OSError:
        return None


def memory() -> tuple[int, int] | None:
    """(used, all) in bytes; what the kernel can take back at once is not used."""
    found = {}
    try:
        with open("/proc/meminfo") as lines:
            for line in lines:
                name, _, value = line.partition(":")
                if name in ("MemTotal", "MemAvailable"):
                    found[name] = int(value.split()[0]) * 1024
        return found["MemTotal"] - found["MemAvailable"], found["MemTotal"]
    except (OSError, KeyError, ValueError):
        return None


def pressure() -> dict[str, float]:
    """The share of the last 10 seconds in which something waited, in per cent."""
    found = {}
    for resource in ("cpu", "memory", "io"):
        try:
            with open(f"/proc/pressure/{resource}") as lines:
                first = lines.readline()
        except OSError:
            continue
        for word in first.split():
            if word.startswith("avg10="):
                found[resource] = float(word.removeprefix("avg10="))
    return found


def cpus() -> int:
    return os.cpu_count() or 1
