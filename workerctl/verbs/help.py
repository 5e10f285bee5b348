"""`help`: the overview, or a verb explained."""

from __future__ import annotations

from workerctl import helptext, stdio
from workerctl.options import Args, UsageError, Verb, did_you_mean
from workerctl.verbs import ALIASES, VERBS, load

VERB = Verb(
    "help",
    "[VERB]",
    "Explain workerctl, or one of its verbs.",
    groups={},
    examples=[("help run", "all that `run` can do; also: workerctl run --help")],
)


def main(args: Args) -> int:
    if not args.words:
        stdio.put(helptext.overview())
        return 0
    name = ALIASES.get(args.words[0], args.words[0])
    if name not in VERBS:
        raise UsageError(f"no verb {name!r}{did_you_mean(name, [*VERBS, *ALIASES]) or '; see: workerctl help'}")
    stdio.put(helptext.of_verb(load(name).VERB))
    return 0
