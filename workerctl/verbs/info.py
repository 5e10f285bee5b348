"""`info`: the daemon, and what this host lets it do."""

from __future__ import annotations

from workerctl import stdio
from workerctl.options import Args, Option, UsageError, Verb
from workerctl.wire import Connection

VERB = Verb(
    "info",
    "[--json]",
    "Show what the daemon is, where it keeps things, and who you are to it.",
    groups={"Options": [Option("--json", "as JSON")]},
    examples=[("info", "is it there, which limits can it hold")],
)


def main(args: Args) -> int:
    if args.words:
        raise UsageError(f"info takes no argument {args.words[0]!r}")
    with Connection() as connection:
        info = connection.call("daemon.info", {})
    if args.has("json"):
        from workerctl.complete import complete_info

        stdio.put_json(complete_info(info))
    else:
        from workerctl.render import draw, info_panel

        draw(info_panel(info))
    return 0
