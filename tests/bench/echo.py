"""A line echo on asyncio streams: what the RPC is measured against. `echo.py SOCKET`."""

from __future__ import annotations

import asyncio
import contextlib
import sys


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionResetError):
        while line := await reader.readline():
            writer.write(line)
            await writer.drain()
    writer.close()


async def main() -> None:
    server = await asyncio.start_unix_server(echo, sys.argv[1])
    print("ready", flush=True)
    async with server:
        await server.serve_forever()


asyncio.run(main())
