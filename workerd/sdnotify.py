"""What systemd and the daemon tell each other (sd_notify(3), sd_listen_fds(3))."""

from __future__ import annotations

import os
import socket
import time

_FIRST_FD = 3


def notify(message: str) -> bool:
    """Send one state, such as READY=1; False where no manager listens."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return False
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        try:
            sock.sendto(message.encode(), socket.MSG_DONTWAIT, address)
        except OSError:
            return False
    return True


def notify_reloading() -> None:
    """Type=notify-reload wants the time as well (sd_notify(3))."""
    notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")


def watchdog_interval() -> float | None:
    """Seconds between two WATCHDOG=1, half of what is allowed; None without one."""
    usec = os.environ.get("WATCHDOG_USEC", "")
    if not usec.isdigit() or os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    return int(usec) / 2_000_000


def listen_socket() -> socket.socket | None:
    """The listening socket that systemd handed over, or None. Can be called once."""
    pid, count = os.environ.pop("LISTEN_PID", ""), os.environ.pop("LISTEN_FDS", "")
    os.environ.pop("LISTEN_FDNAMES", None)
    if pid != str(os.getpid()) or count != "1":
        return None
    sock = socket.socket(fileno=_FIRST_FD)
    sock.set_inheritable(False)
    return sock
