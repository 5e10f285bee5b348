"""workerd.toml(5), from systemd/workerd.toml: its comments, keys and defaults."""

from __future__ import annotations

import re
from itertools import groupby
from pathlib import Path

from tools.reference import roff
from tools.reference.release import DATE, VERSION

SAMPLE = Path(__file__).resolve().parents[2] / "systemd/workerd.toml"
KEY = re.compile(r"#\w+ = .*")
EXAMPLE = """\
# A machine that a few people share.
admins = ["ada"]

[defaults]
memory = "1G"
pids = 500

[user]
jobs = 200
memory = "16G"
"""


def page() -> str:
    made = roff.Page("workerd.toml", 5, DATE, VERSION, "File Formats")
    made.section("Name")
    made.paragraph("workerd.toml - what workerd lets its users do")
    made.section("Synopsis")
    made.paragraph("/etc/workerd/workerd.toml")
    blocks = [block.split("\n") for block in SAMPLE.read_text().strip().split("\n\n")]
    made.section("Description")
    _comments(made, blocks[0][1:])
    made.paragraph(
        "The file is TOML (https://toml.io). A key or table that is not named here is an error, which names its line; "
        "then workerd does not start, or goes on with the policy that it has."
    )
    made.section("Keys, with their defaults")
    _blocks(made, blocks[1:])
    made.section("Example")
    made.code(EXAMPLE.rstrip("\n").split("\n"))
    made.section("See also")
    made.paragraph("workerd(8), workerctl(1)")
    return made.text()


def _blocks(made: roff.Page, blocks: list[list[str]]) -> None:
    """What stands before a table speaks of it; what stands before keys, of them."""
    for place, block in enumerate(blocks):
        made.part(_title(block) if place else "Before all tables")
        lines_of_it = (line for line in block if not line.startswith("["))
        kinds = groupby(lines_of_it, key=lambda line: bool(KEY.fullmatch(line)))
        for are_keys, lines in kinds:
            if are_keys:
                made.code([line.removeprefix("#") for line in lines])
            else:
                _comments(made, list(lines))


def _title(block: list[str]) -> str:
    """The table; where there are only examples of tables, what these are called in general."""
    tables = [line for line in block if line.startswith("[")]
    examples = re.findall(r"^#\s+\[(\w+)\.", "\n".join(block), re.MULTILINE)
    return tables[0] if tables else ", ".join(f"[{name}.NAME]" for name in examples)


def _comments(made: roff.Page, lines: list[str]) -> None:
    """Paragraphs of comments; those that are indented are an example."""
    text = [line.removeprefix("#").removeprefix(" ") for line in lines]
    prose, code = [line for line in text if not line.startswith("  ")], [line for line in text if line.startswith("  ")]
    for paragraph in "\n".join(prose).strip("\n").split("\n\n"):
        if paragraph.strip():
            made.paragraph(" ".join(paragraph.split()))
    if code:
        made.code([line.strip() for line in code])
