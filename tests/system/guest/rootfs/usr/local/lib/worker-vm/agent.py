"""The guest's end: runs what the host sends over a virtio-serial port.

One thread, one poll loop, no asyncio (its import alone costs two seconds of a
boot under TCG). Each command is its own session. When its process ends, what
is left in its pipes is sent, then EXIT; output of background processes that
keep the pipes open is waited for no longer than LINGER seconds, so that
starting a daemon from a command does not hang the command.
"""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

import frames

LINGER = 1.0  # seconds that a finished command's open pipes are still read
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def open_port() -> int:
    """The agent's port, found through sysfs: udev may not have made its link yet."""
    for node in Path("/sys/class/virtio-ports").iterdir():
        if (node / "name").read_text().strip() == frames.PORT_NAME:
            return os.open(f"/dev/{node.name}", os.O_RDWR | os.O_CLOEXEC)
    raise SystemExit(f"no virtio-serial port named {frames.PORT_NAME}")


class Port:
    """The serial port: whole frames out, raw bytes in."""

    def __init__(self) -> None:
        self.fd = open_port()
        self.decoder = frames.Decoder()

    def send(self, kind: int, ident: int, payload: bytes = b"") -> None:
        data = memoryview(frames.encode(kind, ident, payload))
        while data:
            data = data[os.write(self.fd, data) :]


def become(entry: pwd.struct_passwd) -> Callable[[], None]:
    """What the child does before exec: be killable again, then be that user."""
    groups = os.getgrouplist(entry.pw_name, entry.pw_gid)

    def prepare() -> None:
        # The agent is exempt from the OOM killer; its commands are not. Before
        # setuid, since the file belongs to root after it.
        Path("/proc/self/oom_score_adj").write_text("0")
        os.setgroups(groups)
        os.setresgid(entry.pw_gid, entry.pw_gid, entry.pw_gid)
        os.setresuid(entry.pw_uid, entry.pw_uid, entry.pw_uid)

    return prepare


def environment(entry: pwd.struct_passwd, extra: dict[str, str]) -> dict[str, str]:
    base = {
        "PATH": PATH,
        "HOME": entry.pw_dir,
        "USER": entry.pw_name,
        "LOGNAME": entry.pw_name,
        "SHELL": entry.pw_shell,
        "LANG": "C.UTF-8",
    }
    return base | extra


class Command:
    """One running command: its process, its pipes, and when it must be over."""

    def __init__(self, ident: int, plan: dict[str, Any]) -> None:
        entry = pwd.getpwnam(plan["user"] or "root")
        self.ident = ident
        self.process = subprocess.Popen(
            plan["argv"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            env=environment(entry, plan["env"]),
            cwd=plan["cwd"] or entry.pw_dir,
            preexec_fn=become(entry),
            start_new_session=True,
        )
        assert self.process.stdin and self.process.stdout and self.process.stderr
        self.stdin: int | None = self.process.stdin.fileno()
        self.outputs = {
            self.process.stdout.fileno(): frames.STDOUT,
            self.process.stderr.fileno(): frames.STDERR,
        }
        for fd in (self.stdin, *self.outputs):
            os.set_blocking(fd, False)
        self.pidfd = os.pidfd_open(self.process.pid)
        self.pending = bytearray()
        self.stdin_closing = False
        self.timed_out = False
        self.exited = False
        timeout = plan["timeout"]
        self.deadline: float | None = time.monotonic() + timeout if timeout is not None else None

    def signal(self, number: int) -> None:
        # ESRCH: nobody is left in the group, which is what was wanted.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)

    def close(self) -> None:
        os.close(self.pidfd)
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()


class Agent:
    def __init__(self) -> None:
        self.port = Port()
        self.commands: dict[int, Command] = {}
        self.owners: dict[int, Command] = {}  # fd -> its command
        self.poll = select.poll()
        self.poll.register(self.port.fd, select.POLLIN)

    def serve(self) -> None:
        boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        self.port.send(frames.HELLO, 0, json.dumps({"boot_id": boot_id}).encode())
        while True:
            for fd, events in self.poll.poll(self.milliseconds_to_deadline()):
                if fd == self.port.fd:
                    self.read_port()
                elif fd in self.owners:  # not closed by an earlier event of this round
                    self.serve_command(self.owners[fd], fd, events)
            self.enforce_deadlines()

    def read_port(self) -> None:
        for kind, ident, payload in self.port.decoder.feed(os.read(self.port.fd, 65536)):
            if kind == frames.START:
                self.start(ident, json.loads(payload))
            elif (command := self.commands.get(ident)) is None:
                continue  # it has just ended; the host will learn it from EXIT
            elif kind == frames.STDIN:
                command.pending += payload
                self.feed_stdin(command)
            elif kind == frames.STDIN_CLOSE:
                command.stdin_closing = True
                self.feed_stdin(command)
            elif kind == frames.SIGNAL:
                command.signal(payload[0])

    def start(self, ident: int, plan: dict[str, Any]) -> None:
        try:
            command = Command(ident, plan)
        except (OSError, KeyError, ValueError, subprocess.SubprocessError) as error:
            code = 127 if isinstance(error, FileNotFoundError) else 126
            self.port.send(frames.STDERR, ident, f"agent: {error}\n".encode())
            self.finish(ident, code, timed_out=False)
            return
        self.commands[ident] = command
        for fd in (command.pidfd, *command.outputs):
            self.watch(command, fd, select.POLLIN)

    def watch(self, command: Command, fd: int, events: int) -> None:
        self.owners[fd] = command
        self.poll.register(fd, events)

    def unwatch(self, fd: int) -> None:
        if self.owners.pop(fd, None) is not None:
            self.poll.unregister(fd)

    def serve_command(self, command: Command, fd: int, events: int) -> None:
        if fd == command.pidfd:
            self.unwatch(fd)
            command.process.wait()
            command.exited = True
            command.deadline = time.monotonic() + LINGER
        elif fd == command.stdin:
            self.feed_stdin(command)
        else:
            self.read_output(command, fd)
        if command.exited and not command.outputs:
            self.end(command)

    def read_output(self, command: Command, fd: int) -> None:
        try:
            data = os.read(fd, frames.MAX_PAYLOAD)
        except BlockingIOError:
            return
        if data:
            self.port.send(command.outputs[fd], command.ident, data)
        else:
            self.unwatch(fd)
            del command.outputs[fd]

    def feed_stdin(self, command: Command) -> None:
        """Write what the pipe takes now; the rest when poll says that there is room."""
        if command.stdin is None:
            self.acknowledge(command, len(command.pending))
            return
        try:
            written = os.write(command.stdin, command.pending) if command.pending else 0
        except BlockingIOError:
            written = 0
        except OSError:  # nobody reads it any more: swallow what comes
            written, command.stdin_closing = len(command.pending), True
        self.acknowledge(command, written)
        self.unwatch(command.stdin)
        if command.pending:
            self.watch(command, command.stdin, select.POLLOUT)
        elif command.stdin_closing:
            assert command.process.stdin
            command.process.stdin.close()
            command.stdin = None

    def acknowledge(self, command: Command, count: int) -> None:
        del command.pending[:count]
        if count:
            self.port.send(frames.STDIN_DONE, command.ident, count.to_bytes(4, "big"))

    def milliseconds_to_deadline(self) -> float | None:
        deadlines = [c.deadline for c in self.commands.values() if c.deadline is not None]
        if not deadlines:
            return None
        remaining: float = min(deadlines) - time.monotonic()
        return max(0.0, remaining * 1000 + 1)

    def enforce_deadlines(self) -> None:
        now = time.monotonic()
        for command in list(self.commands.values()):
            if command.deadline is None or command.deadline > now:
                continue
            if command.exited:  # somebody else still holds its pipes
                self.end(command)
            else:
                command.timed_out = True
                command.deadline = None
                command.signal(signal.SIGKILL)

    def end(self, command: Command) -> None:
        for fd in (command.stdin, command.pidfd, *command.outputs):
            if fd is not None:
                self.unwatch(fd)
        del self.commands[command.ident]
        command.close()
        self.finish(command.ident, command.process.returncode, timed_out=command.timed_out)

    def finish(self, ident: int, code: int, *, timed_out: bool) -> None:
        payload = json.dumps({"code": code, "timed_out": timed_out}).encode()
        self.port.send(frames.EXIT, ident, payload)


if __name__ == "__main__":
    Agent().serve()
