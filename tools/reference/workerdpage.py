"""workerd(8), from its argument parser and its units."""

from __future__ import annotations

import argparse

from tools.reference import roff
from tools.reference.release import DATE, VERSION
from workerd.__main__ import argument_parser

ABOUT = (
    "workerd runs commands as jobs for those who ask with workerctl(1): each in a cgroup with its limits and in "
    "namespaces of its own, as the user who asked. It decides and records; a job's first process, worker-init, "
    "moves its output into a log and writes its outcome to a file, so that both are complete whether or not the "
    "daemon runs.",
    "Under systemd it is workerd.service, with the socket workerd.socket. Jobs live in workerd-jobs.service, which "
    "does nothing but own their cgroups: restarting, stopping or upgrading workerd leaves them alone, while stopping "
    "workerd-jobs.service or worker.slice ends them. Reloading takes the policy over, workerd.toml(5).",
)
SIGNALS = {
    "SIGHUP": "Takes the policy over; where it is not well-formed, says so and keeps the one before.",
    "SIGTERM, SIGINT": "Ends the daemon. Jobs run on, unless it was started with --stop-jobs-on-exit.",
}
STATUS = {
    "0": "It was asked to end; or --check-config found the policy well-formed.",
    "1": "It could not start, or had to give up: the last line of its log says why.",
    "2": "The command line was wrong.",
}
ENVIRONMENT = {
    "LISTEN_FDS, LISTEN_PID, LISTEN_FDNAMES": "The socket that systemd hands over, sd_listen_fds(3).",
    "NOTIFY_SOCKET, WATCHDOG_USEC, WATCHDOG_PID": "Whom to tell that it serves and lives, sd_notify(3).",
    "JOURNAL_STREAM": "Where stderr is the journal, records have fields: JOB_ID, UID and others.",
}
FILES = {
    "/etc/workerd/workerd.toml": "The policy.",
    "/run/workerd/workerd.sock": "The socket: of root, and of the group worker, whose members may connect.",
    "/run/workerd/jobs": "What running jobs need until a reboot; where their outcome is written.",
    "/var/lib/workerd/state.db": "Jobs, as an SQLite database.",
    "/var/lib/workerd/jobs": "Each job's output and its index.",
}


def page() -> str:
    parser = argument_parser()
    made = roff.Page("workerd", 8, DATE, VERSION, "System Administration")
    made.section("Name")
    made.paragraph("workerd - the daemon that runs commands as limited, isolated jobs")
    made.section("Synopsis")
    made.synopsis("workerd", "[OPTIONS]")
    made.section("Description")
    for paragraph in ABOUT:
        made.paragraph(paragraph)
    made.section("Options")
    for action in parser._actions:
        _option(made, parser, action)
    for title, table in (("Signals", SIGNALS), ("Exit status", STATUS), ("Environment", ENVIRONMENT), ("Files", FILES)):
        made.section(title)
        for term, meaning in table.items():
            made.item(roff.escaped(term), meaning)
    made.section("Examples")
    made.paragraph("Without systemd, for development:")
    made.code(_development(parser.description or ""))
    made.paragraph("What happened to one job, in its own words:")
    made.code(["journalctl -u workerd JOB_ID=k3v9q2m7xd"])
    made.section("See also")
    made.paragraph("workerctl(1), workerd.toml(5), systemd.resource-control(5), journalctl(1)")
    return made.text()


def _option(made: roff.Page, parser: argparse.ArgumentParser, action: argparse.Action) -> None:
    text = (action.help or "") % {"default": action.default, "prog": parser.prog}
    if action.dest == "init":
        text = "the worker-init program (default: the one that came with workerd)"
    if action.dest == "version":
        text = "show the version, and exit"
    metavar = str(action.metavar or "") if action.nargs != 0 else ""
    made.item(roff.option(action.option_strings, metavar), text, bold=False)


def _development(description: str) -> list[str]:
    """The command of the description, an option a line."""
    command = description[description.index("workerd --socket") :]
    first, *options = command.split(" --")
    return [f"{first} \\", *(f"    --{one} \\" for one in options[:-1]), f"    --{options[-1]}"]
