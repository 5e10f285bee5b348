"""The Python API: commands as Dask tasks.

    from distributed import Client
    from workerctl import dask as commands

    with Client("tls://scheduler:8786") as client:
        data = client.submit(prepare)                       # an ordinary task: gives a path
        sort = commands.submit(client, ["sort", "-o", "/srv/out", data], mem="2G", cpus=2)
        total = client.submit(len_of, sort)                 # an ordinary task of a command's Job
        print(sort.result().exit_code, total.result())

A command's Future gives a workerd.job.Job whose id is `machine/id`. Commands are kept by the
cluster until they end, whether or not the client stays.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import dask
import msgspec
from distributed import fire_and_forget

from workerctl.dask import ids, resources
from workerctl.dask.command import CommandFailed, run_command
from workerctl.dask.plugin import NAME
from workerctl.spec import ENV_PASSED
from workerd.errors import InvalidParams
from workerd.job import JobSpec
from workerd.units import parse_size

if TYPE_CHECKING:
    from distributed import Client, Future

    from workerctl.dask.daemon import Plain

__all__ = ["CommandFailed", "map", "output", "stop", "submit"]

Words = Sequence[Any]
"""text, numbers, paths, and Futures of such"""


def submit(
    client: Client,
    argv: Words,
    *,
    mem: int | str | None = None,
    cpus: float | None = None,
    cwd: str = "/",
    env: dict[str, str] | None = None,
    after: Iterable[Future] = (),
    need: dict[str, float] | None = None,
    check: bool = False,
    retries: int = 0,
    priority: int = 0,
    **spec: Any,
) -> Future:
    """A Future of the command's Job, however it ends; with `check`, of one that succeeded
    (else CommandFailed, and what depends on it fails too).

    `mem` is in bytes, or as "2G"; `need` are Dask resources that the machine is to have free
    beside these limits, as {"GPU": 1}. Each of `after` is done first, and has not failed.
    `retries` is how often it may be run again: where its machine is lost and, with `check`,
    where it fails. `spec` are further fields of JobSpec. Raises InvalidParams.
    """
    request = request_of(mem=mem, cpus=cpus, cwd=cwd, env=env, **spec)
    return submit_request(
        client, request, argv, after=after, need=need, check=check, retries=retries, priority=priority
    )


def map(client: Client, commands: Iterable[Words], **options: Any) -> list[Future]:
    """`submit` for each, all with the same options."""
    return [submit(client, argv, **options) for argv in commands]


def stop(client: Client, future: Future) -> None:
    """Stop the job, or take the command back where it is not begun yet."""
    from workerctl.dask.routes import Routes

    routes = Routes(client)
    client.sync(routes.call, "job.stop", {"id": client.sync(routes.known, future)})


def output(client: Client, job: str | Future) -> Iterator[bytes]:
    """What the job wrote, both streams as they came, piece by piece from the machine that
    has it; to its end, which may be yet to come. A job is `machine/id`, or its Future."""
    from workerctl.dask.routes import Routes

    routes = Routes(client)
    job_id = job if isinstance(job, str) else client.sync(routes.known, job)
    offset, finished = 0, False
    while not finished:
        now = client.sync(routes.call, "output.wait", {"id": job_id, "offset": offset})
        while offset < now["end"]:
            begin, data = client.sync(routes.read_log, job_id, {"what": "read", "offset": offset, "length": 1 << 20})
            if not data and begin <= offset:
                break
            offset = begin + len(data)
            yield data
        finished = now["finished"]


def request_of(
    *, mem: int | str | None, cpus: float | None, cwd: str, env: dict[str, str] | None, **spec: Any
) -> Plain:
    """job.run's parameters, checked here so that a mistake is told at once. Raises InvalidParams."""
    limits = dict(spec.pop("limits", None) or {})
    try:
        if mem is not None:
            limits["memory"] = parse_size(mem) if isinstance(mem, str) else mem
        if cpus is not None:
            limits["cpus"] = float(cpus)
        made = msgspec.convert({"argv": ["-"], "cwd": cwd, "limits": limits, **spec}, JobSpec)
    except ValueError as error:  # msgspec.ValidationError is one
        raise InvalidParams(str(error)) from error
    environment = {name: os.environ[name] for name in ENV_PASSED if name in os.environ} if env is None else env
    return {"spec": msgspec.to_builtins(made), "env": environment}


def submit_request(
    client: Client,
    request: Plain,
    argv: Words,
    *,
    after: Iterable[Future] = (),
    need: dict[str, float] | None = None,
    check: bool = False,
    retries: int = 0,
    priority: int = 0,
) -> Future:
    """As `submit`, with job.run's parameters."""
    if not argv:
        raise InvalidParams("the command is empty: name a program to run")
    key = ids.KEY_PREFIX + secrets.token_hex(8)
    takes = {**resources.wanted(request["spec"]), **(need or {})}
    shown = [str(word) if isinstance(word, (str, int, float)) else "…" for word in argv]
    asked = {
        "spec": {**request["spec"], "argv": shown},
        "created": time.time_ns() // 1000,
        "uid": os.getuid(),
        "retries": retries,
        "check": check,
        "resources": takes,
    }
    with dask.annotate(**{NAME: asked}):
        future = client.submit(
            run_command,
            key,
            {**request, "check": check},
            list(argv),
            list(after),
            key=key,
            pure=False,
            retries=retries or None,
            resources=takes,
            priority=priority,
        )
    fire_and_forget(future)  # whoever leaves loses nothing
    return future
