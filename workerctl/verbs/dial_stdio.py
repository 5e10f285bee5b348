"""`dial-stdio`: what `workerctl -H` elsewhere starts here, through ssh."""

from __future__ import annotations

from workerctl import stdio
from workerctl.options import Args, UsageError, Verb

VERB = Verb(
    "dial-stdio",
    "",
    "Connect standard input and output to workerd, for `workerctl -H` on another machine.",
    text="""
        Started by ssh there, as its user; not for people. An ssh key may be held to it:
        command="workerctl dial-stdio",restrict in authorized_keys.
    """,
    groups={},
    examples=[("ps -H ssh://ada@build.example", "runs it on build.example, as ada")],
)


def main(args: Args) -> int:
    if args.words:
        raise UsageError(f"dial-stdio takes no argument {args.words[0]!r}")
    if stdio.is_terminal(stdio.STDIN):
        raise UsageError("dial-stdio speaks to a program: use workerctl -H ssh://HOST on the other machine")
    from workerctl.remote.dial import main as dial

    dial()
    return 0
