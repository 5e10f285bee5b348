"""The serial console for a person: raw terminal, window size, and a way to leave."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import sys
import termios
import tty
from collections.abc import Iterator

from vmlib.errors import VMError
from vmlib.machine import Machine
from vmlib.notice import say
from vmlib.qemu import Qemu

KERNEL_ARGUMENT = "worker.console"  # starts the login on the console; see guest/rootfs
LEAVE = b"\x1d"  # Ctrl-]


def show(data: bytes) -> None:
    """Print what the guest's console says, as it is."""
    with contextlib.suppress(BrokenPipeError):
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()


@contextlib.contextmanager
def raw_terminal() -> Iterator[None]:
    """Hand every key to the guest; the terminal is as before afterwards, whatever happens."""
    if not sys.stdin.isatty():
        yield
        return
    before = termios.tcgetattr(sys.stdin)
    try:
        tty.setraw(sys.stdin)
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


def tell_size(machine: Machine) -> None:
    """Give the guest's terminal this terminal's size: a serial line has no other way."""
    columns, rows = shutil.get_terminal_size()
    with contextlib.suppress(VMError):
        machine.popen(["stty", "-F", "/dev/ttyS0", "rows", str(rows), "cols", str(columns)])


def attend(machine: Machine) -> None:
    """Connect this terminal to the started machine until Ctrl-], end of input, or its end."""
    assert machine.qemu
    say("the console; Ctrl-] leaves and ends the machine, so does `poweroff` in it")
    tell_size(machine)
    wake, woken = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    before = signal.signal(signal.SIGWINCH, lambda *_: None)
    # The handler does nothing: the wake-up fd ends the select, whose loop tells the size.
    previous = signal.set_wakeup_fd(woken, warn_on_full_buffer=False)
    try:
        with raw_terminal():
            machine.serial.write(b"\r")  # brings the prompt back, should it have been missed
            relay(machine, machine.qemu, wake)
    finally:
        signal.set_wakeup_fd(previous)
        signal.signal(signal.SIGWINCH, before)
        os.close(wake)
        os.close(woken)
    print(file=sys.stderr)


def relay(machine: Machine, qemu: Qemu, wake: int) -> None:
    while True:
        ready, _, _ = select.select([sys.stdin.fileno(), qemu.pidfd, wake], [], [])
        if qemu.pidfd in ready:
            return
        if wake in ready:
            os.read(wake, 4096)
            tell_size(machine)
        if sys.stdin.fileno() in ready:
            data = os.read(sys.stdin.fileno(), 4096)
            machine.serial.write(data.split(LEAVE)[0])
            if not data or LEAVE in data:
                return
