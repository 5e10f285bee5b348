"""The RPC's methods by which a person works in a job: its terminal, further commands."""

from __future__ import annotations

from workerd import protocol
from workerd.errors import Exhausted, WrongState
from workerd.execution import Executor
from workerd.job import Job
from workerd.registry import Registry
from workerd.service import Answer, Call, Handler
from workerd.supervisor import Supervisor


class TtyMethods:
    def __init__(self, supervisor: Supervisor, executor: Executor) -> None:
        self._supervisor = supervisor
        self._registry: Registry = supervisor.registry
        self._executor = executor
        self.handlers: dict[str, Handler] = {
            "tty.attach": self._attach,
            "tty.resize": self._resize,
            "job.exec": self._exec,
        }

    async def _attach(self, call: Call) -> Answer:
        job = await self._find(call)
        fd = self._supervisor.files(job.id).open_typing()
        if fd is None:
            raise _not_running(job)
        return Answer(protocol.AttachResult(job.id), (fd,))

    async def _resize(self, call: Call) -> Answer:
        job = await self._find(call)
        window: protocol.Window = call.params.window
        try:
            if not self._supervisor.files(job.id).resize(window.rows, window.columns):
                raise _not_running(job)
        except BlockingIOError as error:
            raise Exhausted(f"job {job.id} does not take its orders; stop it", id=job.id) from error
        return Answer(protocol.ResizeResult(job.id))

    async def _exec(self, call: Call) -> Answer:
        fds = await self._executor.execute(call.peer, call.params, call.fds)
        return Answer(protocol.ExecResult(call.params.id, len(fds)), fds)

    async def _find(self, call: Call) -> Job:
        job = await self._registry.find(call.peer, call.params.id)
        if not job.spec.tty:
            message = f"job {job.id} has no terminal: it was started without -t; see: workerctl out -f {job.id}"
            raise WrongState(message, id=job.id, state=job.state)
        return job


def _not_running(job: Job) -> WrongState:
    return WrongState(f"job {job.id} is {job.state}: nothing can be typed into it", id=job.id, state=job.state)
