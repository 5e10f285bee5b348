"""As workerctl.api.command, for asyncio."""

from __future__ import annotations

import asyncio

from workerctl.api.command import Held


class AsyncCommand(Held):
    """Close it, or use it as an asynchronous context manager."""

    async def __aenter__(self) -> AsyncCommand:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    async def wait(self) -> int:
        """As `Command.wait`; by one task at a time."""
        if self._code is None:
            loop = asyncio.get_running_loop()
            ready = asyncio.Event()
            loop.add_reader(self.fileno(), ready.set)
            try:
                await ready.wait()
            finally:
                loop.remove_reader(self.fileno())
        return self.ended()
