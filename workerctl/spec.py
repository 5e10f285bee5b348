"""From the options of `run` to the JobSpec and environment that workerd takes.

Plain JSON values: fields that were not asked for are left out, for the daemon to
fill. Whatever is wrong is said here with the option's name; the daemon checks
again. Paths become absolute here, since only the client knows from where; so it asks
the machine where the job is to run.
"""

from __future__ import annotations

import os
import posixpath

from workerctl.machine import machine
from workerctl.options import UsageError
from workerctl.wire import far

TYPE_CHECKING = False  # as typing has it, without its 9 ms
if TYPE_CHECKING:
    from typing import Any

    from workerctl.options import Args

ENV_PASSED = ("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "TZ", "TERM")
ENV_OF_ACCOUNT = ("HOME", "USER", "LOGNAME", "SHELL")
NETS = ("none", "bridge", "host")
MOUNTS = ("rw", "ro", "bind", "tmpfs")
WAITING = ("after", "at", "delay", "priority", "no-queue")
MAX_NAME = 64
MAX_LABEL = 256


def run_params(args: Args) -> dict[str, Any]:
    """The parameters of job.run. Raises UsageError."""
    spec: dict[str, Any] = {"argv": argv(args.words), "cwd": workdir(args), "umask": machine().umask()}
    if (name := args.text("name")) is not None:
        spec["name"] = job_name(name)
    if (hostname := args.text("hostname")) is not None:
        spec["hostname"] = host_name(hostname)
    if (net := args.text("net")) is not None:
        if net not in NETS:
            raise UsageError(f"--net {net}: choose none, bridge or host")
        spec["net"] = net
    if labels := args.texts("label"):
        spec["labels"] = {key: value or "" for key, value in map(label_pair, labels)}
    if args.has("publish"):
        spec.setdefault("net", "bridge")
        if spec["net"] != "bridge":
            raise UsageError(f"--publish needs --net bridge, not --net {spec['net']}")
        spec["publish"] = [published(text) for text in args.texts("publish")]
    _files(args, spec)
    _rank(args, spec)
    _ending(args, spec)
    from workerctl.limits import limits

    if found := limits(args):
        spec["limits"] = found
    params = {"spec": spec, "env": environment(args)}
    if any(args.has(option) for option in WAITING):
        from workerctl.waiting import priority_of, waiting_params

        params |= waiting_params(args)
        if (priority := args.text("priority")) is not None:
            spec["priority"] = priority_of(priority)
    return params


def argv(words: list[str]) -> list[str]:
    if not words:
        raise UsageError("run what? Write: workerctl run [OPTIONS] [--] COMMAND [ARGUMENT…]")
    if not words[0]:
        raise UsageError("the command is an empty word; a shell variable may be unset")
    for number, word in enumerate(words):
        text_only(word, f"argument {number}" if number else "the command")
    return words


def text_only(text: str, what: str) -> str:
    """Raises UsageError where bytes of the command line were not UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UsageError(f"{what} is not UTF-8, and workerd takes nothing else: {text}") from None
    return text


def absolute(path: str, what: str) -> str:
    """As the caller means it, with symbolic links resolved: workerd follows none
    on the way to a mount, and a `..` after a link would be somewhere else."""
    if not path:
        raise UsageError(f"{what}: the path is empty")
    try:
        return machine().real(text_only(path, what))
    except OSError as error:
        raise UsageError(f"{what} {path}: {error.strerror}") from error


def inside(path: str, args: Args, what: str) -> str:
    """A path as the job will see it: another root's is taken as written."""
    if not args.has("rootfs"):
        return absolute(path, what)
    if not path.startswith("/"):
        raise UsageError(f"{what} {path}: with --rootfs this path begins with /")
    return posixpath.normpath(text_only(path, what))


def workdir(args: Args) -> str:
    given = args.text("workdir")
    if given is not None:
        return inside(given, args, "--workdir")
    if args.has("rootfs"):
        return "/"
    try:
        return text_only(machine().directory(), "the current directory's name")
    except FileNotFoundError:
        raise UsageError("the current directory is gone; say where to run: --workdir DIR") from None


def job_name(name: str) -> str:
    plain = name.replace("_", "a").replace(".", "a").replace("-", "a")
    if not (plain.isascii() and plain.isalnum() and name[0].isalnum() and len(name) <= MAX_NAME):
        raise UsageError(
            f"--name {name}: a name has letters, digits, dot, dash and underscore, "
            f"begins with a letter or digit, and is at most {MAX_NAME} long"
        )
    return name


def label_pair(text: str, option: str = "--label") -> tuple[str, str | None]:
    """KEY=VALUE, or KEY alone."""
    key, equals, value = text_only(text, option).partition("=")
    plain = key
    for sign in "_.-/":
        plain = plain.replace(sign, "a")
    if not (plain.isascii() and plain.isalnum() and key[0].isalnum() and key[-1].isalnum() and len(key) <= MAX_NAME):
        raise UsageError(
            f"{option} {text}: write KEY or KEY=VALUE; a key has letters, digits and . - _ / between them, "
            f"{MAX_NAME} at most"
        )
    if len(value) > MAX_LABEL:
        raise UsageError(f"{option} {key}: a value has at most {MAX_LABEL} characters")
    return key, value if equals else None


def label_filter(texts: list[str]) -> dict[str, str | None]:
    """What a job must have: None is any value."""
    return dict(label_pair(text) for text in texts)


def host_name(name: str) -> str:
    plain = name.replace(".", "a").replace("-", "a")
    if not (plain.isascii() and plain.isalnum() and name[0].isalnum() and name[-1].isalnum() and len(name) <= MAX_NAME):
        raise UsageError(f"--hostname {name}: a host name has letters, digits, dot and dash, and at most {MAX_NAME}")
    return name


def published(text: str) -> dict[str, Any]:
    """HOST:JOB[/tcp|/udp], two port numbers."""
    ports, slash, protocol = text.partition("/")
    host, colon, job = ports.partition(":")
    numbers = [int(part) if part.isascii() and part.isdecimal() and len(part) < 6 else 0 for part in (host, job)]
    if not colon or not all(0 < number < 65536 for number in numbers) or (slash and protocol not in ("tcp", "udp")):
        raise UsageError(f"--publish {text}: write HOST:JOB or HOST:JOB/udp, with ports from 1 to 65535")
    found: dict[str, Any] = {"host": numbers[0], "job": numbers[1]}
    return {**found, "protocol": "udp"} if protocol == "udp" else found


def environment(args: Args) -> dict[str, str]:
    """What the command gets: a few of the caller's variables, all with --env-all, and those named."""
    if args.has("env-all") and far() is not None:
        raise UsageError("--env-all with -H: what is set here is not meant for there; name what is: -e NAME")
    env = {}
    for name, value in machine().environment().items():
        if args.has("user") and name in ENV_OF_ACCOUNT:
            continue  # workerd knows that account's
        if args.has("env-all") or name in ENV_PASSED or name.startswith("LC_"):
            try:
                (name + value).encode()
            except UnicodeEncodeError:
                continue  # nobody asked for this very variable
            env[name] = value
    if args.has("tty") and "TERM" in os.environ:
        env["TERM"] = os.environ["TERM"]
    return {**env, **named_environment(args)}


def named_environment(args: Args) -> dict[str, str]:
    """What --env names, with its values."""
    env = {}
    for given in args.texts("env"):
        name, equals, value = given.partition("=")
        if not name:
            raise UsageError(f"--env {given}: write NAME=VALUE, or NAME to pass on your own")
        if not equals:
            if name not in os.environ:
                raise UsageError(f"--env {name}: there is no such variable here; write {name}=VALUE")
            value = os.environ[name]
        env[text_only(name, f"--env {name}")] = text_only(value, f"the value of --env {name}")
    return env


def _rank(args: Args, spec: dict[str, Any]) -> None:
    """What only admins may ask for; the daemon says whether the caller is one."""
    if (user := args.text("user")) is not None:
        spec["user"] = text_only(user, "--user")
        if not user:
            raise UsageError("--user: the name is empty")
    if names := args.texts("cap-add"):
        spec["cap_add"] = [text_only(name, "--cap-add") for given in names for name in given.split(",") if name]
    profile = args.text("seccomp-profile")
    if profile not in (None, "default", "off"):
        raise UsageError(f"--seccomp-profile {profile}: choose default or off")
    if profile == "off":
        spec["seccomp"] = False


def _files(args: Args, spec: dict[str, Any]) -> None:
    if (rootfs := args.text("rootfs")) is not None:
        spec["rootfs"] = absolute(rootfs, "--rootfs")
    if args.has("read-only"):
        spec["read_only"] = True
    mounts = [_mount(kind, value, args) for kind, value in args.order if kind in MOUNTS]
    if mounts:
        spec["mounts"] = mounts


def _mount(kind: str, value: str, args: Args) -> dict[str, Any]:
    if kind in ("rw", "ro"):
        return {"kind": kind, "target": inside(value, args, f"--{kind}")}
    if kind == "tmpfs":
        target, colon, size = value.partition(":")
        mount: dict[str, Any] = {"kind": kind, "target": inside(target, args, "--tmpfs")}
        if colon:
            from workerctl.limits import size_of

            mount["size"] = size_of(size, f"--tmpfs {target}, size")
        return mount
    source, _, rest = value.partition(":")
    target, colon, mode = rest.partition(":")
    if not source or not target or (colon and mode not in ("ro", "rw")):
        raise UsageError(f"--bind {value}: write SOURCE:TARGET or SOURCE:TARGET:ro")
    return {
        "kind": "bind-ro" if mode == "ro" else "bind",
        "source": absolute(source, "--bind"),
        "target": inside(target, args, "--bind"),
    }


def _ending(args: Args, spec: dict[str, Any]) -> None:
    _time_limits(args, spec)
    if (restart := args.text("restart")) is not None:
        spec["restart"] = _restart(restart)
    if args.has("rm"):
        spec["remove"] = True
    if (output := args.text("max-output")) is not None:
        from workerctl.limits import size_of

        spec["max_output"] = size_of(output, "--max-output")
    if (signal := args.text("stop-signal")) is not None:
        from workerctl.signals import number

        spec["stop_signal"] = number(signal, "--stop-signal")
    if (grace := args.text("grace")) is not None:
        from workerctl.limits import grace_of

        spec["grace"] = grace_of(grace, "--grace")


def _time_limits(args: Args, spec: dict[str, Any]) -> None:
    for option, field in (("timeout", "timeout"), ("cpu-time", "cpu_time")):
        if (text := args.text(option)) is not None:
            from workerctl.limits import duration_of

            spec[field] = duration_of(text, f"--{option}")
            if not spec[field]:
                raise UsageError(f"--{option} {text}: no time at all cannot work; for no limit, leave --{option} out")
    if (action := args.text("on-timeout")) is not None:
        if action not in ("stop", "pause"):
            raise UsageError(f"--on-timeout {action}: choose stop or pause")
        if "timeout" not in spec and "cpu_time" not in spec:
            raise UsageError("--on-timeout says what happens when time is over; give --timeout or --cpu-time as well")
        spec["on_timeout"] = action


def _restart(text: str) -> dict[str, Any]:
    when, colon, limit = text.partition(":")
    if when not in ("never", "on-failure", "always") or (colon and not (limit.isascii() and limit.isdecimal())):
        raise UsageError(f"--restart {text}: write never, on-failure, always, or with the most tries, as on-failure:5")
    if colon and not 1 <= int(limit) < 2**63:
        raise UsageError(f"--restart {text}: {limit} tries; for none, leave --restart out")
    return {"when": when, "limit": int(limit)} if colon else {"when": when}
