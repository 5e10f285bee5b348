"""The caller's side of the cluster: each method of workerd's, done on the machine it is for.

Takes and gives what one workerd would, with ids as `machine/id`. Runs on the Dask client's
event loop, and reaches machines through the scheduler alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar

from workerctl.dask import answers, ids, resources
from workerctl.dask.api import submit_request
from workerctl.dask.command import lost_job
from workerctl.dask.daemon import Plain, error_of
from workerd.errors import AmbiguousId, ConnectionFailed, InvalidParams, NoSuchJob, PolicyExceeded, WrongState

if TYPE_CHECKING:
    from distributed import Client, Future

PLACE_SECONDS = 1.0
"""for which `run` waits for a machine before it says that the command waits for one"""
T = TypeVar("T")
PAUSE = 0.2
ASK_SECONDS = 30.0
"""after which a question that waits is asked again"""
ONE_JOB = frozenset(
    {
        *("job.status", "job.stop", "job.kill", "job.pause", "job.resume", "job.update", "job.rerun"),
        *("job.rename", "job.remove", "output.wait", "output.read"),
    }
)
NO_PLUGIN = "no machine of this cluster runs commands: start its Dask workers with --preload workerctl.dask"


class NoMachines(ConnectionFailed):
    """None that runs commands."""


class Routes:
    """`note` is told what the caller should know beside the answers. Calls raise WorkerError."""

    def __init__(
        self, client: Client, note: Callable[[str], None] = lambda _: None, seen: set[str] | None = None
    ) -> None:
        self._client = client
        self._seen = set() if seen is None else seen
        """machines that were there once: they are waited for, through a restart of the scheduler"""
        self._note = note
        self._futures: dict[str, Future] = {}
        """by key: the commands that were begun through here"""
        self._keys: dict[str, str] = {}
        """by the jobs' ids"""

    async def patiently(self, work: Callable[[], Awaitable[T]]) -> T:
        """`work`, again while a scheduler that was restarted has no machines back yet."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + ASK_SECONDS
        while True:
            try:
                return await work()
            except NoMachines:
                if not self._seen or loop.time() > deadline:
                    raise
            await asyncio.sleep(PAUSE)

    async def call(self, method: str, params: Plain) -> Plain:
        return await self.patiently(lambda: self._call(method, params))

    async def _call(self, method: str, params: Plain) -> Plain:
        if method == "job.run":
            return await self._run(params)
        if method == "job.wait":
            return await self._wait(params)
        if method == "job.list":
            return await answers.listed(self, params)
        if method in ONE_JOB:
            return await self._of_one(method, params)
        raise InvalidParams(f"{method} is about one machine: log in there (ids say where a job is: machine/id)")

    async def read_log(self, ref: str, question: Plain) -> Any:
        """What workerctl.dask.logs answers."""

        async def read() -> Any:
            machine, job = await self._begun(ref)
            return await self._message(machine, op="workerctl_log", job=job, question=question)

        return await self.patiently(read)

    async def known(self, future: Future) -> str:
        """The id of a command that was just submitted, once the scheduler knows it."""
        await self.scheduler("known", key=future.key, seconds=ASK_SECONDS)
        return ids.queue_id(future.key)

    # ── what the scheduler knows ──

    async def scheduler(self, operation: str, **params: Any) -> Any:
        """Raises ConnectionFailed where there is none any more, or none of ours."""
        try:
            answer = await getattr(self._client.scheduler, f"workerctl_{operation}")(**params)
        except OSError as error:
            raise ConnectionFailed(f"the scheduler does not answer: {error}") from error
        except (AttributeError, KeyError, ValueError) as error:
            raise ConnectionFailed(NO_PLUGIN) from error
        if answer is None:  # all that Dask says of what it does not know
            raise NoMachines(NO_PLUGIN)
        return answer

    async def machines(self) -> dict[str, Plain]:
        """Those that are there. Raises ConnectionFailed where none is."""
        found: dict[str, Plain] = await self.scheduler("machines")
        there = {name: machine for name, machine in found.items() if machine["address"]}
        self._seen.update(there)
        if not there:
            raise NoMachines(NO_PLUGIN)
        return there

    async def ask(self, machine: str, method: str, params: Plain) -> Plain:
        """Of that machine's workerd, with ids as it knows them."""
        result: Plain = await self._message(machine, op="workerctl_call", method=method, params=params)
        return result

    async def _message(self, machine: str, **message: Any) -> Any:
        """Waits for a machine that is away and may come back."""
        there = await self.machines()
        if machine not in there:
            if not await self.scheduler("back", machine=machine, seconds=ASK_SECONDS):
                raise WrongState(f"machine {machine} has left the cluster, and its jobs are lost")
            there = await self.machines()
        if machine not in there:
            raise _not_there(machine, there)
        try:
            answer = await self._client.scheduler.proxy(msg=message, worker=there[machine]["address"])
        except OSError as error:
            raise ConnectionFailed(f"machine {machine} does not answer: {error}") from error
        if (failure := answer.get("error")) is not None:
            raise error_of(failure)
        return answer["result"]

    # ── one job ──

    async def _of_one(self, method: str, params: Plain) -> Plain:
        ref = params["id"]
        view = await self._unplaced(ref)
        if view is not None:
            return await self._of_unplaced(method, view, params)
        machine, job = await self._place(ref)
        answer = await self.ask(machine, method, {**params, "id": job})
        return ids.outward(answer, machine) if "id" in answer else answer

    async def _unplaced(self, ref: str) -> Plain | None:
        """What is known of a command that is on no machine: it waits, is lost, or never began."""
        machine, job = ids.split(ref)
        if machine == ids.QUEUE:
            view: Plain = await self.scheduler("where", key=ids.key_of(job), seconds=0)
            return view if view["known"] and (view.get("lost") or not view["job_id"]) else None
        if machine is not None and machine not in await self.scheduler("machines"):
            lost: list[Plain] = await self.scheduler("lost", machine=machine, job=job)
            return lost[0] if lost else None
        return None

    async def _of_unplaced(self, method: str, view: Plain, params: Plain) -> Plain:
        if view.get("error"):
            raise error_of(view["error"])
        if view.get("lost"):
            if method == "job.status":
                return lost_job(view)
            raise WrongState(f"job {params['id']} is lost: machine {view['machine']} left the cluster with it")
        if method == "job.status":
            return answers.waiting_job(view)
        if method in ("job.stop", "job.kill", "job.remove") and await self.scheduler("drop", key=view["key"]):
            return {**answers.waiting_job(view), "state": "finished", "reason": "stopped", "stop_requested": True}
        if method.startswith("output."):
            machine, job = await self._begun(params["id"])
            return await self.ask(machine, method, {**params, "id": job})
        raise WrongState(f"job {params['id']} waits for a machine: try again when it runs")

    async def _begun(self, ref: str) -> tuple[str, str]:
        """(machine, id), once it has one."""
        while (view := await self._unplaced(ref)) is not None:
            if view.get("error"):
                raise error_of(view["error"])
            if view.get("lost"):
                raise WrongState(f"job {ref} is lost: its output was on machine {view['machine']}")
            await self.scheduler("where", key=view["key"], seconds=ASK_SECONDS)
        return await self._place(ref)

    async def _place(self, ref: str) -> tuple[str, str]:
        """(machine, id as it knows it)"""
        machine, job = ids.split(ref)
        there = await self.machines()
        if machine == ids.QUEUE:
            return await self._by_key(ids.key_of(job), ref)
        if machine is not None:
            if machine not in there and machine not in await self.scheduler("machines"):
                expected = machine in self._seen
                if not (expected and await self.scheduler("back", machine=machine, seconds=ASK_SECONDS, expected=True)):
                    raise _not_there(machine, there)
            return machine, job
        found = [name for name, answer in (await self.everywhere("job.status", {"id": job})).items() if answer]
        if not found:
            raise NoSuchJob(f"no job {ref!r} on any machine of the cluster", id=ref)
        if len(found) > 1:
            several = ", ".join(ids.join(name, job) for name in found)
            raise AmbiguousId(f"{ref!r} is on more than one machine: say which, {several}", id=ref)
        return found[0], job

    async def _by_key(self, key: str, ref: str) -> tuple[str, str]:
        view = await self.scheduler("where", key=key, seconds=0)
        if view["known"] and view["job_id"]:
            return view["machine"], view["job_id"]
        # The scheduler has forgotten it, or is another one: the machine has not.
        params = {"all": True, "labels": {ids.LABEL: key}, "limit": 1}
        for machine, answer in (await self.everywhere("job.list", params)).items():
            for job in answer["jobs"] if answer else ():
                return machine, job["id"]
        raise NoSuchJob(f"no job {ref!r} in the cluster", id=ref)

    async def everywhere(self, method: str, params: Plain) -> dict[str, Plain | None]:
        """Each machine's answer; None where it knows no such job, or does not answer."""

        async def one(machine: str) -> Plain | None:
            try:
                return await self.ask(machine, method, params)
            except NoSuchJob:
                return None
            except ConnectionFailed as error:
                self._note(f"machine {machine} is left out: {error}")
                return None

        names = sorted(await self.machines())
        return dict(zip(names, await asyncio.gather(*map(one, names)), strict=True))

    # ── run ──

    async def _run(self, params: Plain) -> Plain:
        _check_can_travel(params)
        need = {**resources.wanted(params["spec"]), **params.get("need", {})}
        there = await self.machines()
        if not any(resources.fits(need, machine["total"]) for machine in there.values()):
            raise PolicyExceeded(
                f"no machine of the cluster ever has {resources.in_words(need)} for you: {answers.offers(there)}"
            )
        request = {name: value for name, value in params.items() if name in ("spec", "env")}
        options = {name: params[name] for name in ("need", "retries") if name in params}
        future = submit_request(self._client, request, params["spec"]["argv"], **options)
        self._futures[future.key] = future
        view = await self.scheduler("where", key=future.key, seconds=PLACE_SECONDS, expected=True)
        if view.get("error"):
            raise error_of(view["error"])
        if not view.get("job_id"):
            why = f"no machine has {resources.in_words(need)} free now"
            if params.get("queue", True):
                self._keys[ids.queue_id(future.key)] = future.key
                return {"id": ids.queue_id(future.key), "state": "queued", "waits_for": why}
            if await self.scheduler("drop", key=future.key):
                raise PolicyExceeded(f"it would have to wait: {why}")
            view = await self.scheduler("where", key=future.key, seconds=ASK_SECONDS, expected=True)
        job_id = ids.join(view["machine"], view["job_id"])
        self._keys[job_id] = future.key
        state = "queued" if view["waits_for"] else "running"
        return {"id": job_id, "state": state, "warnings": view["warnings"], "waits_for": view["waits_for"]}

    # ── wait ──

    async def _wait(self, params: Plain) -> Plain:
        tasks = {ref: asyncio.ensure_future(self._finished(ref)) for ref in params["ids"]}
        timeout = None if params.get("timeout") is None else params["timeout"] / 1e6
        until = asyncio.FIRST_COMPLETED if params.get("any") else asyncio.FIRST_EXCEPTION
        try:
            await asyncio.wait(tasks.values(), timeout=timeout, return_when=until)
            finished = [task.result() for task in tasks.values() if task.done()]
            return {"finished": finished, "pending": [ref for ref, task in tasks.items() if not task.done()]}
        finally:
            for task in tasks.values():
                task.cancel()
            await asyncio.gather(*tasks.values(), return_exceptions=True)

    async def _finished(self, ref: str) -> Plain:
        """The job as it ended; of a command that was run again, its last run."""
        machine, job = ids.split(ref)
        key = ids.key_of(job) if machine == ids.QUEUE else self._keys.get(ref)
        while key is not None:
            view = await self.scheduler("outcome", key=key, seconds=ASK_SECONDS)
            if not view["known"]:
                break
            if view.get("error"):
                raise error_of(view["error"])
            if view.get("lost") or view.get("job"):
                return view.get("job") or lost_job(view)
        return await self._finished_there(ref)

    async def _finished_there(self, ref: str) -> Plain:
        while True:
            view = await self._unplaced(ref)
            if view is not None and view.get("lost"):
                return lost_job(view)
            machine, job = await self._place(ref)
            try:
                answer = await self.ask(machine, "job.wait", {"ids": [job]})
                return ids.outward(answer["finished"][0], machine)
            except ConnectionFailed:
                if await self.scheduler("back", machine=machine, seconds=ASK_SECONDS):
                    continue
                raise


def _check_can_travel(params: Plain) -> None:
    if params.get("stdin") or params["spec"].get("tty"):
        raise InvalidParams("a job of the cluster has neither standard input nor a terminal: give it a file instead")
    if params.get("after") or params.get("at") is not None or params.get("delay") is not None:
        raise InvalidParams(
            "a job of the cluster starts when there is room for it: leave out --after, --at and --delay "
            "(workerctl.dask.submit takes `after`)"
        )


def _not_there(machine: str, there: dict[str, Plain]) -> NoSuchJob:
    return NoSuchJob(f"no machine {machine!r} in the cluster; there is {', '.join(sorted(there))}", id=machine)
