"""`events`: what happens to jobs."""

from __future__ import annotations

from workerctl import wakeup
from workerctl.eventfilter import KEYS, EventFilter
from workerctl.eventlines import Printer
from workerctl.options import Args, Option, UsageError, Verb
from workerctl.shape import check
from workerctl.wire import Connection

TYPE_CHECKING = False  # as typing has it, without its 9 ms
if TYPE_CHECKING:
    from typing import Any

VERB = Verb(
    "events",
    "[OPTIONS] [ID…]",
    "Show what happens to jobs, as it happens: states, retries, memory, limits.",
    text="""
        Goes on until Ctrl-C, also through a restart of workerd; with IDs, of those jobs alone.
        Every change of a job that is recorded is shown once, in the order in which it was;
        where events are not kept any more, a line of the kind gap says so.

        --json prints one object a line: kind (state, retry, oom, limit, renamed, updated,
        removed, gap), time (microseconds), cursor, id, uid, name, state, reason, exit_code,
        signal, detail, limit (memory, pids), count, restarts; null is not set. A cursor given
        to --since goes on behind its event: nothing is missed in between, and nothing twice.
    """,
    groups={
        "Which": [
            Option("-a --all", "everybody's (admins only; others see their own)"),
            Option("--filter", f"only events that match, by {', '.join(KEYS)}", "KEY=VALUE", many=True),
            Option("--since", "behind this cursor; or since a time, as 10m (ago) or 14:30; or first", "CURSOR"),
            Option("-f --follow", "go on with what comes: the default"),
            Option("--no-follow", "only what there is by now; without --since, all of it"),
        ],
        "How": [
            Option("--json", "an object a line for each event"),
            Option("--format", "print this for each event, as '{id} {kind} {state}'; see `help format`", "TEMPLATE"),
        ],
    },
    examples=[
        ("events", "what happens from now on"),
        ("events --no-follow --since 1h build", "the last hour of one job"),
        ("events --filter kind=oom --filter kind=limit", "whose limits are too tight"),
        ('events --json --since "$(cat cursor)"', "for a program: on from where it was"),
    ],
)


def main(args: Args) -> int:
    check(args)
    if args.has("follow") and args.has("no-follow"):
        raise UsageError("--follow and --no-follow: give one of them")
    wanted = EventFilter(args.texts("filter"))
    since, moment = _since(args)
    params: dict[str, Any] = {"cursor": since}
    if args.has("all"):
        params["all"] = True
    printer = Printer(args)
    wakeup.begin()
    with Connection() as connection:
        if args.words:
            params["jobs"] = [_full_id(connection, word) for word in args.words]
        params["timeout"] = 0  # at first: from here on nothing is missed
        while True:
            answer = connection.call_patiently("events.subscribe", params)
            params["cursor"] = answer["next"]
            printer.put([event for event in answer["events"] if event["time"] >= moment and wanted.matches(event)])
            if answer.get("more"):
                continue
            if args.has("no-follow"):
                return 0
            params.pop("timeout", None)


def _since(args: Args) -> tuple[str, int]:
    """(the cursor, the time in microseconds before which nothing is shown)"""
    text = args.text("since")
    if text is None:
        return ("first" if args.has("no-follow") else "now"), 0
    if text in ("first", "now") or _is_cursor(text):
        return text, 0
    from workerctl.moments import moment_of

    return "first", moment_of(text, "--since") // 1000


def _is_cursor(text: str) -> bool:
    parts = text.split(".")
    return len(parts) == 3 and len(parts[0]) == 10 and parts[2].isdecimal()


def _full_id(connection: Connection, word: str) -> str:
    """Of a job that is forgotten by now there may still be events: what looks like a whole
    id is one."""
    from workerd.errors import NoSuchJob

    try:
        return str(connection.call("job.status", {"id": word})["id"])
    except NoSuchJob:
        if len(word) == 10 and word.isalnum():
            return word
        raise
