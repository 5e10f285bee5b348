"""Being told of writes, also when the kernel has lost count of them."""

from __future__ import annotations

import asyncio
import functools
import os
from pathlib import Path

from workerd.followers import Followers
from workerd.inotify import Inotify
from workerd.output import Extent


class TestInotify:
    def test_an_overflow_wakes_everybody(self, tmp_path: Path) -> None:
        most = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())

        async def run() -> set[str]:
            told: set[str] = set()
            everybody = asyncio.Event()

            def tell(name: str) -> None:
                told.add(name)
                if len(told) == 3:
                    everybody.set()

            inotify = Inotify(asyncio.get_running_loop())
            fds = {}
            for name in ("a", "b", "late"):
                fds[name] = os.open(tmp_path / name, os.O_WRONLY | os.O_CREAT, 0o600)
                inotify.add(str(tmp_path / name), functools.partial(tell, name))
            for _ in range(most // 2 + 100):  # by turns: the kernel joins equal neighbours
                os.write(fds["a"], b"x")
                os.write(fds["b"], b"x")
            os.write(fds["late"], b"x")  # there is no place for this one
            async with asyncio.timeout(30):
                await everybody.wait()
            inotify.close()
            for fd in fds.values():
                os.close(fd)
            return told

        assert asyncio.run(run()) == {"a", "b", "late"}


class TestFollowers:
    def test_a_write_wakes_all_that_wait_and_the_watch_goes_with_the_last(self, tmp_path: Path) -> None:
        index = tmp_path / "index"
        index.touch()

        async def run() -> list[int]:
            followers = Followers(asyncio.get_running_loop())

            def look() -> Extent:
                return Extent(0, index.stat().st_size, 0, complete=False)

            waits = [asyncio.create_task(followers.wait(str(index), 0, look)) for _ in range(50)]
            await asyncio.sleep(0.05)
            assert not any(wait.done() for wait in waits)
            index.write_bytes(b"abc")
            async with asyncio.timeout(30):
                ends = [(await wait).end for wait in waits]
            assert not followers._watches and not followers._waiting
            followers.close()
            return ends

        assert asyncio.run(run()) == [3] * 50
