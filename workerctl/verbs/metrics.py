"""`metrics`: figures for Prometheus."""

from __future__ import annotations

import os

from workerctl import exitcode, stdio
from workerctl.listing import list_jobs
from workerctl.options import Args, Option, UsageError, Verb
from workerctl.wire import Connection

TYPE_CHECKING = False  # as typing has it, without its 9 ms
if TYPE_CHECKING:
    from typing import Any

VERB = Verb(
    "metrics",
    "[OPTIONS]",
    "Print figures of the daemon and its live jobs for Prometheus.",
    text="""
        In Prometheus' text exposition format. Where workerd does not answer, worker_up is 0,
        and the exit code 125 (with --output 0, since the file then says it).

        The timer workerd-metrics.timer writes them into the directory of node_exporter's
        textfile collector: systemctl enable --now workerd-metrics.timer
    """,
    groups={
        "Options": [
            Option("-o --output", "write FILE, at once and whole, in place of stdout", "FILE"),
            Option("--no-jobs", "figures of the daemon alone, none of single jobs"),
        ]
    },
    examples=[("metrics | grep worker_up", "does it answer"), ("metrics -o /srv/node/worker.prom", "for a collector")],
)


def main(args: Args) -> int:
    from workerctl.prometheus import exposition
    from workerd.errors import WorkerError

    if args.words:
        raise UsageError(f"metrics takes no argument {args.words[0]!r}")
    info: dict[str, Any] | None = None
    jobs: list[dict[str, Any]] = []
    code = 0
    try:
        with Connection() as connection:
            info = connection.call("daemon.info", {})
            jobs = list_jobs(connection)
    except WorkerError as error:
        info, code = None, exitcode.FAILED
        stdio.note(str(error))
    text = exposition(info, jobs)
    if args.has("no-jobs"):
        text = "".join(line for line in text.splitlines(True) if "worker_job_" not in line)
    if (path := args.text("output")) is None:
        stdio.put(text)
        return code
    _write(path, text)
    return 0


def _write(path: str, text: str) -> None:
    """Readers find the old file or the new one, never half of it."""
    new = f"{path}.{os.getpid()}.new"
    try:
        with open(new, "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(new, path)
    except BaseException:
        if os.path.exists(new):
            os.unlink(new)
        raise
