"""workerctl(1), from the verbs' own tables and the topics of `workerctl help`."""

from __future__ import annotations

import textwrap

from tools.reference import roff
from tools.reference.release import DATE, VERSION
from workerctl.helptext import OVERVIEW_END
from workerctl.options import COMMON, Option, Verb
from workerctl.spec import ENV_PASSED
from workerctl.topics import TOPICS
from workerctl.verbs import VERBS, aliases_of, load

ABOUT = (
    "workerctl asks workerd(8) to run commands as jobs: limited in memory, CPU time, disk traffic and processes; "
    "isolated in namespaces of their own; recorded with their output, their outcome and what they used. "
    "Everybody who may connect sees and touches their own jobs alone; root and the admins of "
    "workerd.toml(5), everybody's.",
    "ID is a job's id, the beginning of one, or a job's name. An option's value may follow it as the next word, "
    "after an equals sign, or, after a single letter, at once. Options of all verbs may stand before the verb too.",
)
ENVIRONMENT = {
    "WORKERD_SOCKET": "The daemon's socket, where --socket does not name one.",
    "WORKER_HOST": "The machine whose workerd is asked, where -H does not name one: ssh://[USER@]HOST[:PORT].",
    "WORKER_SSH": "The program that -H connects with, and its first arguments [ssh].",
    "WORKER_CLUSTER": "The Dask cluster that runs the jobs, where --cluster does not name one.",
    "WORKERCTL_DETACH_KEYS": "What leaves run -it and attach, where --detach-keys does not say [ctrl-p,ctrl-q].",
    "NO_COLOR": "Where it is set and not empty, there are no colours (https://no-color.org).",
    "LC_ALL": "C or POSIX: a terminal gets ASCII alone, the rest as escapes; data in a pipe stays UTF-8.",
    "TERM": "No colours where it is dumb; run -t and exec -t give it to the job's terminal.",
    "WORKERCTL_DEBUG": "1 shows where in workerctl an error came from.",
}
FILES = {
    "/run/workerd/workerd.sock": "The daemon's socket.",
    "/etc/workerd/workerd.toml": "The policy: what the daemon lets its users do; workerd.toml(5).",
}


def page() -> str:
    made = roff.Page("workerctl", 1, DATE, VERSION, "User Commands")
    made.section("Name")
    made.paragraph("workerctl - run commands as limited, isolated, recorded jobs")
    made.section("Synopsis")
    made.synopsis("workerctl", "VERB [OPTIONS] …")
    made.section("Description")
    for paragraph in ABOUT:
        made.paragraph(paragraph)
    made.section("Options of all verbs")
    for one in COMMON:
        _option(made, one)
    _verbs(made)
    _topics(made)
    made.section("Exit status")
    made.verbatim(TOPICS["exit-codes"][1])
    _ending(made)
    return made.text()


def _verbs(made: roff.Page) -> None:
    made.section("Verbs")
    for name in VERBS:
        _verb(made, load(name).VERB)


def _verb(made: roff.Page, verb: Verb) -> None:
    made.part(f"{verb.name} {verb.arguments}".rstrip())
    made.paragraph(verb.summary)
    if aliases := aliases_of(verb.name):
        made.paragraph(f"Also: {', '.join(aliases)}.")
    for paragraph in textwrap.dedent(verb.text).strip().split("\n\n"):
        if paragraph:
            made.paragraph(" ".join(paragraph.split()))
    for title, options in verb.groups.items():
        if len(verb.groups) > 1:
            made.paragraph(f"{title}:")
        for one in options:
            _option(made, one)
    made.paragraph("For example:" if len(verb.examples) == 1 else "Examples:")
    for command, meaning in verb.examples:
        made.code([f"# {meaning}", f"workerctl {command}"])


def _option(made: roff.Page, one: Option) -> None:
    text = one.help + (" (repeatable)" if one.many else "")
    made.item(roff.option(one.flags, one.metavar), text, bold=False)


def _topics(made: roff.Page) -> None:
    for name, (summary, text) in TOPICS.items():
        if name != "exit-codes":
            made.section(f"{name}: {summary.partition(': ')[2] or summary}")
            made.verbatim(text)


def _ending(made: roff.Page) -> None:
    made.section("Environment")
    for name, meaning in ENVIRONMENT.items():
        made.item(roff.escaped(name), meaning)
    made.item(", ".join(ENV_PASSED) + ", LC_*", "What run passes on to the command, unless -e and -E say more.")
    made.section("Files")
    for path, meaning in FILES.items():
        made.item(roff.escaped(path), meaning)
    made.section("Examples")
    made.verbatim(OVERVIEW_END.partition(":\n")[2].partition("\n\n")[0])
    made.section("See also")
    made.paragraph("workerd(8), workerd.toml(5), ssh(1), cgroups(7), namespaces(7)")
