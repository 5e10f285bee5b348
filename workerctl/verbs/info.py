"""`info`: the daemon, and what this host lets it do."""

from __future__ import annotations

from workerctl.options import Args, Option, UsageError, Verb
from workerctl.shape import VALUE_FORMAT, check, put_values
from workerctl.wire import Connection

VERB = Verb(
    "info",
    "[OPTIONS]",
    "Show what the daemon is, where it keeps things, and who you are to it.",
    groups={"Options": [Option("--json", "as JSON"), VALUE_FORMAT]},
    examples=[("info", "is it there, which limits can it hold")],
)


def main(args: Args) -> int:
    if args.words:
        raise UsageError(f"info takes no argument {args.words[0]!r}")
    programs = check(args)
    with Connection() as connection:
        info = connection.call("daemon.info", {})
    if programs:
        from workerctl.complete import complete_info

        put_values(args, complete_info(info))
    else:
        from workerctl.render import draw, info_panel

        draw(info_panel(info))
    return 0
