"""`exec`: one more command inside a running job."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # not signal: its enums cost 5 ms
import os

from workerctl import stdio, wakeup
from workerctl.options import Args, Option, UsageError, Verb
from workerctl.wire import Connection

TYPE_CHECKING = False  # as typing has it, without its 9 ms
if TYPE_CHECKING:
    from typing import Any

    from workerctl.execute import Leash

SIGINT = 2

VERB = Verb(
    "exec",
    "[OPTIONS] ID COMMAND [ARGUMENT…]",
    "Run one more command inside a running job, as its own command runs.",
    options_first=True,
    text="""
        It has the job's files, processes, network, user, limits and confinement; its working
        directory and environment are the job's own unless options say otherwise. What it writes
        is not part of the job's output. It is killed when the job's own command ends.

        It lives as long as this workerctl: when that goes away, the command gets SIGHUP, and five
        seconds later SIGKILL. A restart of workerd changes nothing. Ctrl-C sends it SIGINT, twice
        leaves it.

        The exit code is the command's own; 128+N when signal N killed it, 126 when it cannot be
        executed, 127 when it was not found, 125 when workerctl or workerd failed.
    """,
    groups={
        "Options": [
            Option("-i --interactive", "give it your standard input"),
            Option("-t --tty", "give it a terminal; for shells and editors: -it"),
            Option("-w --workdir", "where it runs [the job's own]", "DIR"),
            Option("-e --env", "set a variable, or pass on your own", "NAME[=VALUE]", many=True),
        ],
    },
    examples=[
        ("exec build ps aux", "what runs in the job named build"),
        ("exec -it build bash", "a shell in it"),
        ("exec -i build sh -c 'cat > /tmp/in' < file", "a file into its private /tmp"),
    ],
)


def main(args: Args) -> int:
    if not args.words:
        raise UsageError("exec in which job? Write: workerctl exec [OPTIONS] ID COMMAND [ARGUMENT…]")
    if len(args.words) == 1:
        raise UsageError(f"exec what in {args.words[0]}? Write: workerctl exec {args.words[0]} COMMAND [ARGUMENT…]")
    params = _params(args)
    if args.has("tty"):
        return _with_terminal(args, params)
    return _plain(args, params)


def _params(args: Args) -> dict[str, Any]:
    from workerctl.spec import argv, named_environment

    params: dict[str, Any] = {"id": args.words[0], "argv": argv(args.words[1:])}
    if env := named_environment(args):
        params["env"] = env
    if (workdir := args.text("workdir")) is not None:
        if not workdir.startswith("/"):
            raise UsageError(f"--workdir {workdir}: write it as the job sees it, from / on")
        params["cwd"] = workdir
    return params


def _plain(args: Args, params: dict[str, Any]) -> int:
    from workerctl.execute import attend, outlets

    outs = outlets()
    fds = [outs[fd].writing if fd in outs else fd for fd in (stdio.STDOUT, stdio.STDERR)]
    stdin = None
    if args.has("interactive"):
        from workerctl.feed import own_stdin

        stdin = own_stdin(stays=True)
    sent = fds if stdin is None else [stdin, *fds]
    leash, _ = _start({**params, "stdin": stdin is not None, "fds": len(sent)}, sent)
    for out in outs.values():
        out.started()
    if stdin is not None and stdin > stdio.STDERR:
        os.close(stdin)
    _pass_on_interrupts(leash)
    try:
        return attend(leash, outs)
    finally:
        leash.close()


def _with_terminal(args: Args, params: dict[str, Any]) -> int:
    from workerctl.attach import need_terminal
    from workerctl.execute import at_terminal
    from workerctl.rawterm import Ended, RawTerminal, die_of, size_of

    need_terminal("exec -t", "leave out -t")
    if not args.has("interactive"):
        raise UsageError("exec -t alone would be a terminal that nobody types at: write -it")
    if "TERM" in os.environ:
        params["env"] = {"TERM": os.environ["TERM"], **params.get("env", {})}
    leash, fds = _start({**params, "tty": True, "window": size_of(stdio.STDIN)}, [])
    try:
        with RawTerminal(stdio.STDIN) as terminal:
            return at_terminal(leash, fds[0], terminal)
    except Ended as end:
        leash.close()
        die_of(end.number)
        raise
    finally:
        leash.close()


def _start(params: dict[str, Any], sent: list[int]) -> tuple[Leash, list[int]]:
    from workerctl.execute import Leash

    with Connection() as connection:
        _, fds = connection.call_with_fds("job.exec", params, 2, sent)
    return Leash(fds[0]), fds[1:]


def _pass_on_interrupts(leash: Leash) -> None:
    count = 0

    def interrupted(*_: object) -> None:
        nonlocal count
        count += 1
        if count > 1:
            raise KeyboardInterrupt
        leash.signal(SIGINT)

    _signal.signal(SIGINT, interrupted)
    wakeup.begin()
