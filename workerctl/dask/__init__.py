"""Jobs on many machines, placed by Dask: `pip install 'worker-jobs[dask]'`.

    client ──▶ Dask scheduler ──▶ Dask worker ── Unix socket ──▶ workerd      on each machine
               (plugin)           (preload)

    address     what --cluster and WORKER_CLUSTER may be; pure
    ids         ids that carry the machine, `host/id`; pure
    resources   what a job takes of a machine, and a machine has; pure
    ledger      which command was begun where, and what became of it; pure
    plugin      the ledger in Dask's scheduler
    daemon      the machine's workerd, asked by many tasks at once
    machine     a Dask worker's side: what is free, and the calls that come from outside
    logs        a job's log, read for somebody who is not here
    command     the Dask task that is a command
    api         the Python API
    routes      the caller's side: which machine a call is for
    answers     the answers of many machines as one
    farlog      the caller's side of a log
    options     the options of `run` that only a cluster knows
    link        the command line's connection, in place of a socket
    preload     `dask worker … --preload workerctl.dask`

Nothing of placement, membership or failure detection is here: Dask does that. What is here
keeps a command from being begun twice, since Dask takes tasks to be repeatable.
"""

from __future__ import annotations

TYPE_CHECKING = False  # as typing has it, without its 9 ms
if TYPE_CHECKING:
    from workerctl.dask.api import CommandFailed, map, output, stop, submit
    from workerctl.dask.preload import dask_setup, dask_teardown

__all__ = ["CommandFailed", "dask_setup", "dask_teardown", "map", "output", "stop", "submit"]


def __getattr__(name: str) -> object:
    if name in ("dask_setup", "dask_teardown"):
        from workerctl.dask import preload

        return getattr(preload, name)
    if name in __all__:
        from workerctl.dask import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
