"""What --cluster and WORKER_CLUSTER may be: tls://HOST:PORT, or tcp:// to this machine. Pure.

Who reaches a scheduler can run programs as its workers' user on every machine, and plain
tcp lets everybody on the way do so: hence only to loopback, unless --insecure is said.
"""

from __future__ import annotations

from workerctl.options import UsageError

DEFAULT_PORT = 8786
"""Dask's"""
FORMS = "write tls://HOST:PORT, as tls://scheduler:8786"


def parse(text: str, *, insecure: bool = False) -> str:
    """The scheduler's address, complete. Raises UsageError."""
    scheme, middle, rest = text.partition("://")
    if not middle:
        raise UsageError(f"--cluster {text}: {FORMS}")
    if scheme not in ("tls", "tcp"):
        raise UsageError(f"--cluster {text}: {scheme} is not spoken here; {FORMS}")
    host, port = _split(rest)
    if not host or not (port.isascii() and port.isdecimal() and 0 < int(port) < 65536):
        raise UsageError(f"--cluster {text}: {FORMS}")
    if scheme == "tcp" and not insecure and not is_loopback(host):
        raise UsageError(
            f"--cluster {text}: plain tcp lets anybody on the way run programs on every machine; "
            "use tls://, or say --insecure where the network itself is safe"
        )
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{int(port)}"


def is_loopback(host: str) -> bool:
    """Whether it never leaves this machine. Names are not looked up."""
    import ipaddress

    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def host_of(address: str) -> str:
    """Of an address as Dask has it."""
    return _split(address.partition("://")[2])[0]


def _split(rest: str) -> tuple[str, str]:
    """(host without brackets, port)"""
    rest = rest.rstrip("/")
    if rest.startswith("["):
        host, bracket, port = rest[1:].partition("]")
        return (host if bracket else ""), port.removeprefix(":") or str(DEFAULT_PORT)
    host, _, port = rest.partition(":")
    return host, port or str(DEFAULT_PORT)
