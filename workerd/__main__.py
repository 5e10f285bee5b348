"""workerd: arguments, logging, directories; then workerd.daemon takes over."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib.util
import logging
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

try:
    import fcntl

    from workerd import __version__, daemon, journal
    from workerd.errors import ConfigError, WorkerError
    from workerd.protocol import DEFAULT_SOCKET
    from workerd.supervisor import Place
except ModuleNotFoundError as error:  # installed for workerctl alone, perhaps on another system
    sys.exit(
        f"workerd: Python's module {error.name} is not there. workerd runs on Linux, installed with make install, "
        "the Debian package or pip install 'worker-jobs[daemon]'; this is perhaps workerctl alone"
    )

log = logging.getLogger("workerd")


def argument_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="workerd",
        description="Runs commands as limited, isolated jobs. Without systemd, for development: "
        "workerd --socket /tmp/worker/sock --state-dir /tmp/worker/state --runtime-dir /tmp/worker/run "
        "--cgroup /sys/fs/cgroup/unified/w --allow-missing-controllers",
    )
    add = parser.add_argument
    add("--socket", default=DEFAULT_SOCKET, metavar="PATH", help="where clients connect (default: %(default)s)")
    add("--state-dir", default="/var/lib/workerd", metavar="DIR", help="jobs and their output (default: %(default)s)")
    add("--runtime-dir", default="/run/workerd", metavar="DIR", help="gone after a reboot (default: %(default)s)")
    add("--cgroup", metavar="PATH", help="the delegated cgroup (default: that of workerd-jobs.service)")
    add("--config", metavar="FILE", help="the policy (default: /etc/workerd/workerd.toml, if it is there)")
    add("--check-config", action="store_true", help="say whether the policy is well-formed, and exit")
    add("--init", default=default_init(), metavar="FILE", help="the worker-init program (default: %(default)s)")
    add("--allow-missing-controllers", action="store_true", help="start on a host that cannot hold all limits")
    add("--stop-jobs-on-exit", action="store_true", help="SIGTERM ends the jobs too")
    add("--verbose", action="store_true", help="log more")
    add("--version", action="version", version=f"workerd {__version__}")
    return parser


def default_init() -> str:
    return str(Path(__file__).parent / "init" / "worker-init")


def main(argv: Sequence[str] | None = None) -> int:
    _fill_standard_descriptors()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # ignored, it would have the kernel reap our children
    arguments = argument_parser().parse_args(argv)
    _start_logging(verbose=arguments.verbose)
    try:
        loaded = daemon.load_config(arguments.config)
        if arguments.check_config:
            print("the configuration is well-formed")
            return 0
        with contextlib.ExitStack() as stack:
            settings = daemon.Settings(
                place=_make_place(arguments, stack),
                socket=arguments.socket,
                cgroup=arguments.cgroup,
                config=arguments.config,
                allow_missing_controllers=arguments.allow_missing_controllers,
                stop_jobs_on_exit=arguments.stop_jobs_on_exit,
            )
            return asyncio.run(daemon.serve(settings, loaded))
    except (WorkerError, OSError) as error:
        log.critical("%s", error)
        return 1


def _fill_standard_descriptors() -> None:
    """Those of 0 to 2 that are closed become /dev/null, before a socket or a file of ours gets
    such a number: worker-init would have it as its standard input, output or error."""
    for fd, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDONLY if mode == "r" else os.O_WRONLY)  # the lowest free number: this one
            os.set_inheritable(fd, True)
            setattr(sys, name, open(fd, mode, closefd=False))  # None since Python was started so


def _start_logging(*, verbose: bool) -> None:
    """To the journal where stderr is that, with fields to find records by; else to stderr,
    without the lives of jobs unless `verbose`."""
    handler: logging.Handler
    if journal.is_stderr(os.environ.get("JOURNAL_STREAM")):
        handler = journal.JournalHandler()
    else:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("workerd: %(levelname)s: %(message)s"))
        if not verbose:
            logging.getLogger("workerd.jobs").setLevel(logging.WARNING)
    logging.basicConfig(level=logging.DEBUG if verbose else logging.INFO, handlers=[handler])
    logging.getLogger("asyncio").setLevel(logging.WARNING)


def _make_place(arguments: argparse.Namespace, stack: contextlib.ExitStack) -> Place:
    """The directories, and the lock that keeps a second daemon away from them."""
    os.umask(0o022)
    state, runtime = (os.path.realpath(path) for path in (arguments.state_dir, arguments.runtime_dir))
    for path, mode in ((state, 0o700), (f"{state}/jobs", 0o700), (runtime, 0o755), (f"{runtime}/jobs", 0o700)):
        os.makedirs(path, mode, exist_ok=True)
    fd = os.open(f"{state}/lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    stack.callback(os.close, fd)
    try:
        # Not flock(2): a child that a killed daemon was just starting would hold that too,
        # until it executes its program.
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError) as error:
        raise ConfigError(f"another workerd uses {state}", path=state, line=0) from error
    _check_installed(arguments.init)
    config = arguments.config or daemon.DEFAULT_CONFIG
    hidden = {os.path.dirname(daemon.DEFAULT_CONFIG), os.path.realpath(config), os.path.realpath(arguments.socket)}
    return Place(state, runtime, os.path.realpath(arguments.init), tuple(sorted(hidden)))


def _check_installed(init: str) -> None:
    """What is imported or started only when a job asks for it. Raises ConfigError."""
    if importlib.util.find_spec("pyroute2") is None:
        raise ConfigError("pyroute2 is not installed, for jobs' networks: pip install 'worker-jobs[daemon]'", line=0)
    if not os.access(init, os.X_OK):
        remedy = "build it (make init); or install again where there is a C compiler (pip: --no-cache-dir)"
        raise ConfigError(f"{init} is not there or not executable: {remedy}", line=0)


if __name__ == "__main__":
    sys.exit(main())
