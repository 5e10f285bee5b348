"""Where steps are played: on this machine if it can, else in the virtual machine of the tests."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
STAGE = ROOT / "tools" / "stage.py"
VM = ROOT / "tests" / "system" / "vm"

Step = dict[str, Any]


def play(steps: list[Step], command: list[str] | None = None) -> list[Step]:
    """The steps with `status` and, as bytes, `output`. `command` runs tools/stage.py: in the
    virtual machine unless it says otherwise."""
    done = subprocess.run(
        command or [sys.executable, str(VM), "script", str(STAGE)],
        input=json.dumps(steps).encode(),
        stdout=subprocess.PIPE,
        check=True,
    )
    played: list[Step] = json.loads(done.stdout)
    return [{**step, "output": base64.b64decode(step["output"])} for step in played]


def must_succeed(steps: list[Step]) -> None:
    """The stage ends with the first that fails."""
    last = steps[-1]
    if last["status"] != 0:
        sys.exit(f"{last['command']}\nended with {last['status']}:\n{last['output'].decode(errors='replace')}")
