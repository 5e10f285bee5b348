"""`attach`: to the terminal of a job that was started with -t."""

from __future__ import annotations

from workerctl.options import Args, Option, UsageError, Verb

VERB = Verb(
    "attach",
    "[OPTIONS] ID",
    "Go to the terminal of a job that was started with -t.",
    text="""
        Shows the last screenful, then what comes; what you type goes to the job. Ctrl-P Ctrl-Q
        leaves and lets the job run on. Several may be attached at once; the terminal has the size
        of the one who last came, was resized or began to type.

        The exit code is the job's own once it ends, and 0 after the detach keys.
    """,
    groups={
        "Options": [
            Option("--detach-keys", "as ctrl-a,d; none: no way out [$WORKERCTL_DETACH_KEYS or ctrl-p,ctrl-q]", "KEYS"),
        ],
    },
    examples=[
        ("attach k3v9q2m7xd", "back to a shell started by `run -it bash`"),
        ("attach --detach-keys ctrl-a,d vim", "leave with Ctrl-A D"),
    ],
)


def main(args: Args) -> int:
    if len(args.words) != 1:
        raise UsageError("attach to which job? Write: workerctl attach ID")
    from workerctl.attach import need_terminal, stay
    from workerctl.detachkeys import parse

    keys = parse(args.text("detach-keys"))
    need_terminal("attach", f"to watch only: workerctl out -f {args.words[0]}")
    return stay(args.words[0], keys, fresh=False)
