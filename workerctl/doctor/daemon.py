"""workerd itself, as it answers: its version and what it can limit."""

from __future__ import annotations

from workerctl.doctor import FAILED, OK, WARNING, Finding, Host
from workerd import __version__

TYPE_CHECKING = False  # as typing has it, without its 9 ms
if TYPE_CHECKING:
    from collections.abc import Iterator


def check(host: Host) -> Iterator[Finding]:
    from workerctl.wire import Connection
    from workerd.errors import NotRunning, WorkerError

    try:
        with Connection(host.socket) as connection:
            info = connection.call("daemon.info", {})
    except NotRunning:
        remedy = f"mend what failed above; then: {host.start()}"
        yield Finding("workerd", FAILED, f"is not running: nobody listens on {host.socket}", remedy)
        return
    except WorkerError as error:
        said, _, advice = str(error).partition(": ")
        yield Finding("workerd", FAILED, said, advice or "mend what failed above; then: systemctl restart workerd")
        return
    if info["version"] != __version__:
        found = f"version {info['version']}, and workerctl is {__version__}"
        yield Finding("workerd", WARNING, found, "systemctl restart workerd (jobs run on)")
    else:
        yield Finding("workerd", OK, f"version {info['version']}, answers")
    if missing := info.get("missing_controllers"):
        remedy = "see the controllers above; a job that asks for one of these is refused"
        yield Finding("limits", WARNING, f"cannot limit: {', '.join(missing)}", remedy)
    else:
        yield Finding("limits", OK, f"{', '.join(info['controllers'])}")
    yield Finding(
        "jobs", OK, f"{info['jobs_live']} live, {info['jobs_queued']} waiting, {info['jobs_finished']} finished"
    )
