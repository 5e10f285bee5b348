"""The options of `run` that have a job wait: for other jobs, for a time, for its turn."""

from __future__ import annotations

from workerctl.options import UsageError

TYPE_CHECKING = False  # as typing has it, without its 9 ms
if TYPE_CHECKING:
    from typing import Any

    from workerctl.options import Args

OUTCOMES = ("ok", "failed", "any")
AT_FORMS = "14:30, 2030-01-31 14:30:00, 2030-01-31T14:30Z or @SECONDS since the epoch"


def waiting_params(args: Args) -> dict[str, Any]:
    """The fields of job.run's parameters beside spec and env. Raises UsageError."""
    params: dict[str, Any] = {}
    if after := args.texts("after"):
        params["after"] = [_after(text) for text in after]
    at, delay = args.text("at"), args.text("delay")
    if at is not None and delay is not None:
        raise UsageError("--at and --delay both say when; give one of them")
    if at is not None:
        params["at"] = time_of(at)
    if delay is not None:
        from workerctl.limits import duration_of

        params["delay"] = duration_of(delay, "--delay")
    if args.has("no-queue"):
        if params:
            raise UsageError("--no-queue refuses what --after, --at and --delay ask for: waiting")
        params["queue"] = False
    return params


def priority_of(text: str) -> int:
    digits = text[1:] if text[:1] in ("-", "+") else text
    if not (digits.isascii() and digits.isdecimal() and len(digits) <= 3 and abs(int(text)) <= 100):
        raise UsageError(f"--priority {text}: write a whole number from -100 to 100; higher ones start first")
    return int(text)


def _after(text: str) -> dict[str, str]:
    job_id, colon, outcome = text.partition(":")
    if not job_id or (colon and outcome not in OUTCOMES):
        raise UsageError(f"--after {text}: write ID, ID:ok, ID:failed or ID:any")
    return {"id": job_id, "outcome": outcome or "any"}


def time_of(text: str) -> int:
    """Microseconds since the epoch, in the future. Raises UsageError."""
    from datetime import datetime, timedelta

    now = datetime.now().astimezone()
    try:
        if text.startswith("@"):
            when = datetime.fromtimestamp(float(text[1:])).astimezone()
        elif "-" in text[1:]:
            when = datetime.fromisoformat(text)
            when = when if when.tzinfo is not None else when.astimezone()
        else:
            clock = datetime.strptime(text, "%H:%M:%S" if text.count(":") == 2 else "%H:%M")
            when = now.replace(hour=clock.hour, minute=clock.minute, second=clock.second, microsecond=0)
            if when <= now:
                when += timedelta(days=1)
    except (ValueError, OverflowError, OSError):
        raise UsageError(f"--at {text}: not a time; accepted are {AT_FORMS}") from None
    if when <= now:
        raise UsageError(f"--at {text}: that is over already")
    return int(when.timestamp() * 1_000_000)
