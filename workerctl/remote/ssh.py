"""The ssh process to another machine: starting it, what it says, and why it ended.

All that ssh itself can do (keys, jump hosts, one connection for many commands) comes
from the user's own configuration of it.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # not signal: its enums cost 5 ms
import _thread
import os
import shlex
import subprocess
from _queue import Empty, SimpleQueue

from workerctl import stdio, threads
from workerd.errors import HostUnreachable

TYPE_CHECKING = False  # as typing has it, without its 9 ms
if TYPE_CHECKING:
    from typing import IO

    from workerctl.remote.address import Address

REMOTE_COMMAND = "workerctl dial-stdio"
SIGINT = 2
HELD_SECONDS = 2.0
"""so long what ssh says is held back, to stand in the error if it fails"""
MOST_HELD = 20
"""lines"""
MOST_LINE = 1 << 12
SSH_FAILED, NOT_FOUND, CANNOT_EXECUTE, WORKERCTL_FAILED = 255, 127, 126, 125
END_SECONDS = 2.0
"""for ssh to end by itself, once all is said"""


def command(address: Address) -> list[str]:
    """The user's ssh, as git has GIT_SSH_COMMAND; no terminal and no X11 over there."""
    words = shlex.split(os.environ.get("WORKER_SSH") or "ssh", posix=os.name == "posix")
    port = ["-p", str(address.port)] if address.port else []
    user = ["-l", address.user] if address.user else []
    return [*words, "-T", "-x", *port, *user, "--", address.host, REMOTE_COMMAND]


class Ssh:
    """Started at once. Raises HostUnreachable where there is no ssh."""

    def __init__(self, address: Address) -> None:
        self._address = address
        words = command(address)
        try:
            self._process = _spawn(words)
        except OSError as error:
            what = f"{words[0]} cannot be started ({error.strerror})"
            raise HostUnreachable(f"{what}: install an ssh client, or name one: WORKER_SSH") from error
        assert self._process.stdin and self._process.stdout and self._process.stderr
        self.writing: IO[bytes] = self._process.stdin
        self.reading: IO[bytes] = os.fdopen(os.dup(self._process.stdout.fileno()), "rb", buffering=1 << 16)
        self._process.stdout.close()
        self._said = Said(self._process.stderr)
        self._code: SimpleQueue[int] = SimpleQueue()
        threads.begin(lambda: self._code.put(self._process.wait()))

    def talk(self) -> None:
        """The other end answers: from now on what ssh says is shown as it comes."""
        self._said.release()

    def end(self) -> None:
        """Once `writing` is closed: waits a moment for ssh, then ends it."""
        self._wait()

    def abandon(self) -> None:
        """At once; by a signal on which it puts a terminal right that it was asking at."""
        self._process.terminate()
        self._wait()
        self.writing.close()
        self.reading.close()

    def failure(self) -> HostUnreachable:
        """Why it ended before the other end answered."""
        code, host = self._wait(), self._address
        self._said.wait_end(END_SECONDS)
        said = self._said.take()
        told = f": {said}" if said else ""
        if code == NOT_FOUND or (code != SSH_FAILED and "not found" in said):
            return HostUnreachable(
                f"workerctl is not installed on {host}{told}; install worker there, with workerctl in the PATH "
                f"that ssh has (see: ssh {host.host} command -v workerctl)"
            )
        if code == CANNOT_EXECUTE:
            return HostUnreachable(f"workerctl on {host} cannot be executed{told}")
        if code == WORKERCTL_FAILED and "no verb" in said:
            return HostUnreachable(f"the workerctl on {host} is too old for -H: upgrade worker there ({said})")
        if code == SSH_FAILED:
            return HostUnreachable(f"cannot reach {host}{told or ': ssh gave up without a word'}")
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        return HostUnreachable(f"`{REMOTE_COMMAND}` on {host} did not begin, {how}{told}")

    def loss(self) -> HostUnreachable:
        """Why it ended later. What it said was shown."""
        self._wait()
        self._said.wait_end(END_SECONDS)
        said = self._said.last
        told = f" ({said})" if said else ""
        return HostUnreachable(f"the connection to {self._address} was lost{told}; jobs there run on")

    def _wait(self) -> int:
        """Its exit code; it is about to end, or is made to."""
        try:
            code = self._code.get(timeout=END_SECONDS)
        except Empty:
            self._process.kill()
            code = self._code.get()
        self._code.put(code)  # for whoever asks next
        return code


def _spawn(words: list[str]) -> subprocess.Popen[bytes]:
    """Ctrl-C is for us and the job: ssh lives on, which it does where it finds the signal
    ignored. One that comes in this very moment is lost."""
    pipe = subprocess.PIPE
    if _thread.get_ident() != _main_thread():
        return subprocess.Popen(words, stdin=pipe, stdout=pipe, stderr=pipe, bufsize=0)
    before = _signal.signal(SIGINT, _signal.SIG_IGN)
    try:
        return subprocess.Popen(words, stdin=pipe, stdout=pipe, stderr=pipe, bufsize=0)
    finally:
        _signal.signal(SIGINT, before)


def _main_thread() -> int | None:
    import threading

    return threading.main_thread().ident


class Said:
    """What ssh says on stderr: held at first, since it may be the reason of a failure;
    shown after a while, since it may be what a person has to do now; then as it comes."""

    def __init__(self, stderr: IO[bytes]) -> None:
        self.last = ""
        """the last line"""
        self._stderr = stderr
        self._held: list[str] | None = []
        self._lock = _thread.allocate_lock()
        self._answered: SimpleQueue[None] = SimpleQueue()
        self._ended: SimpleQueue[None] = SimpleQueue()
        threads.begin(self._read)
        threads.begin(self._release)

    def release(self) -> None:
        self._answered.put(None)

    def take(self) -> str:
        """What was held, as one line; where that was shown already, the last of it."""
        with self._lock:
            held, self._held = self._held, []
        return "; ".join(line.strip() for line in held) if held else self.last

    def wait_end(self, seconds: float) -> None:
        """Until stderr has ended; another ssh that this one left behind may still have it."""
        try:
            self._ended.get(timeout=seconds)
            self._ended.put(None)
        except Empty:
            return

    def _release(self) -> None:
        try:
            self._answered.get(timeout=HELD_SECONDS)
        except Empty:
            pass
        with self._lock:
            held, self._held = self._held, None
            for line in held or ():
                _show(line)

    def _read(self) -> None:
        rest = b""
        try:
            while data := self._stderr.read(4096):
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    self._take_line(line)
                rest = rest[-MOST_LINE:]
        except (OSError, ValueError):
            pass  # the same end
        self._take_line(rest)
        self._stderr.close()
        self._ended.put(None)

    def _take_line(self, line: bytes) -> None:
        text = line.rstrip(b"\r").decode(errors="replace")
        if not text.strip():
            return
        with self._lock:
            self.last = text.strip()
            if self._held is None:
                _show(text)
            else:
                self._held = [*self._held[-MOST_HELD:], text]


def _show(line: str) -> None:
    from workerctl.escape import visible

    # In a raw terminal the cursor would stay in its column.
    end = "\r\n" if stdio.is_terminal(stdio.STDERR) else "\n"
    try:
        stdio.write_all(stdio.STDERR, (visible(line) + end).encode(errors="backslashreplace"))
    except OSError:
        return
