"""The limits that `run` takes, from words to the numbers of workerd.job.Limits."""

from __future__ import annotations

from workerctl.options import UsageError

TYPE_CHECKING = False  # as typing has it, without its 9 ms
if TYPE_CHECKING:
    from typing import Any

    from workerctl.options import Args

IO_OPTIONS = ("io-read-bps", "io-write-bps", "io-read-iops", "io-write-iops")
MAX_CPUS = 100_000
MAX_WEIGHT = 10_000
MAX_PIDS = 4_194_303
"""the kernel's PID_MAX_LIMIT, less one for the job's PID 1"""
MAX_INT = 2**63 - 1
MAX_GRACE = 86_400_000_000


def limits(args: Args) -> dict[str, Any]:
    """Only what was asked for. Raises UsageError, which names the option."""
    found: dict[str, Any] = {}
    if (memory := args.text("mem")) is not None:
        found["memory"] = size_of(memory, "--mem")
    if (swap := args.text("swap")) is not None:
        found["swap"] = size_of(swap, "--swap", minimum=0)
    if (cpus := args.text("cpus")) is not None:
        found["cpus"] = _cpus(cpus)
    if (cpuset := args.text("cpuset")) is not None:
        found["cpuset"] = _cpuset(cpuset)
    for option, field, maximum in (
        ("cpu-weight", "cpu_weight", MAX_WEIGHT),
        ("io-weight", "io_weight", MAX_WEIGHT),
        ("pids", "pids", MAX_PIDS),
    ):
        if (text := args.text(option)) is not None:
            found[field] = count_of(text, f"--{option}", maximum)
    if io := _io(args):
        found["io"] = io
    return found


def size_of(text: str, option: str, *, minimum: int = 1) -> int:
    """Bytes."""
    from workerd.units import SIZE_FORMS, parse_size

    try:
        return parse_size(text, minimum=minimum)
    except ValueError as error:
        if text.strip("0.") == "" and text:
            raise UsageError(f"{option} {text}: nothing at all cannot work; for no limit, leave it out") from None
        if text.startswith("-"):
            raise UsageError(f"{option} {text}: a size is not negative; accepted are {SIZE_FORMS}") from None
        raise UsageError(f"{option}: {error}") from None


def duration_of(text: str, option: str) -> int:
    """Microseconds."""
    from workerd.units import parse_duration

    try:
        return parse_duration(text)
    except ValueError as error:
        raise UsageError(f"{option}: {error}") from None


def grace_of(text: str, option: str) -> int:
    """Microseconds, a day at most."""
    grace = duration_of(text, option)
    if grace > MAX_GRACE:
        raise UsageError(f"{option} {text}: a day (24h) is the most")
    return grace


def count_of(text: str, option: str, maximum: int) -> int:
    """A whole number from 1 on."""
    if not (text.isascii() and text.isdecimal() and len(text) < 20 and 1 <= int(text) <= maximum):
        raise UsageError(f"{option} {text}: write a whole number from 1 to {maximum}; for no limit, leave it out")
    return int(text)


def _cpus(text: str) -> float:
    try:
        cpus = float(text) if text.isascii() and text.replace(".", "", 1).isdigit() else 0.0
    except ValueError:
        cpus = 0.0
    if not 0 < cpus <= MAX_CPUS:
        raise UsageError(
            f"--cpus {text}: write how many CPUs' worth of time, as 0.5 or 2; for no limit, leave --cpus out"
        )
    return cpus


def _cpuset(text: str) -> str:
    for part in text.split(","):
        first, dash, last = part.partition("-")
        if not (text.isascii() and first.isdigit() and (not dash or last.isdigit())):
            raise UsageError(f"--cpuset {text}: write a list of CPUs, as 0-3,6")
        if dash and int(first) > int(last):
            raise UsageError(f"--cpuset {text}: {part} runs backwards")
    return text


def _io(args: Args) -> list[dict[str, Any]]:
    """One entry for each device named; without one, for every disk."""
    devices: dict[str | None, dict[str, Any]] = {}
    for option, value in args.order:
        if option not in IO_OPTIONS:
            continue
        device, rate = _device(value, f"--{option}")
        entry = devices.setdefault(device, {} if device is None else {"device": device})
        entry[option.removeprefix("io-").replace("-", "_")] = (
            size_of(rate.removesuffix("/s"), f"--{option}")
            if option.endswith("bps")
            else count_of(rate, f"--{option}", MAX_INT)
        )
    return list(devices.values())


def _device(value: str, option: str) -> tuple[str | None, str]:
    """RATE, PATH:RATE or MAJ:MIN:RATE."""
    device, colon, rate = value.rpartition(":")
    if not colon:
        return None, rate
    if not device or not rate:
        raise UsageError(f"{option} {value}: write RATE for every disk, PATH:RATE or MAJ:MIN:RATE")
    major, middle, minor = device.partition(":")
    if middle and major.isdigit() and minor.isdigit():
        return device, rate
    if device.isdigit():
        raise UsageError(f"{option} {value}: a device is MAJ:MIN, as 8:0, or a path on it")
    from workerctl.spec import absolute

    return absolute(device, option), rate
