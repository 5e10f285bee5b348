"""`version`: workerctl's own, and the daemon's where one can be reached."""

from __future__ import annotations

from workerctl import stdio
from workerctl.options import Args, Option, UsageError, Verb
from workerctl.shape import VALUE_FORMAT, check, put_values
from workerctl.wire import Connection
from workerd import __version__

VERB = Verb(
    "version",
    "[OPTIONS]",
    "Show the versions of workerctl and of workerd, where it can be reached.",
    groups={"Options": [Option("--json", "as JSON; the daemon's is null where there is none"), VALUE_FORMAT]},
    examples=[("version", "also: workerctl --version")],
)


def main(args: Args) -> int:
    if args.words:
        raise UsageError(f"version takes no argument {args.words[0]!r}")
    check(args)
    daemon, why = _daemon_version()
    if not put_values(args, {"workerctl": __version__, "workerd": daemon}):
        stdio.put(f"workerctl {__version__}\n")
        stdio.put(f"workerd   {daemon or '-'}\n")
        if why:
            stdio.note(why)
    return 0


def _daemon_version() -> tuple[str | None, str]:
    from workerd.errors import WorkerError

    try:
        with Connection() as connection:
            return str(connection.call("daemon.info", {})["version"]), ""
    except WorkerError as error:
        return None, str(error)
