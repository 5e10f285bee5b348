"""systemd and worker's units; where workerd will not stay up, its own last words."""

from __future__ import annotations

from workerctl.doctor import FAILED, OK, WARNING, Finding, Host

TYPE_CHECKING = False  # as typing has it, without its 9 ms
if TYPE_CHECKING:
    from collections.abc import Iterator

UNITS = ("workerd.socket", "workerd-jobs.service", "workerd.service")
LEAST = 252
FIELDS = "Id,LoadState,ActiveState,SubState,Result,UnitFileState,NRestarts,NeedDaemonReload"
DIRECTORIES = ("/usr/local/lib/systemd/system", "/usr/lib/systemd/system")
"""where make install and the package put units; the first that has one wins (systemd.unit(5)).
/etc, which goes before both, is the administrator's own."""


def check(host: Host) -> Iterator[Finding]:
    if not host.exists("/run/systemd/system"):
        remedy = "start workerd by hand, with --cgroup; or boot with systemd"
        yield Finding("systemd", WARNING, "does not run here", remedy)
        return
    yield _version(host)
    ran = host.run("systemctl", "show", f"--property={FIELDS}", *UNITS)
    if ran is None or ran[0] != 0:
        yield Finding("units", WARNING, "systemctl does not answer", "see: systemctl show workerd")
        return
    for block in ran[1].split("\n\n"):
        yield _unit(host, dict(line.partition("=")[::2] for line in block.splitlines()))
    yield from _installed_twice(host)


def _installed_twice(host: Host) -> Iterator[Finding]:
    found = [directory for directory in DIRECTORIES if host.exists(f"{directory}/workerd.service")]
    if len(found) > 1:
        said = f"in {' and '.join(found)}: the first counts"
        remedy = "uninstall one: make uninstall (PREFIX=… as it was installed), or apt remove worker-jobs; jobs end"
        yield Finding("installed twice", WARNING, said, remedy)


def _version(host: Host) -> Finding:
    ran = host.run("systemctl", "--version")
    words = ran[1].split() if ran else []
    number = words[1] if len(words) > 1 else ""
    if not number.isdecimal():
        return Finding("systemd", WARNING, "its version is not known", "see: systemctl --version")
    if int(number) < LEAST:
        return Finding("systemd", WARNING, f"version {number}", f"{LEAST} or newer is what worker is tried with")
    return Finding("systemd", OK, f"version {number}")


def _unit(host: Host, unit: dict[str, str]) -> Finding:
    name, state = unit.get("Id", "?"), f"{unit.get('ActiveState')} ({unit.get('SubState')})"
    if unit.get("LoadState") != "loaded":
        remedy = "install worker (its package, or make install), or: systemctl daemon-reload"
        return Finding(name, FAILED, f"is {unit.get('LoadState')}", remedy)
    if unit.get("NeedDaemonReload") == "yes":
        return Finding(name, WARNING, f"{state}; its file has changed", "systemctl daemon-reload")
    if unit.get("ActiveState") in ("active", "reloading"):
        if name == "workerd.service" and unit.get("UnitFileState") == "disabled":
            return Finding(name, WARNING, f"{state}, but not at the next boot", "systemctl enable workerd")
        return Finding(name, OK, state)
    words = _last_words(host, name)
    remedy = f"systemctl start {name.removesuffix('.service')}; then: journalctl -u {name}"
    failed = unit.get("ActiveState") in ("failed", "activating") or unit.get("Result") not in ("success", "", None)
    found = state + (f", {unit['Result']}" if failed and unit.get("Result") else "") + (f": {words}" if words else "")
    return Finding(name, FAILED, found, remedy)


def _last_words(host: Host, name: str) -> str:
    """Its newest line of warning or worse since the last boot."""
    ran = host.run("journalctl", "--quiet", "--boot", "-u", name, "-p", "warning", "-n", "1", "-o", "cat")
    return ran[1].splitlines()[-1][:200] if ran and ran[0] == 0 and ran[1] else ""
