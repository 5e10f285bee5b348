"""`dask worker tls://… --preload workerctl.dask [--workerd-socket PATH] [--insecure]`.

The worker's machine joins: it announces what is free there, and takes commands. Where that
cannot be, the worker ends, and says why: a worker without a workerd would be sent nothing.
"""

from __future__ import annotations

import logging
import socket
from typing import TYPE_CHECKING

import click
import dask
from distributed.protocol.pickle import dumps

from workerctl.dask import address, ids, machine, plugin
from workerctl.dask.machine import Machine
from workerd.errors import WorkerError

if TYPE_CHECKING:
    from distributed import Worker

log = logging.getLogger("distributed.workerctl")


@click.command()
@click.option("--workerd-socket", default=None, help="workerd's socket [$WORKERD_SOCKET or the system's]")
@click.option("--insecure", is_flag=True, default=False, help="allow plain tcp beyond this machine")
async def dask_setup(worker: Worker, workerd_socket: str | None, insecure: bool) -> None:
    """Called by Dask before the worker joins."""
    try:
        await _join(worker, workerd_socket, insecure=insecure or bool(dask.config.get("workerctl.insecure", False)))
    except (WorkerError, ValueError) as error:
        log.critical("this machine cannot run commands: %s", error)
        raise SystemExit(1) from error


async def _join(worker: Worker, workerd_socket: str | None, *, insecure: bool) -> None:
    for end in (worker.scheduler.address, worker.address):
        if not (insecure or end.startswith(("tls://", "inproc://")) or address.is_loopback(address.host_of(end))):
            raise ValueError(f"{end} is plain tcp beyond this machine: use tls://, or say --insecure")
    name = ids.machine_name(worker.name, worker.address, socket.gethostname())
    worker.name = name  # Dask lets no two workers have the same
    made = Machine(worker, name, workerd_socket)
    await made.start()
    pickled = dumps(plugin.ClusterPlugin())
    await worker.scheduler.register_scheduler_plugin(plugin=pickled, name=plugin.NAME, idempotent=True)
    log.info("machine %s: commands run through workerd at %s", name, made.daemon.path)


async def dask_teardown(worker: Worker) -> None:
    """Jobs run on under workerd."""
    if (made := machine.of(worker)) is not None:
        made.close()
