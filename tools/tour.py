"""`make tour`: types the commands of docs/tour.md in the virtual machine, and writes what they print below them.

A ```console block holds prompts with commands, and after each what it printed. Every command
must succeed; one that is to fail says so itself (`; echo "exit code $?"`, or `|| true`).
"""

from __future__ import annotations

import re
import sys

from tools import theatre
from tools.theatre import ROOT, Step

PAGE = ROOT / "docs" / "tour.md"
BLOCK = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PROMPT = re.compile(r"^(?:(\$)|(bob)\$|(root)#) (.+)$", re.MULTILINE)
LOOK = {"columns": 96, "rows": 60, "env": {"NO_COLOR": "1", "TERM": "xterm"}}
SETTING: list[Step] = [
    {"command": "usermod -aG worker alice; usermod -aG worker bob; systemctl start workerd"},
]
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def commands(page: str) -> list[Step]:
    """The steps that the page shows, in its order."""
    return [
        {"user": "alice" if match[1] else match[2] or match[3], "command": match[4], **LOOK}
        for block in BLOCK.findall(page)
        for match in PROMPT.finditer(block)
    ]


def filled(page: str, outputs: list[str]) -> str:
    """The page with these outputs, one of each command, in place of those that it has."""
    rest = iter(outputs)

    def fill(block: re.Match[str]) -> str:
        lines = [f"{match[0]}\n{next(rest)}" for match in PROMPT.finditer(block[1])]
        return "```console\n" + "".join(lines) + "```"

    return BLOCK.sub(fill, page)


def printed(output: bytes) -> str:
    """What a terminal without colours shows."""
    text = ESCAPES.sub("", output.decode(errors="replace")).replace("\r", "")
    return text if text.endswith("\n") or not text else f"{text}\n"


def main() -> int:
    page = PAGE.read_text()
    played = theatre.play([*SETTING, *commands(page)])
    theatre.must_succeed(played)
    PAGE.write_text(filled(page, [printed(step["output"]) for step in played[len(SETTING) :]]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
