"""`python tests/bench [CASE…]`: figures on this machine, each beside what it is compared
with, taken by turns in one run. Needs root and a cgroup2 mount. Prints a table; nothing
here passes or fails."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.bench import command_line, launch, memory, output, restart

CASES = {
    "launch": launch.run,
    "command-line": command_line.run,
    "memory": memory.run,
    "output": output.run,
    "restart": restart.run,
}


def main(names: list[str]) -> int:
    unknown = [name for name in names if name not in CASES]
    if unknown:
        print(f"no such case: {', '.join(unknown)}; there are {', '.join(CASES)}", file=sys.stderr)
        return 2
    for name in names or CASES:
        CASES[name]()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
