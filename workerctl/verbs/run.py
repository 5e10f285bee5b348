"""`run`: start a job; on request wait for it, or follow what it writes."""

from __future__ import annotations

from workerctl import stdio
from workerctl.options import Args, Option, UsageError, Verb
from workerctl.spec import run_params
from workerctl.wire import Connection

TYPE_CHECKING = False  # as typing has it, without its 9 ms
if TYPE_CHECKING:
    from typing import Any

    from workerctl.attend import Show

# Not of workerctl.shape, which only those need who ask for it.
STARTED_FORMAT = Option("--format", "print this, with the fields of --json in braces; see `help format`", "TEMPLATE")
STARTED = ("id", "state", "waits_for", "warnings")

VERB = Verb(
    "run",
    "[OPTIONS] [--] COMMAND [ARGUMENT…]",
    "Start a command as a job and print its id.",
    options_first=True,
    text="""
        Where the totals that you may use are taken, the job waits for its turn; `ps` says why.

        Options end at the first word that is none: `workerctl run ls -l` gives -l to ls.

        The exit code is 0 once the command runs; with --wait or -f it is the command's own,
        128+N when signal N killed it, 124 when its time was over, 125 when workerctl or workerd
        failed, 126 when the command cannot be executed and 127 when it was not found.

        With -i the command reads your standard input itself: pipes and files at their own speed,
        also after workerctl has gone. A terminal is never handed to it: workerctl passes on what is
        typed (with --wait or -f), or -it gives the command a terminal of its own, for shells and
        editors. Ctrl-P Ctrl-Q leaves that, and `workerctl attach` comes back.

        The command sees the machine's files read-only, its working directory as you may write
        it, and of your environment PATH HOME USER LOGNAME SHELL LANG LC_* TZ TERM; with -H, of
        these those of that machine, and of yours nothing but TERM for -t and what -e names.
    """,
    groups={
        "How to run it": [
            Option("--wait", "wait until it ends, and show nothing of it; Ctrl-C goes to the job, twice stops it"),
            Option("-f --follow", "show its output live, stdout and stderr apart, until it ends"),
            Option("-i --interactive", "give it your standard input; --wait then shows its output too"),
            Option("-t --tty", "give it a terminal; with -i you are at it until it ends or you leave"),
            Option(
                "--detach-keys",
                "what leaves -it [$WORKERCTL_DETACH_KEYS or ctrl-p,ctrl-q]; and -f, if you name any",
                "KEYS",
            ),
            Option("--name", "a name, to use in place of the id", "NAME"),
            Option("-l --label", "a label, to find it by: ps --label", "KEY[=VALUE]", many=True),
            Option("-w --workdir", "where it runs [the current directory; with -H your home there]", "DIR"),
            Option("-e --env", "set a variable, or pass on your own", "NAME[=VALUE]", many=True),
            Option("-E --env-all", "pass on your whole environment"),
            Option("--json", "print JSON: the id, state and warnings; with --wait the whole job"),
            STARTED_FORMAT,
        ],
        "Limits (sizes as 256M, 1.5G; none unless given)": [
            Option("-m --mem --memory", "memory; no swap on top unless --swap says so", "SIZE"),
            Option("--swap", "swap", "SIZE"),
            Option("--cpus", "CPU time, in CPUs: 0.5 is half of one", "N"),
            Option("--cpu-weight", "share of the CPU when it is scarce, 1-10000 [100]", "N"),
            Option("--cpuset", "run on these CPUs only, as 0-3,6", "LIST"),
            Option("--pids", "processes and threads", "N"),
            Option("--io-read-bps", "bytes read a second", "[DISK:]RATE", many=True),
            Option("--io-write-bps", "bytes written a second", "[DISK:]RATE", many=True),
            Option("--io-read-iops", "reads a second", "[DISK:]RATE", many=True),
            Option(
                "--io-write-iops",
                "writes a second; DISK is a path on it or MAJ:MIN, every disk if left out",
                "[DISK:]RATE",
                many=True,
            ),
            Option("--io-weight", "share of the disks when they are busy, 1-10000 [100]", "N"),
            Option("--max-output", "output kept; the oldest goes first", "SIZE"),
        ],
        "What it sees": [
            Option("--net", "none (loopback only), bridge or host [none]", "KIND"),
            Option("-p --publish", "lead the machine's port HOST to its port JOB", "HOST:JOB[/udp]", many=True),
            Option("--hostname", "its host name", "NAME"),
            Option("--rw", "let it write here (where you may)", "PATH", many=True),
            Option("--ro", "make this read-only", "PATH", many=True),
            Option("--bind", "show SRC at DST", "SRC:DST[:ro]", many=True),
            Option("--tmpfs", "an empty directory in memory", "PATH[:SIZE]", many=True),
            Option("--rootfs", "use this tree as its root", "DIR"),
            Option("--read-only", "let it write nowhere but in /tmp and the like"),
        ],
        "With --cluster": [
            Option("--need", "what the machine is to have free beside the limits, as GPU=1", "NAME=AMOUNT", many=True),
            Option("--retries", "run it elsewhere, so often at most, where its machine is lost [0]", "N"),
        ],
        "For admins": [
            Option("--user", "run it as this user, whose job it then is", "USER[:GROUP]"),
            Option("--cap-add", "a capability more, for a job of root's", "CAP", many=True),
            Option("--seccomp-profile", "off: filter no system calls [default]", "default|off"),
        ],
        "When it starts": [
            Option("--after", "when that job has ended: well (:ok), badly (:failed) or somehow", "ID[:HOW]", many=True),
            Option("--at", "at this time, as 14:30 or 2030-01-31 14:30", "TIME"),
            Option("--delay", "after this long, as 10m", "TIME"),
            Option("--priority", "before your waiting jobs of lower priority, -100 to 100 [0]", "N"),
            Option("--no-queue", "fail where it would have to wait for room"),
        ],
        "How it ends": [
            Option("--timeout", "stop it when it has run so long, paused time not counted", "TIME"),
            Option("--cpu-time", "stop it when it has used so much CPU time", "TIME"),
            Option("--on-timeout", "stop, or pause: what happens then [stop]", "ACTION"),
            Option("--stop-signal", "what `stop` sends first [TERM]", "SIG"),
            Option("--grace", "time from there to SIGKILL [10s]", "TIME"),
            Option(
                "--restart",
                "try again when it ends: on-failure or always, N times at most; with a growing pause, 1m at most",
                "WHEN[:N]",
            ),
            Option("--rm", "forget it moments after its end, with its output"),
        ],
    },
    examples=[
        ("run --mem 256M -- make -j4", "a limited job; its id is printed"),
        ("run -f --cpus 0.5 ./report.sh", "output live, exit code its own"),
        ("run --wait -m 1G --pids 50 make test && echo good", "as part of a script"),
        ("run --io-write-bps /srv:10M tar cf /srv/a.tar .", "at most 10 MiB a second to /srv's disk"),
        ("run --after build:ok --name tests make test", "once the job named build has succeeded"),
        ("run --restart on-failure:5 ./sync", "five more tries, unless it succeeds"),
        ("run --timeout 10m --wait ./nightly", "stopped after ten minutes, exit code 124"),
        ("run --rw /srv/data --net bridge ./sync", "may write /srv/data, has a network"),
        ("run -p 8080:80 ./server", "on the machine's port 8080; -p alone means --net bridge"),
        ("run -it --rm bash", "a shell in a job, forgotten when you leave it"),
        ("run -i --wait wc -l < big.log", "a job in a pipeline"),
    ],
)


def main(args: Args) -> int:
    params = run_params(args)
    stays = args.has("follow") or args.has("wait")
    show = shower(args, whole=stays or (args.has("tty") and args.has("interactive")))
    if args.has("need") or args.has("retries"):
        from workerctl.dask.options import cluster_params

        params |= cluster_params(args)
    stdin = None
    if args.has("tty"):
        from workerctl.rawterm import size_of

        params["spec"]["tty"] = True
        params["window"] = size_of(stdio.STDIN)
        if args.has("interactive"):
            return _at_terminal(args, params, show)
    elif args.has("interactive"):
        from workerctl.feed import own_stdin

        stdin = own_stdin(stays=stays)
    if stays:
        from workerctl.attend import attend

        return attend(
            params,
            keys=_keys_beside(args),
            # Who pipes something in means to see what comes out.
            follow=args.has("follow") or args.has("interactive"),
            show=show,
            stdin=stdin,
            raw=args.has("tty"),
        )
    with Connection() as connection:
        if stdin is None:
            result = connection.call("job.run", params)
        else:
            result = connection.call("job.run", {**params, "stdin": True, "fds": 1}, [stdin])
        put_started(result, show)
    return 0


def _keys_beside(args: Args) -> bytes:
    """What leaves a job that is only followed: no keys, unless they are named."""
    if (text := args.text("detach-keys")) is None:
        return b""
    if args.has("interactive"):
        raise UsageError("--detach-keys with -i: what is typed goes to the job line by line; add -t for single keys")
    from workerctl.detachkeys import parse

    return parse(text)


def shower(args: Args, *, whole: bool) -> Show | None:
    """What shows programs the job; None where it is people who look. `whole`: a finished job,
    not one that was started. Raises UsageError, before anything is done."""
    if not (args.has("json") or args.has("format")):
        return None
    from workerctl.shape import check, check_whole, put_jobs, put_values

    if whole:
        check_whole(args)
        return lambda job: put_jobs(args, [job], array=False)
    check(args, STARTED)
    return lambda started: put_values(args, started)


def put_started(result: dict[str, Any], show: Show | None) -> None:
    """The id, and what there is to say about it."""
    warn(result)
    if show is not None:
        show({**{key: result.get(key) for key in STARTED}, "warnings": result.get("warnings", [])})
    else:
        stdio.put(result["id"] + "\n")


def _at_terminal(args: Args, params: dict[str, Any], show: Show | None) -> int:
    from workerctl.attach import need_terminal, stay
    from workerctl.detachkeys import parse

    keys = parse(args.text("detach-keys"))
    need_terminal("run -it", "for a pipe or a file leave out -t, for output alone leave out -i")
    params["queue"] = False  # nobody types at a job that waits
    with Connection() as connection:
        result = connection.call("job.run", params)
    warn(result)
    return stay(result["id"], keys, fresh=True, show=show)


def warn(result: dict[str, Any]) -> None:
    if result.get("waits_for"):
        stdio.note(f"job {result['id']} waits: {result['waits_for']}")
    for warning in result.get("warnings", []):
        stdio.note(f"warning: {warning}")
