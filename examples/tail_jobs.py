"""Follows the output of all jobs with a label, old ones and new ones, on one connection.

    python3 examples/tail_jobs.py KEY[=VALUE]

Prints `name | line` as lines come, and how each job ended. Ends when none is left.
"""

import asyncio
import contextlib
import sys

from workerctl import AsyncClient, Job, State, errors


async def follow(client: AsyncClient, job: Job) -> None:
    name = job.spec.name or job.id
    rest = b""
    async for piece in client.stream(job):
        *lines, rest = (rest + piece.data).split(b"\n")
        for line in lines:
            print(f"{name} | {line.decode(errors='replace')}", flush=True)
    if rest:
        print(f"{name} | {rest.decode(errors='replace')}", flush=True)
    ended = await client.wait(job)
    print(f"{name} {ended.ending}", flush=True)


async def main(label: str) -> None:
    key, equals, value = label.partition("=")
    wanted = {key: value if equals else None}
    tasks: dict[str, asyncio.Task[None]] = {}
    async with AsyncClient(patience=60) as client, asyncio.TaskGroup() as group:

        def begin(job: Job) -> None:
            if job.id not in tasks and key in job.spec.labels and wanted[key] in (None, job.spec.labels[key]):
                tasks[job.id] = group.create_task(follow(client, job))

        async def newcomers() -> None:
            async for event in events:
                if event.id and event.state in (State.QUEUED, State.STARTING, State.RUNNING):
                    with contextlib.suppress(errors.NoSuchJob):  # it was removed since
                        begin(await client.status(event.id))

        events = await client.events()  # from now on none is missed; what is there is listed
        async for job in client.list(labels=wanted):
            begin(job)
        watching = group.create_task(newcomers())
        while left := [task for task in tasks.values() if not task.done()]:
            await asyncio.wait(left)
        watching.cancel()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
