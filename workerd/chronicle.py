"""The life of jobs in the log: that one began, and how it ended, with fields to find it by.

An observer of the registry's (`Registry.observers`). No command line nor environment is
logged: others than the job's user read the journal.
"""

from __future__ import annotations

import logging

from workerd.job import Job, State

log = logging.getLogger("workerd.jobs")


class Chronicle:
    """Call it with each job as it was committed; a state is told of once."""

    def __init__(self) -> None:
        self._states: dict[str, State] = {}

    def __call__(self, job: Job) -> None:
        before = self._states.get(job.id)
        if job.state is State.FINISHED:
            self._states.pop(job.id, None)
            _tell(job, job.ending)
        else:
            self._states[job.id] = job.state
            # What a daemon finds running when it starts was told of by the one before it.
            if job.state is State.RUNNING and before in (State.QUEUED, State.STARTING):
                _tell(job, "runs")


def _tell(job: Job, what: str) -> None:
    fields = {"JOB_ID": job.id, "UID": str(job.uid), "JOB_STATE": str(job.state)}
    if job.spec.name is not None:
        fields["JOB_NAME"] = job.spec.name
    if job.reason is not None:
        fields["JOB_REASON"] = str(job.reason)
    if job.exit_code is not None:
        fields["JOB_EXIT_CODE"] = str(job.exit_code)
    log.info("job %s of uid %d %s", job.id, job.uid, what, extra={"fields": fields})
