"""Help as plain text of at most 80 columns, made from the verbs' own tables."""

from __future__ import annotations

import textwrap

from workerctl.options import COMMON, Option, Verb
from workerctl.topics import TOPICS
from workerctl.verbs import VERBS, aliases_of

WIDTH = 79
INDENT = 26
"""the column at which an option's explanation begins"""
MEANING = 46
"""the same for an example's"""

OVERVIEW_END = """\
A first look:
  workerctl run --mem 256M -- make -j4    start a job; its id is printed
  workerctl ps                            which jobs run
  workerctl out -f ID                     what it writes, live
  workerctl status ID                     its limits, its use, why it ended
  workerctl stop ID                       enough
  workerctl -H ssh://HOST ps              the same on another machine

ID is a job's id, the beginning of one, or a job's name.
`workerctl help VERB` explains a verb, with examples; there is also help on
"""


def overview() -> str:
    lines = ["workerctl runs commands as jobs: limited, isolated, recorded.", "", "Usage: workerctl VERB …", ""]
    for name, summary in VERBS.items():
        aliases = ", ".join(aliases_of(name))
        lines.append(f"  {name:<12}{summary}" + (f" (also: {aliases})" if aliases else ""))
    topics = [f"  {name:<12}{summary}\n" for name, (summary, _) in TOPICS.items()]
    return "\n".join([*lines, "", OVERVIEW_END]) + "".join(topics)


def of_verb(verb: Verb) -> str:
    aliases = ", ".join(aliases_of(verb.name))
    parts = [f"Usage: workerctl {verb.name} {verb.arguments}".rstrip()]
    summary = verb.summary + (f" Also: {aliases}." if aliases else "")
    parts.append(textwrap.fill(summary, WIDTH))
    parts += [
        textwrap.fill(paragraph, WIDTH) for paragraph in textwrap.dedent(verb.text).strip().split("\n\n") if paragraph
    ]
    for title, options in {**verb.groups, "Common": COMMON}.items():
        parts.append(f"{title}:\n" + "\n".join(_option(option) for option in options))
    parts.append("Examples:\n" + "\n".join(_example(*example) for example in verb.examples))
    return "\n\n".join(parts) + "\n"


def _option(option: Option) -> str:
    short = [flag for flag in option.flags if not flag.startswith("--")]
    long = [flag for flag in option.flags if flag.startswith("--")]
    flags = ", ".join(short + long) if short else "    " + ", ".join(long)
    left = "  " + flags + (f" {option.metavar}" if option.metavar else "")
    text = option.help + (" (repeatable)" if option.many else "")
    if len(left) > INDENT - 2:
        return left + "\n" + textwrap.fill(text, WIDTH, initial_indent=" " * INDENT, subsequent_indent=" " * INDENT)
    return textwrap.fill(text, WIDTH, initial_indent=left.ljust(INDENT), subsequent_indent=" " * INDENT)


def _example(command: str, meaning: str) -> str:
    left = f"  workerctl {command}"
    if len(left) <= MEANING - 2 and MEANING + len(meaning) <= WIDTH:
        return left.ljust(MEANING) + meaning
    return f"{left}\n      {meaning}"
