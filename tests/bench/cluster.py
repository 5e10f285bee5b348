"""What Dask adds to a job: `workerctl.dask.submit` beside the socket of the very machine, by
turns, and how many jobs a second two machines take, with their scheduler on the same two
processors. No goal: a cluster is for jobs that last.
"""

from __future__ import annotations

import importlib.util
import time

from tests.bench.figures import by_turns, leave_out, show
from tests.host.daemon import ENV
from workerctl import Client
from workerd.job import JobSpec

ROUNDS = 40
JOBS = 200
MACHINES = {"alpha": "", "beta": ""}


def run() -> None:
    if importlib.util.find_spec("distributed") is None:
        leave_out("cluster: distributed is not installed (pip install 'worker-jobs[dask]')")
        return
    import distributed

    from tests.host.cluster import cluster
    from workerctl import dask as commands

    with cluster(MACHINES) as made, distributed.Client(made.address, set_as_default=False) as dask:
        with Client(str(made.daemons["alpha"].socket)) as local:

            def through_dask() -> list[float]:
                begin = time.perf_counter()
                assert commands.submit(dask, ["true"]).result().exit_code == 0
                return [(time.perf_counter() - begin) * 1000]

            def by_the_socket() -> list[float]:
                begin = time.perf_counter()
                job_id = local.run(JobSpec(argv=("true",), cwd="/"), env=ENV).id
                assert local.wait([job_id]).finished[0].exit_code == 0
                return [(time.perf_counter() - begin) * 1000]

            cases = {"the machine's socket": by_the_socket, "through Dask": through_dask}
            show("one job, asked for to its end seen", by_turns(cases, ROUNDS), "the machine's socket")

        def many() -> list[float]:
            begin = time.perf_counter()
            dask.gather(commands.map(dask, [["true"]] * JOBS))
            return [(time.perf_counter() - begin) * 1000 / JOBS]

        show(f"{JOBS} jobs on two machines, per job", by_turns({"through Dask": many}, 3), "through Dask")
