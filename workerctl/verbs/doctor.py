"""`doctor`: is this machine as worker needs it, and what to do where it is not."""

from __future__ import annotations

from workerctl import stdio
from workerctl.options import Args, Option, UsageError, Verb
from workerctl.shape import check, put_list

TYPE_CHECKING = False  # as typing has it, without its 9 ms
if TYPE_CHECKING:
    from workerctl.doctor import Finding

VERB = Verb(
    "doctor",
    "[OPTIONS]",
    "Look at all that worker needs of this machine, and say what to mend.",
    text="""
        Works without workerd, and says why it does not start. As root it sees more.

        The exit code is 0 where all is well, 1 where there are warnings, 2 where something
        failed.
    """,
    groups={
        "Options": [
            Option("-q --quiet", "only what is not well"),
            Option("--json", "an array: part, check, level (ok, warning, failed), found, remedy"),
            Option("--format", "print this for each check, as '{level} {check}'; see `help format`", "TEMPLATE"),
        ]
    },
    examples=[("doctor", "when something does not work"), ("doctor -q || echo look", "in a script")],
)

FIELDS = ("part", "check", "level", "found", "remedy")
CODES = {"ok": 0, "warning": 1, "failed": 2}
COLOURS = {"ok": "32", "warning": "33", "failed": "31"}


def main(args: Args) -> int:
    from workerctl.doctor import Host, examine

    if args.words:
        raise UsageError(f"doctor takes no argument {args.words[0]!r}")
    programs = check(args, FIELDS)
    host = Host(socket=args.text("socket"))
    findings = []
    for finding in examine(host):
        findings.append(finding)
        if not programs and not (args.has("quiet") and finding.level == "ok"):
            stdio.put(_line(finding))
    if programs:
        put_list(args, [one.as_json() for one in findings if not (args.has("quiet") and one.level == "ok")])
    return max(CODES[finding.level] for finding in findings)


def _line(finding: Finding) -> str:
    from workerctl.escape import visible

    level = f"{finding.level:<8}"
    if stdio.colour():
        level = f"\x1b[{COLOURS[finding.level]}m{level}\x1b[0m"
    what = f"{visible(finding.what):<20} "
    found = _hung(visible(finding.found), 8 + max(len(what), 21))
    return f"{level}{what}{found}\n" + (f"{'':8}-> {_hung(visible(finding.remedy), 11)}\n" if finding.remedy else "")


def _hung(text: str, column: int) -> str:
    """Text that begins at that column; on a terminal broken between words, and below itself."""
    if not stdio.is_terminal(stdio.STDOUT):
        return text
    from workerctl.cells import wrapped

    width = stdio.width() - 1
    if width - column < 20 and column + len(text) > width:  # no room beside: below, a little indented
        return "".join(f"\n{'':11}{line}" for line in wrapped(text, max(9, width - 11)))
    return f"\n{'':{column}}".join(wrapped(text, width - column))
