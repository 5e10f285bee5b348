"""`help`: the overview, or a verb explained."""

from __future__ import annotations

from workerctl import helptext, stdio
from workerctl.options import Args, UsageError, Verb, did_you_mean
from workerctl.topics import TOPICS
from workerctl.verbs import ALIASES, VERBS, load

VERB = Verb(
    "help",
    "[VERB|TOPIC]",
    "Explain workerctl, one of its verbs, or a topic: format, filter, json, remote, exit-codes.",
    groups={},
    examples=[("help run", "all that `run` can do; also: run --help"), ("help format", "what --format takes")],
)


def main(args: Args) -> int:
    if not args.words:
        stdio.put(helptext.overview())
        return 0
    name = ALIASES.get(args.words[0], args.words[0])
    if name in TOPICS:
        stdio.put(TOPICS[name][1])
        return 0
    if name not in VERBS:
        near = did_you_mean(name, [*VERBS, *ALIASES, *TOPICS])
        raise UsageError(f"no verb {name!r}{near or '; see: workerctl help'}")
    stdio.put(helptext.of_verb(load(name).VERB))
    return 0
