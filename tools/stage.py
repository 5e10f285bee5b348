#!/usr/bin/env python3
"""Types commands at a terminal, as a person would, and reports what that showed.

Stands alone, so that it can run where worker is installed. stdin: JSON, an array of
steps; stdout: those that were played, up to the first that failed, each with `status` (the
exit code) and `output` (base64 of the bytes that the terminal got). A step:

    command     for a shell, in the user's home directory
    user        whose it is; absent: who runs this
    columns, rows, env    of the terminal; absent: 100, 40, {}
    watch       seconds after which the screen is as it is to be shown; then `keys` are
                typed. Absent: the command ends by itself
    keys        what ends a command that is watched
"""

import base64
import fcntl
import json
import os
import select
import struct
import sys
import termios
import time
from typing import Any

PATIENCE = 300.0
"""seconds for a command, on a machine that is emulated"""


def main() -> int:
    played = []
    for step in json.load(sys.stdin):
        print(f"stage: {step.get('user') or ''}$ {step['command']}", file=sys.stderr)
        step["status"], output = play(step)
        step["output"] = base64.b64encode(output).decode()
        played.append(step)
        if step["status"] != 0:
            break
    json.dump(played, sys.stdout)
    return 0


def play(step: dict[str, Any]) -> tuple[int, bytes]:
    """(exit code, bytes shown). Raises TimeoutError."""
    pid, master = os.forkpty()
    if pid == 0:
        start(step)
    try:
        output = read(master, step.get("watch"))
        if "keys" in step:
            os.write(master, step["keys"].encode())
            read(master, None)
    finally:
        os.close(master)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), output


def start(step: dict[str, Any]) -> None:
    """In the child: become the command."""
    size = struct.pack("HHHH", step.get("rows", 40), step.get("columns", 100), 0, 0)
    fcntl.ioctl(0, termios.TIOCSWINSZ, size)
    env = {**os.environ, "TERM": "xterm-256color", "LANG": "C.UTF-8", **step.get("env", {})}
    shell = ["bash", "-c", f"cd; {step['command']}"]
    try:
        if user := step.get("user"):
            shell = ["runuser", "-u", user, "--", *shell]
        os.execvpe(shell[0], shell, env)  # noqa: S606 - the shell is the point
    finally:
        os._exit(127)


def read(master: int, watch: float | None) -> bytes:
    """Until the end, or for as long as is watched."""
    deadline = time.monotonic() + (PATIENCE if watch is None else watch)
    data = b""
    while (left := deadline - time.monotonic()) > 0:
        if not select.select([master], [], [], left)[0]:
            break
        try:
            piece = os.read(master, 65536)
        except OSError:  # the last one at the terminal has left it
            return data
        if not piece:
            return data
        data += piece
    if watch is None:
        raise TimeoutError(f"still running after {PATIENCE:.0f} s; it has shown {data!r}")
    return data


if __name__ == "__main__":
    sys.exit(main())
