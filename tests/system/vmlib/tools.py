"""The host's programs: found, installed where that is possible, and run."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from vmlib.errors import BuildFailed, MissingTool
from vmlib.notice import say, step

# Program -> the Debian package that has it.
PACKAGES = {
    "mmdebstrap": "mmdebstrap",
    "qemu-system-x86_64": "qemu-system-x86",
    "qemu-img": "qemu-utils",
    "mke2fs": "e2fsprogs",
    "newuidmap": "uidmap",
}
TAIL_LINES = 30


def find(program: str) -> str | None:
    """The program's path; the administrator's directories count for everybody."""
    path = os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin"
    return shutil.which(program, path=path)


def require(*programs: str) -> None:
    """Have all these programs; as root with apt-get, install what lacks. Raises MissingTool."""
    missing = [program for program in programs if find(program) is None]
    if not missing:
        return
    packages = sorted({PACKAGES[program] for program in missing})
    command = ["apt-get", "install", "--yes", "--no-install-recommends", *packages]
    if os.geteuid() != 0 or find("apt-get") is None:
        raise MissingTool(
            f"not found: {', '.join(missing)}. Install them as root, on Debian with:\n    {' '.join(command)}"
        )
    say(f"not found: {', '.join(missing)}; installing {' '.join(packages)} with apt-get")
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    with step("apt-get"):
        if not any(Path("/var/lib/apt/lists").glob("*_Packages*")):
            run(["apt-get", "update"], env=environment)
        run(command, env=environment)


def run(
    command: Sequence[str | os.PathLike[str]],
    *,
    env: dict[str, str] | None = None,
    cwd: Path | None = None,
    stdin: bytes | None = None,
) -> bytes:
    """Run a host program to its end; its stdout. Raises BuildFailed with its last lines."""
    arguments = [os.fspath(part) for part in command]
    found = find(arguments[0])
    if found is None:
        raise MissingTool(f"not found: {arguments[0]}")
    done = subprocess.run(
        [found, *arguments[1:]],
        env=env,
        cwd=cwd,
        input=stdin if stdin is not None else b"",
        capture_output=True,
        check=False,
    )
    if done.returncode != 0:
        text = (done.stdout + done.stderr).decode(errors="replace")
        tail = "\n".join(text.splitlines()[-TAIL_LINES:])
        raise BuildFailed(f"{arguments[0]} returned {done.returncode}:\n{tail}")
    return done.stdout
