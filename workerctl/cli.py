"""The command line: from the words to a verb, and every failure to a sentence and a code."""

from __future__ import annotations

import os
import sys

from workerctl import exitcode, stdio
from workerctl.options import UsageError, did_you_mean, parse
from workerctl.verbs import ALIASES, LOCAL, VERBS, load

TYPE_CHECKING = False  # as typing has it, without its 9 ms
if TYPE_CHECKING:
    from collections.abc import Sequence

    from workerctl.options import Args


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command line; the process's exit code. Nothing escapes as a traceback."""
    words = list(sys.argv[1:] if argv is None else argv)
    stdio.keep_three_open()
    try:
        return dispatch(words)
    except KeyboardInterrupt:
        return _die_interrupted()
    except BrokenPipeError:
        return exitcode.BROKEN_PIPE  # as `cat` ends when `head` has enough
    except UsageError as error:
        return _fail(str(error))
    except Exception as error:
        return _explain(error)


def _die_interrupted() -> int:
    """Ends by the signal itself, so that a shell script around us ends too."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGINT)
    return exitcode.INTERRUPTED


def dispatch(words: list[str]) -> int:
    """The verb's own exit code. Raises UsageError, WorkerError, OSError."""
    if words and words[0] == "__complete":  # how the shells' completion scripts ask
        from workerctl.completing.answering import answer

        return answer(words[1:])
    words = _global_options(words)
    if not words or words[0] in ("-h", "--help"):
        words = ["help"]
    elif words[0] in ("-V", "--version"):
        words = ["version", *words[1:]]
    name = ALIASES.get(words[0], words[0])
    if name not in VERBS:
        what = "option" if words[0].startswith("-") else "verb"
        raise UsageError(
            f"no {what} {words[0]!r}{did_you_mean(words[0], [*VERBS, *ALIASES]) or '; see: workerctl help'}"
        )
    module = load(name)
    args = parse(module.VERB, words[1:])
    if args.has("help"):
        from workerctl.helptext import of_verb

        stdio.put(of_verb(module.VERB))
        return 0
    _choose_machine(name, args)
    return module.main(args)


def _choose_machine(verb: str, args: Args) -> None:
    """$WORKER_CLUSTER, $WORKER_HOST and $WORKERD_SOCKET become what the options say."""
    host, path = args.text("host"), args.text("socket")
    if _choose_cluster(verb, args):
        return
    if host is not None:
        os.environ["WORKER_HOST"] = host
    host = os.environ.get("WORKER_HOST")
    if host and verb not in LOCAL:
        from workerctl.remote.address import settle

        settle(host, path)
    elif host and verb == "doctor":
        raise UsageError("doctor looks at the machine it runs on; at another one: ssh HOST workerctl doctor")
    elif path:
        os.environ["WORKERD_SOCKET"] = path


def _choose_cluster(verb: str, args: Args) -> bool:
    """Whether the verb is about a cluster. What was said last counts: an option, not the
    environment."""
    cluster = args.text("cluster")
    if cluster is not None and (args.has("host") or args.has("socket")):
        raise UsageError("--cluster means many machines, -H and --socket one: leave out one of them")
    if args.has("host") or args.has("socket") or verb in LOCAL:
        os.environ.pop("WORKER_CLUSTER", None)
    cluster = cluster if cluster is not None else os.environ.get("WORKER_CLUSTER")
    if not cluster or verb in LOCAL:
        return False
    from workerctl.dask.address import parse

    os.environ["WORKER_CLUSTER"] = parse(cluster, insecure=args.has("insecure"))
    return True


def _global_options(words: list[str]) -> list[str]:
    """`-H HOST`, `--cluster ADDRESS` and `--socket PATH` may stand before the verb too: they are moved behind it."""
    front: list[str] = []
    while words:
        flag, equals, _ = words[0].partition("=")
        if flag not in ("-H", "--host", "--cluster", "--insecure", "--socket") and not flag.startswith("-H"):
            break
        alone = equals or flag == "--insecure" or (flag.startswith("-H") and flag != "-H")
        count = 1 if alone else 2
        front, words = front + words[:count], words[count:]
    return [words[0], *front, *words[1:]] if words else front


def _explain(error: Exception) -> int:
    if os.environ.get("WORKERCTL_DEBUG") == "1":
        import traceback

        stdio.write_all(stdio.STDERR, traceback.format_exc().encode(errors="backslashreplace"))
    from workerd import errors

    code = exitcode.FAILED
    if isinstance(error, errors.CommandNotFound):
        code = exitcode.NOT_FOUND
    elif isinstance(error, errors.CannotExecute):
        code = exitcode.CANNOT_EXECUTE
    return _fail(_sentence(error), code)


def _sentence(error: Exception) -> str:
    from workerd.errors import WorkerError

    if isinstance(error, WorkerError):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    if isinstance(error, UnicodeEncodeError):
        return f"this is not UTF-8, and workerd takes nothing else: {error.object}"
    if isinstance(error, ModuleNotFoundError) and error.name in ("dask", "distributed"):
        return "for --cluster Dask's distributed is missing here: pip install 'worker-jobs[dask]'"
    if isinstance(error, ModuleNotFoundError):
        return f"the Python package {error.name} is missing: install workerctl with what it depends on"
    return f"internal error: {type(error).__name__}: {error} (WORKERCTL_DEBUG=1 shows where)"


def _fail(sentence: str, code: int = exitcode.FAILED) -> int:
    stdio.note(sentence)
    return code
