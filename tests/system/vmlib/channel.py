"""Commands in the guest, over the agent's port.

A thread reads the port for as long as qemu lives and hands each frame to its
command. Whoever waits for a command waits on the channel's one condition.
"""

from __future__ import annotations

import json
import signal
import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from vmlib import frames
from vmlib.errors import CommandFailed, MachineGone

Sink = Callable[[bytes], object]

GRACE_SECONDS = 60.0  # beyond a command's own timeout, which the guest enforces


@dataclass(frozen=True)
class Result:
    """How a command ended. A returncode below 0 is minus the signal's number."""

    argv: tuple[str, ...]
    returncode: int
    stdout: bytes
    stderr: bytes
    timed_out: bool = False

    @property
    def out(self) -> str:
        """stdout as text, without its last newline."""
        return self.stdout.decode(errors="replace").removesuffix("\n")

    @property
    def err(self) -> str:
        """stderr as text, without its last newline."""
        return self.stderr.decode(errors="replace").removesuffix("\n")

    def check(self) -> Result:
        """Itself, when the command succeeded. Raises CommandFailed with its output."""
        if self.returncode == 0 and not self.timed_out:
            return self
        how = "timed out" if self.timed_out else f"returned {self.returncode}"
        raise CommandFailed(f"{' '.join(self.argv)}: {how}\n{self.out}\n{self.err}".rstrip())


class Command:
    """A command under way. `output` and `errors` grow while it runs, unless sinks take them."""

    def __init__(self, channel: Channel, ident: int, argv: tuple[str, ...], timeout: float | None) -> None:
        self.channel = channel
        self.ident = ident
        self.argv = argv
        self.timeout = timeout
        self.output = bytearray()
        self.errors = bytearray()
        self.unacknowledged = 0
        self.exit: dict[str, int] | None = None

    def write(self, data: bytes) -> None:
        """Give it stdin; waits while it does not read. What it will not read is dropped."""
        view = memoryview(data)
        while view:
            part, view = view[: frames.MAX_PAYLOAD], view[frames.MAX_PAYLOAD :]
            with self.channel.changed:
                self.channel.changed.wait_for(lambda: self.is_over() or self.unacknowledged < frames.STDIN_WINDOW)
                if self.is_over():
                    return
                self.unacknowledged += len(part)
            self.channel.send(frames.STDIN, self.ident, bytes(part))

    def close_stdin(self) -> None:
        self.channel.send(frames.STDIN_CLOSE, self.ident)

    def signal(self, number: int) -> None:
        """Send a signal to its process group."""
        self.channel.send(frames.SIGNAL, self.ident, bytes([number]))

    def is_over(self) -> bool:
        return self.exit is not None or self.channel.gone is not None

    def wait_for_output(self, needle: bytes, seconds: float = 60.0) -> bytes:
        """Wait until its stdout holds `needle`; the stdout so far. Raises CommandFailed."""
        with self.channel.changed:
            self.channel.changed.wait_for(lambda: needle in self.output or self.is_over(), timeout=seconds)
            if needle in self.output:
                return bytes(self.output)
        raise CommandFailed(f"{' '.join(self.argv)}: no {needle!r} in {bytes(self.output)!r}")

    def wait(self) -> Result:
        """Wait for its end. Raises MachineGone."""
        limit = None if self.timeout is None else self.timeout + GRACE_SECONDS
        with self.channel.changed:
            self.channel.changed.wait_for(self.is_over, timeout=limit)
            if self.exit is None:
                reason = self.channel.gone or f"the agent says nothing after {limit:.0f} s"
                raise MachineGone(f"{' '.join(self.argv)}: {reason}")
            return Result(
                self.argv,
                self.exit["code"],
                bytes(self.output),
                bytes(self.errors),
                bool(self.exit["timed_out"]),
            )


class Channel:
    """The host's end of the agent's port. `gone` says why it has ended, else None."""

    def __init__(self, port: socket.socket) -> None:
        self.port = port
        self.changed = threading.Condition()
        self.sending = threading.Lock()
        self.commands: dict[int, tuple[Command, dict[int, Sink]]] = {}
        self.last_ident = 0
        self.boot_id: str | None = None
        self.gone: str | None = None
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()

    def start(
        self,
        argv: Sequence[str],
        *,
        env: dict[str, str] | None = None,
        cwd: str | None = None,
        user: str | None = None,
        timeout: float | None = None,
        stdout: Sink | None = None,
        stderr: Sink | None = None,
    ) -> Command:
        """Start a command; `timeout` in seconds, after which the guest kills it."""
        plan = {"argv": list(argv), "env": env or {}, "cwd": cwd, "user": user}
        payload = json.dumps(plan | {"timeout": timeout}).encode()
        with self.changed:
            self.last_ident += 1
            command = Command(self, self.last_ident, tuple(argv), timeout)
            sinks = {
                frames.STDOUT: stdout or command.output.extend,
                frames.STDERR: stderr or command.errors.extend,
            }
            self.commands[command.ident] = (command, sinks)
        self.send(frames.START, command.ident, payload)
        return command

    def send(self, kind: int, ident: int, payload: bytes = b"") -> None:
        try:
            with self.sending:
                self.port.sendall(frames.encode(kind, ident, payload))
        except OSError as error:
            raise MachineGone(self.gone or f"the machine has ended ({error})") from error

    def wait_hello(self, seconds: float) -> bool:
        """Wait for the agent's first word; whether it came."""
        end = time.monotonic() + seconds
        with self.changed:
            self.changed.wait_for(
                lambda: self.boot_id is not None or self.gone is not None,
                timeout=max(0.0, end - time.monotonic()),
            )
            return self.boot_id is not None and self.gone is None

    def read(self) -> None:
        decoder = frames.Decoder()
        reason = "the machine has ended"
        try:
            while data := self.port.recv(1 << 20):
                for kind, ident, payload in decoder.feed(data):
                    self.take(kind, ident, payload)
        except OSError as error:
            reason += f" ({error})"
        except frames.BadFrame as error:
            reason = f"the agent's stream is broken ({error})"
        with self.changed:
            self.gone = reason
            self.changed.notify_all()

    def take(self, kind: int, ident: int, payload: bytes) -> None:
        if kind in (frames.STDOUT, frames.STDERR):
            self.deliver(kind, ident, payload)
            return
        with self.changed:
            if kind == frames.HELLO:
                self.boot_id = json.loads(payload)["boot_id"]
            elif kind == frames.EXIT:
                command, _ = self.commands.pop(ident)
                command.exit = json.loads(payload)
            elif kind == frames.STDIN_DONE and ident in self.commands:
                self.commands[ident][0].unacknowledged -= int.from_bytes(payload, "big")
            self.changed.notify_all()

    def deliver(self, kind: int, ident: int, payload: bytes) -> None:
        """Hand output to its sink, outside the lock: a sink may block (a slow terminal)."""
        command, sinks = self.commands[ident]
        try:
            sinks[kind](payload)
        except OSError:  # nobody reads it any more: the command is to learn it as usual
            sinks[kind] = len
            command.signal(signal.SIGPIPE)
        with self.changed:
            self.changed.notify_all()
