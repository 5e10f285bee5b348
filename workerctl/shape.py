"""What programs see: `--json` and `--format`, the same for every verb that shows jobs or records.

What must hold: the shape does not depend on what a job is like. One job named is one
object; several named, or a list, is an array; a template gives a line for each.
"""

from __future__ import annotations

from workerctl import stdio
from workerctl.options import Option, UsageError

TYPE_CHECKING = False  # as typing has it, without its 9 ms
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from workerctl.options import Args
    from workerctl.template import Derived

JSON = Option("--json", "print the job as JSON; an array where several were named")
FORMAT = Option("--format", "print this for each job, as '{id} {state}'; see `help format`", "TEMPLATE")
SHAPES = [JSON, FORMAT]
VALUE_FORMAT = Option("--format", "print this, with the fields of --json in braces; see `help format`", "TEMPLATE")


def put_jobs(args: Args, jobs: Sequence[dict[str, Any]], *, array: bool) -> bool:
    """Whether programs are the readers: then it is done. `array` is for --json."""
    if not check(args):
        return False
    from workerctl.complete import complete_job

    shown = [complete_job(job) for job in jobs]
    if args.has("json"):
        stdio.put_json(shown if array or not shown else shown[0])
        return True
    from workerctl.jobfields import DERIVED

    put_lines(args, shown, DERIVED)
    return True


def check_whole(args: Args) -> None:
    """`check` of a template that is for a job which is not there yet."""
    if check(args) and args.has("format"):
        from workerctl.jobfields import DERIVED
        from workerd.job import Job

        check(args, (*Job.__struct_fields__, *DERIVED))


def put_values(args: Args, value: dict[str, Any]) -> bool:
    """As `put_jobs`, for the one object of a verb that is not about jobs."""
    if not check(args):
        return False
    if args.has("json"):
        stdio.put_json(value)
    else:
        put_lines(args, [value])
    return True


def put_list(args: Args, values: Sequence[dict[str, Any]]) -> None:
    """As `put_values`, for a verb that has several, once `check` has said that it is to be so."""
    if args.has("json"):
        stdio.put_json(values)
    else:
        put_lines(args, values)


def check(args: Args, fields: Sequence[str] = ()) -> bool:
    """Whether one of the two was asked for. Raises UsageError where both were, or for what
    is no template: called before anything is done. `fields`, where the verb knows them
    so early, are all that a template may begin with."""
    if args.has("json") and args.has("format"):
        raise UsageError("--json and --format both say how to print; give one of them")
    if text := args.text("format"):
        from workerctl.template import Template

        template = Template(text)
        if fields:
            template.fill(dict.fromkeys(fields), str)
    elif text is not None:
        raise UsageError("--format: an empty template; write one as '{id} {state}'")
    return args.has("json") or args.has("format")


def put_lines(args: Args, values: Sequence[dict[str, Any]], derived: Derived | None = None) -> None:
    """A line for each, by the template of --format."""
    from workerctl.template import Template

    template = Template(args.text("format") or "", derived)
    escape = escaping()
    stdio.put("".join(template.fill(value, escape) + "\n" for value in values))


def put_objects(values: Sequence[dict[str, Any]]) -> None:
    """One a line, on a terminal too, and there in ASCII alone."""
    if stdio.is_terminal(stdio.STDOUT):
        import json

        stdio.put("".join(json.dumps(value) + "\n" for value in values))
        return
    from workerctl import plainjson

    stdio.write_all(stdio.STDOUT, b"".join(plainjson.dumps(value) + b"\n" for value in values))


def escaping() -> Callable[[str], str]:
    """What is done to a value: made harmless on a terminal, untouched in a pipe."""
    if not stdio.is_terminal(stdio.STDOUT):
        return str
    from workerctl.escape import visible

    return visible
