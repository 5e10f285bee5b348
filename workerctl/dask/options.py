"""The options of `run` that only a cluster knows."""

from __future__ import annotations

import os

from workerctl.options import UsageError

TYPE_CHECKING = False  # as typing has it, without its 9 ms
if TYPE_CHECKING:
    from typing import Any

    from workerctl.options import Args

MOST_RETRIES = 100


def cluster_params(args: Args) -> dict[str, Any]:
    """`need` and `retries` beside job.run's parameters. Raises UsageError."""
    if not os.environ.get("WORKER_CLUSTER"):
        raise UsageError("--need and --retries are for a cluster: say which, with --cluster tls://HOST:PORT")
    params: dict[str, Any] = {}
    if needs := args.texts("need"):
        params["need"] = dict(map(_need, needs))
    if (retries := args.text("retries")) is not None:
        if not (retries.isascii() and retries.isdecimal() and int(retries) <= MOST_RETRIES):
            raise UsageError(f"--retries {retries}: write a whole number from 0 to {MOST_RETRIES}")
        params["retries"] = int(retries)
    return params


def _need(text: str) -> tuple[str, float]:
    from workerctl.limits import size_of

    name, equals, amount = text.partition("=")
    if not name or not equals:
        raise UsageError(f"--need {text}: write NAME=AMOUNT, as GPU=1 or MEMORY=2G")
    try:
        found = float(amount)
    except ValueError:
        found = float(size_of(amount, f"--need {name}"))
    if not 0 < found < float("inf"):
        raise UsageError(f"--need {text}: the amount is a number above 0")
    return name, found
