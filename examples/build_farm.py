"""A build farm on one machine: many builds, few at once, each with its own limits.

    python3 examples/build_farm.py SECONDS NAME=COMMAND…

Prints how each ended as it ends, and why where it failed; exits with 1 where any did.
"""

import sys
from concurrent.futures import Future, as_completed

from workerctl import CommandExecutor, CommandFailed, JobResult, errors

AT_ONCE = 2


def main(limit: str, *targets: str) -> int:
    failed = 0
    with CommandExecutor(AT_ONCE, pids=500, timeout=limit, labels={"farm": "example"}, check=True) as farm:
        builds: dict[Future[JobResult], str] = {}
        for target in targets:
            name, _, command = target.partition("=")
            builds[farm.submit(["sh", "-c", command])] = name
        for build in as_completed(builds):
            name = builds[build]
            try:
                result = build.result()
                print(f"{name}: done, {len(result.stdout)} bytes of output")
            except CommandFailed as error:
                failed += 1
                print(f"{name}: {error.verdict.what}")
                print(error.result.stderr.decode(errors="replace"), end="")
            except errors.WorkerError as error:
                failed += 1
                print(f"{name}: {error}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
